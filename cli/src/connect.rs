//! Which server, and the way to it.

#[cfg(feature = "port-forward")]
use crate::port_forward;
use crate::{
    rpc,
    settings::{Origin, PortForward, Settings},
    tls::{self, Tls},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use observer_proto::{client::Endpoint, text::sanitize::clean};
use std::{error::Error, fmt, io, path::Path, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};
use tonic::{
    Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{self, Channel},
};
use tower::ServiceExt as _;

/// Where the daemon listens.
const LOCAL_SOCKET: &str = "/run/observer/hubble.sock";
/// Hubble's default, for a relay or a port-forward.
const DEFAULT_SERVER: &str = "localhost:4245";
/// How the relay is called that a port-forward leads to.
const RELAY: &str = "hubble-relay:4245";
/// Whose members may use the daemon's socket.
const GROUP: &str = "observer";
/// Bytes under way.
const WINDOW: u32 = 2 * 1024 * 1024;
/// Bytes that are read at once.
const READ: usize = 64 * 1024;
/// With what a client of HTTP/2 begins: the preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A server and who named it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    named_by: NamedBy,
    /// For an endpoint with TLS.
    tls: Option<Tls>,
    /// Name and password.
    basic_auth: Option<(String, String)>,
    /// The way through the Kubernetes API.
    forward: Option<PortForward>,
    /// How long connecting may take.
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NamedBy {
    Setting(Origin),
    Flag(&'static str),
    LocalSocket,
    Default,
}

/// A connection, which knows the user's name and password.
pub(crate) type Connection = InterceptedService<Channel, Credentials>;

/// Puts basic authentication into each call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials(Option<AsciiMetadataValue>);

impl Interceptor for Credentials {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Target {
    /// What the settings name, else the local socket if there is one, else Hubble's default.
    pub(crate) fn choose(settings: &Settings) -> Result<Self, String> {
        let (address, named_by) = match &settings.server {
            // The address is in the cluster then; of a given one only its tls:// counts, as in Hubble.
            given if settings.port_forward.is_some() => {
                if !cfg!(feature = "port-forward") {
                    return Err(
                        "this build has no --port-forward: build it with the feature port-forward, or run \
                                `kubectl port-forward -n kube-system service/hubble-relay 4245:80`"
                            .to_owned(),
                    );
                }
                let scheme = given.as_ref().filter(|(address, _)| address.starts_with("tls://"));
                (
                    format!("{}{RELAY}", if scheme.is_some() { "tls://" } else { "" }),
                    NamedBy::Flag("--port-forward"),
                )
            }
            Some((address, origin)) => (address.clone(), NamedBy::Setting(origin.clone())),
            // Who wants TLS wants no socket. What can't be looked at is there: the error then says what is not permitted.
            None if !settings.tls.on && Path::new(LOCAL_SOCKET).try_exists().unwrap_or(true) => {
                (LOCAL_SOCKET.to_owned(), NamedBy::LocalSocket)
            }
            None => (DEFAULT_SERVER.to_owned(), NamedBy::Default),
        };
        let endpoint = Endpoint::parse(&address).map_err(|e| match &named_by {
            NamedBy::Setting(origin) if *origin != Origin::Flag => format!("{origin}: {e}"),
            _ => e.to_string(),
        })?;
        let endpoint = if settings.tls.on {
            endpoint
                .encrypted()
                .ok_or("--tls: a unix socket needs none; leave it out, or name host:port with --server")?
        } else {
            endpoint
        };
        let tls = match endpoint {
            Endpoint::Tls(_) => Some(Tls::new(&settings.tls)?),
            _ => None,
        };
        let basic_auth = settings.basic_auth.clone();
        // gRPC's own words, which Hubble's users see.
        if basic_auth.is_some() && tls.is_none() {
            return Err("the credentials require transport level security (use --tls, or tls:// before the \
                        address, to send a user name and password)"
                .to_owned());
        }
        let forward = settings.port_forward.clone();
        Ok(Self { endpoint, named_by, tls, basic_auth, forward, timeout: settings.timeout })
    }

    /// The daemon's control socket: the given one, else the one beside the server's socket, else the usual one.
    pub(crate) fn control(given: Option<&str>, settings: &Settings) -> Result<Self, String> {
        let endpoint = match given {
            Some(path) => Endpoint::parse(path).map_err(|e| format!("--control-socket: {e}"))?,
            None => Self::choose(settings)?.endpoint.control_socket(),
        };
        let named_by = NamedBy::Flag("--control-socket");
        Ok(Self { endpoint, named_by, tls: None, basic_auth: None, forward: None, timeout: settings.timeout })
    }

    /// Connects, within the dial timeout.
    pub(crate) async fn connect(&self) -> Result<Connection, String> {
        let header = self.basic_auth.as_ref().map(|(name, password)| {
            let encoded = BASE64_STANDARD.encode(format!("{name}:{password}"));
            AsciiMetadataValue::try_from(format!("Basic {encoded}")).map_err(|e| e.to_string())
        });
        let credentials = Credentials(header.transpose()?);
        match timeout(self.timeout, self.dial()).await {
            Ok(Ok(channel)) => Ok(InterceptedService::new(channel, credentials)),
            Ok(Err(error)) => Err(self.unreachable(io_error(&error), &error)),
            Err(_) => Err(self.unreachable(Some(&io::ErrorKind::TimedOut.into()), &"timed out")),
        }
    }

    async fn dial(&self) -> Result<Channel, transport::Error> {
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let path = path.clone();
                // The address stands for the `:authority` header only.
                windows(transport::Endpoint::from_static("http://localhost"))
                    .connect_with_connector(tower::service_fn(move |_| {
                        let path = path.clone();
                        async move { UnixStream::connect(path).await.map(buffered) }
                    }))
                    .await
            }
            Endpoint::Tcp(target) => {
                let endpoint = windows(transport::Endpoint::from_shared(format!("http://{target}"))?);
                #[cfg(feature = "port-forward")]
                if let Some(forward) = &self.forward {
                    let forward = forward.clone();
                    let connect = move |_| {
                        let forward = forward.clone();
                        async move { port_forward::open(&forward).await.map(TokioIo::new) }
                    };
                    return endpoint.connect_with_connector(tower::service_fn(connect)).await;
                }
                let mut connect = HttpConnector::new();
                connect.set_nodelay(true);
                connect.set_connect_timeout(Some(self.timeout));
                let connect = connect.map_response(|stream| buffered(stream.into_inner()));
                endpoint.connect_with_connector(connect).await
            }
            Endpoint::Tls(target) => {
                let connect = {
                    let (tls, target, forward) = (self.tls.clone(), target.clone(), self.forward.clone());
                    move |_| {
                        let (tls, target, forward) = (tls.clone(), target.clone(), forward.clone());
                        async move {
                            let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
                            encrypted(&tls, &target, forward.as_ref()).await.map(TokioIo::new)
                        }
                    }
                };
                windows(transport::Endpoint::from_shared(format!("https://{target}"))?)
                    .connect_with_connector(tower::service_fn(connect))
                    .await
            }
        }
    }

    /// A call that failed. Where the connection broke, it may be for TLS, which gRPC's error doesn't tell.
    pub(crate) async fn failed(&self, status: &Status) -> String {
        if is_broken(status)
            && let Ok(Some(text)) = timeout(self.timeout, self.look_at_tls()).await
        {
            return text;
        }
        rpc::text(status)
    }

    async fn look_at_tls(&self) -> Option<String> {
        match &self.endpoint {
            Endpoint::Unix(_) => None,
            // Through a port-forward nobody else can be asked.
            Endpoint::Tcp(_) if self.forward.is_some() => None,
            Endpoint::Tcp(target) => Tls::is_spoken_by(target).await.then(|| {
                self.problem("the server speaks TLS", "add --tls, or write tls:// before the address")
            }),
            Endpoint::Tls(target) => {
                let talk = async {
                    let tls = self.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?;
                    let mut stream = encrypted(tls, target, self.forward.as_ref()).await?;
                    stream.write_all(HELLO).await?;
                    stream.read(&mut [0]).await
                };
                let (why, remedy) = tls::explain(&talk.await.err()?)?;
                Some(self.problem(&why, &remedy))
            }
        }
    }

    /// What was tried, why it failed, and what to do, a line each.
    fn unreachable(&self, io: Option<&io::Error>, error: &dyn fmt::Display) -> String {
        if let Some((why, remedy)) = io.and_then(tls::explain) {
            return self.problem(&why, &remedy);
        }
        if self.forward.is_some() {
            let why = io.map_or_else(|| error.to_string(), ToString::to_string);
            return self.problem(
                &why,
                "try `kubectl get pods,services -n kube-system`, and name another place with \
                                       --kube-namespace, --kube-context or --kubeconfig",
            );
        }
        let control = self.named_by == NamedBy::Flag("--control-socket");
        let (why, remedy) = match io.map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => ("no such socket".to_owned(), None),
            Some(io::ErrorKind::ConnectionRefused) => {
                ("connection refused, nothing listens there".to_owned(), None)
            }
            Some(io::ErrorKind::TimedOut) => {
                (format!("no answer within {} s", self.timeout.as_secs_f64()), None)
            }
            Some(io::ErrorKind::PermissionDenied) if control => {
                ("permission denied".to_owned(), Some("only root may use it: run this with sudo".to_owned()))
            }
            Some(io::ErrorKind::PermissionDenied) => (
                "permission denied".to_owned(),
                Some(format!(
                    "root and the group {GROUP} may use it: run this with sudo, or join the group with \
                     `sudo usermod -aG {GROUP} $USER` and log in again"
                )),
            ),
            _ => (error.to_string(), None),
        };
        let remedy = remedy.unwrap_or_else(|| {
            let flag = if control { "--control-socket" } else { "--server or $OBSERVE_SERVER" };
            format!("start the daemon with `sudo observer`, or name another server with {flag}")
        });
        self.problem(&why, &remedy)
    }

    fn problem(&self, why: &str, remedy: &str) -> String {
        let origin = match &self.named_by {
            NamedBy::Setting(Origin::Flag) | NamedBy::Flag(_) | NamedBy::LocalSocket => String::new(),
            NamedBy::Setting(origin) => format!(" (from {origin})"),
            NamedBy::Default => format!(" (and there is no {LOCAL_SOCKET})"),
        };
        let mut text = format!("cannot reach {}{origin}\n", self.endpoint);
        // A certificate's names are the server's. Writing to a string can't fail.
        let _ = clean(why, &mut text);
        text + "\nhint: " + remedy
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

/// Encrypts a connection, by a port-forward if there is one.
async fn encrypted(tls: &Tls, target: &str, forward: Option<&PortForward>) -> io::Result<Box<dyn Encrypted>> {
    #[cfg(feature = "port-forward")]
    if let Some(forward) = forward {
        return Ok(Box::new(tls.over(target, port_forward::open(forward).await?).await?));
    }
    #[cfg(not(feature = "port-forward"))]
    let _ = forward;
    Ok(Box::new(tls.connect(target).await?))
}

/// A stream that TLS has made, whatever it goes over.
trait Encrypted: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Encrypted for S {}

/// What a server may send before it has to wait for us: with HTTP/2's own 64 KiB it waits after each few dozen flows.
fn windows(endpoint: transport::Endpoint) -> transport::Endpoint {
    endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW)
}

/// Reads what is there at once: h2 asks for 8 KiB at a time, which is a system call for each ten flows.
fn buffered<S: AsyncRead>(stream: S) -> TokioIo<BufReader<S>> {
    TokioIo::new(BufReader::with_capacity(READ, stream))
}

/// Whether a call failed for the connection, not by the server's word; of such a failure the code tells little.
pub(crate) fn is_broken(status: &Status) -> bool {
    causes(status).any(<dyn Error>::is::<transport::Error>)
}

fn io_error(error: &transport::Error) -> Option<&io::Error> {
    causes(error).find_map(<dyn Error>::downcast_ref)
}

/// An error and what it came of.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_socket_names_the_group() {
        let target = |named_by| Target {
            endpoint: Endpoint::Unix("/run/observer/hubble.sock".into()),
            named_by,
            tls: None,
            basic_auth: None,
            forward: None,
            timeout: Duration::from_secs(5),
        };
        let text =
            target(NamedBy::LocalSocket).unreachable(Some(&io::ErrorKind::PermissionDenied.into()), &"");
        assert_eq!(
            text,
            "cannot reach unix:///run/observer/hubble.sock\npermission denied\nhint: root and the group observer may use it: \
             run this with sudo, or join the group with `sudo usermod -aG observer $USER` and log in again"
        );
        let text = target(NamedBy::Setting(Origin::Variable("HUBBLE_SERVER".to_owned())))
            .unreachable(Some(&io::ErrorKind::TimedOut.into()), &"");
        assert!(text.contains("(from $HUBBLE_SERVER)\nno answer within 5 s\nhint: "), "{text}");
        let text = target(NamedBy::Flag("--control-socket"))
            .unreachable(Some(&io::ErrorKind::PermissionDenied.into()), &"");
        assert!(text.ends_with("only root may use it: run this with sudo"), "{text}");
    }
}
