//! Takes connections in and serves HTTP/2 on them, encrypted or not, each for as long as it behaves.

use super::{
    Limits, Refusal,
    counters::Counters,
    frames::{Metered, Seen},
    gather::Gathered,
    handshakes::{Handshake, Handshakes},
    tls::{self, Certificate},
};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    error::Error,
    future::poll_fn,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// After the system gave no connection: most often it has no more files, and asking at once again would be in vain.
const PAUSE: Duration = Duration::from_millis(100);
/// With so many bytes of a stream waiting for the socket its body is asked for no more: a piece of a GetFlows answer. With
/// hyper's 400 KiB a thousand clients that don't read would hold 400 MiB.
const STREAM_BUFFER: usize = 64 << 10;

/// Where connections come from.
pub(super) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, Arc<Certificate>),
}

enum Incoming {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(TcpStream, Arc<Certificate>),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Incoming, String)> {
        let tcp = async |listener: &TcpListener| {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            io::Result::Ok((stream, format!("from {peer}")))
        };
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Incoming::Unix(stream), "from this machine".to_owned()))
            }
            Self::Tcp(listener) => tcp(listener).await.map(|(stream, peer)| (Incoming::Tcp(stream), peer)),
            Self::Tls(listener, certificate) => {
                let certificate = Arc::clone(certificate);
                tcp(listener).await.map(|(stream, peer)| (Incoming::Tls(stream, certificate), peer))
            }
        }
    }
}

/// One listener with what it serves.
pub(super) struct Door<S> {
    /// For the log.
    pub(super) name: Arc<str>,
    pub(super) listener: Listener,
    pub(super) limits: Limits,
    /// Free places for connections.
    pub(super) places: Arc<Semaphore>,
    pub(super) counters: Arc<Counters>,
    pub(super) service: S,
    pub(super) ending: watch::Receiver<bool>,
}

/// What each of its connections needs.
struct Session<S> {
    http: http2::Builder<TokioExecutor>,
    service: TowerToHyperService<S>,
    ending: watch::Receiver<bool>,
}

/// Why a connection ended that was not ended by the client; nothing where it was the server's own end.
type Ended = Result<(), (Refusal, String)>;

impl<S> Door<S>
where
    S: tower::Service<http::Request<hyper::body::Incoming>, Response = super::Response>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Serves until the server ends, and its connections until they have.
    pub(super) async fn run(mut self) {
        let mut handshakes = Handshakes::new(self.limits);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                // An error means that the handle is gone: the same.
                _ = self.ending.wait_for(|down| *down) => break,
                _ = connections.join_next(), if !connections.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                        connections.spawn(self.connection(stream, peer, place, handshakes.begin()));
                    } else {
                        // Closed at once: a client that gets no answer at all would wait.
                        let detail = format_args!("{peer}: at most {} at a time", self.limits.connections);
                        self.counters.refuse(&self.name, Refusal::Connections, &detail);
                    }
                }
                // The client was gone before it was taken in.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    self.counters.refuse(&self.name, Refusal::Accept, &error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(self.listener);
        while connections.join_next().await.is_some() {}
    }

    fn connection(
        &self,
        stream: Incoming,
        peer: String,
        place: OwnedSemaphorePermit,
        handshake: Handshake,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let (counters, name) = (Arc::clone(&self.counters), Arc::clone(&self.name));
        let session = Session {
            http: http(&self.limits),
            service: TowerToHyperService::new(self.service.clone()),
            ending: self.ending.clone(),
        };
        async move {
            let ended = match stream {
                Incoming::Unix(stream) => session.serve(stream, handshake).await,
                Incoming::Tcp(stream) => session.serve(stream, handshake).await,
                Incoming::Tls(stream, certificate) => {
                    session.encrypt(TlsAcceptor::from(certificate.current()), stream, handshake).await
                }
            };
            if let Err((reason, detail)) = ended {
                counters.refuse(&name, reason, &format_args!("{peer}: {detail}"));
            }
            drop(place);
        }
    }
}

fn http(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(limits.header_bytes)
        .max_send_buf_size(STREAM_BUFFER)
        .keep_alive_interval(limits.keepalive)
        .keep_alive_timeout(limits.keepalive);
    http
}

impl<S> Session<S>
where
    S: tower::Service<http::Request<hyper::body::Incoming>, Response = super::Response>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    async fn encrypt(mut self, acceptor: TlsAcceptor, stream: TcpStream, mut handshake: Handshake) -> Ended {
        let stream = tokio::select! {
            accepted = acceptor.accept(stream) => {
                accepted.map_err(|error| (tls::refusal(&error), error.to_string()))?
            }
            reason = handshake.must_end() => return Err((reason, "in TLS".to_owned())),
            _ = self.ending.wait_for(|down| *down) => return Ok(()),
        };
        self.serve(stream, handshake).await
    }

    async fn serve<T>(mut self, stream: T, handshake: Handshake) -> Ended
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let seen = Arc::new(Seen::default());
        let gathered = Gathered::new(stream);
        let stream = TokioIo::new(Metered::new(gathered.clone(), Arc::clone(&seen)));
        let mut connection = pin!(self.http.serve_connection(stream, self.service));
        let mut handshake = Some(handshake);
        let mut ends = false;
        loop {
            tokio::select! {
                result = poll_fn(|cx| gathered.turn(connection.as_mut(), cx)) => {
                    return match result {
                        Err(error) => refusal(&error, &seen).map_or(Ok(()), |reason| Err((reason, chain(&error)))),
                        Ok(()) => Ok(()),
                    };
                }
                () = seen.opened.notified(), if handshake.is_some() => handshake = None,
                reason = must_end(&mut handshake) => return Err((reason, "in HTTP/2".to_owned())),
                _ = self.ending.wait_for(|down| *down), if !ends => {
                    if handshake.is_some() {
                        return Ok(());
                    }
                    ends = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn must_end(handshake: &mut Option<Handshake>) -> Refusal {
    match handshake {
        Some(handshake) => handshake.must_end().await,
        None => std::future::pending().await,
    }
}

/// Whose fault the end of a connection was; nothing where the client went away, as it may.
fn refusal(error: &hyper::Error, seen: &Seen) -> Option<Refusal> {
    let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    if is(&seen.flood) {
        return Some(Refusal::Flood);
    }
    if !is(&seen.http2) {
        return Some(if is(&seen.anything) { Refusal::NotHttp2 } else { Refusal::Closed });
    }
    if error.is_timeout() {
        return Some(Refusal::Keepalive);
    }
    let gone = causes(error).any(<dyn Error>::is::<io::Error>);
    (!gone).then_some(Refusal::Protocol)
}

fn causes(error: &hyper::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// An error with its causes; hyper and h2 leave theirs out of their own text.
fn chain(error: &hyper::Error) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
