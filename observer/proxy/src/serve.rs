//! A client's connection, from its first byte to its end.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use crate::forward::Forward;
use crate::guarded::{Guarded, Shared};
use crate::server::Server;
use crate::{Limits, Session};

/// What HTTP/2 begins with; no request of HTTP/1 does.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// For so long, and so much, is read of who was refused: else the kernel would reset the connection, and the answer with it.
const LINGER: Duration = Duration::from_secs(2);
const MOST_LINGERED: u64 = 1 << 20;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By either side, between two requests or within one.
    Closed,
    /// The client's requests could not be read, or could be read in more than one way.
    Refused,
    /// The client took too long.
    Late,
}

/// Serves a client until either side ends the connection.
pub async fn serve<S, T>(client: T, session: Arc<S>, limits: Limits) -> End
where
    S: Session,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut client = client;
    let mut first = [0; PREFACE.len()];
    let Ok(begun) = timeout(limits.idle, begin(&mut client, &mut first, limits)).await else {
        return End::Late;
    };
    let first = match begun {
        Ok(0) => return End::Closed,
        Ok(length) => &first[..length],
        Err(error) if error.kind() == io::ErrorKind::TimedOut => return End::Late,
        Err(_) => return End::Closed,
    };
    let is_http2 = first == PREFACE;
    let shared = Arc::new(Shared::default());
    let guarded = Guarded::new(client, first, Arc::clone(&shared), limits);
    let server = Server::new(Arc::clone(&session), limits, is_http2);
    let forward = Arc::new(Forward { session, server, shared: Arc::clone(&shared) });
    let service = service_fn(move |request| Arc::clone(&forward).answer(request));
    // Errors are told by what is shared; others are of a client that went away.
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(64 << 10)
            .max_send_buf_size(256 << 10)
            .auto_date_header(false)
            .keep_alive_interval(limits.idle / 4);
        let _ = builder.serve_connection(TokioIo::new(guarded.frames()), service).await;
    } else {
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(true).auto_date_header(false).header_read_timeout(None);
        // `guarded` has timers of its own.
        let connection = builder.serve_connection(TokioIo::new(guarded), service).with_upgrades();
        tokio::select! {
            _ = connection => {}
            () = given_up(&shared, limits.ended) => shared.late.store(true, Ordering::Relaxed),
        }
    }
    let left = shared.left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(left) = left {
        linger(left).await;
    }
    if shared.broken.load(Ordering::Relaxed) {
        End::Refused
    } else if shared.late.load(Ordering::Relaxed) {
        End::Late
    } else {
        End::Closed
    }
}

/// A client that says no more may be waiting for its answer, or be gone, which only writing to it tells.
async fn given_up<T>(shared: &Shared<T>, longest: Duration) {
    shared.ended.notified().await;
    loop {
        let before = shared.written.load(Ordering::Relaxed);
        sleep(longest).await;
        if shared.written.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Reads until it is clear whether it is HTTP/2. How much was read.
async fn begin(client: &mut (impl AsyncRead + Unpin), first: &mut [u8], limits: Limits) -> io::Result<usize> {
    let mut length = client.read(first).await?;
    while length > 0 && length < first.len() && PREFACE.starts_with(&first[..length]) {
        let more = timeout(limits.head, client.read(&mut first[length..])).await??;
        if more == 0 {
            break;
        }
        length += more;
    }
    Ok(length)
}

async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    // Whatever goes wrong, it ends.
    let _ = timeout(LINGER, async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_LINGERED), &mut tokio::io::sink()).await
    })
    .await;
}
