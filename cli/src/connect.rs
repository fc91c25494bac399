//! Which server, and the way to it.

use crate::{
    args::ServerArgs,
    rpc,
    tls::{self, Tls},
};
use hyper_util::rt::TokioIo;
use observer_proto::{
    client::{DIAL_TIMEOUT, Endpoint},
    text::sanitize::clean,
};
use std::{env, error::Error, fmt, io, path::Path};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use tonic::{
    Status,
    transport::{self, Channel},
};

/// Where the daemon listens.
const LOCAL_SOCKET: &str = "/run/observer/hubble.sock";
/// Hubble's default, for a relay or a port-forward.
const DEFAULT_SERVER: &str = "localhost:4245";
/// Whose members may use the daemon's socket.
const GROUP: &str = "observer";
/// Bytes under way.
const WINDOW: u32 = 1024 * 1024;
/// With what a client of HTTP/2 begins: the preface and empty settings.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A server and who named it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    named_by: NamedBy,
    /// For an endpoint with TLS.
    tls: Option<Tls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamedBy {
    Flag(&'static str),
    Variable(&'static str),
    LocalSocket,
    Default,
}

impl Target {
    /// The flag, the environment, the local socket if there is one, else Hubble's default.
    pub(crate) fn choose(args: &ServerArgs) -> Result<Self, String> {
        let variable = |name: &'static str| {
            env::var(name).ok().filter(|v| !v.is_empty()).map(|v| (v, NamedBy::Variable(name)))
        };
        let tls = args.tls.clone().or_environment();
        let (address, named_by) = args
            .server
            .clone()
            .map(|address| (address, NamedBy::Flag("--server")))
            .or_else(|| variable("OBSERVE_SERVER"))
            .or_else(|| variable("HUBBLE_SERVER"))
            .unwrap_or_else(|| {
                // Who wants TLS wants no socket. What can't be looked at is there: the error then says what is not permitted.
                if !tls.tls && Path::new(LOCAL_SOCKET).try_exists().unwrap_or(true) {
                    (LOCAL_SOCKET.to_owned(), NamedBy::LocalSocket)
                } else {
                    (DEFAULT_SERVER.to_owned(), NamedBy::Default)
                }
            });
        let endpoint = Endpoint::parse(&address).map_err(|e| match named_by {
            NamedBy::Variable(name) => format!("${name}: {e}"),
            _ => e.to_string(),
        })?;
        let endpoint = if tls.tls {
            endpoint
                .encrypted()
                .ok_or("--tls: a unix socket needs none; leave it out, or name host:port with --server")?
        } else {
            endpoint
        };
        let tls = match endpoint {
            Endpoint::Tls(_) => Some(Tls::new(&tls)?),
            // Hubble's words. What the environment has is for servers with TLS only.
            _ if args.tls.wants_tls() => {
                return Err("invalid flag(s): transport layer security required".to_owned());
            }
            _ => None,
        };
        Ok(Self { endpoint, named_by, tls })
    }

    /// The daemon's control socket: the given one, else the one beside the server's socket, else the usual one.
    pub(crate) fn control(given: Option<&str>, args: &ServerArgs) -> Result<Self, String> {
        let endpoint = match given {
            Some(path) => Endpoint::parse(path).map_err(|e| format!("--control-socket: {e}"))?,
            None => Self::choose(args)?.endpoint.control_socket(),
        };
        let tls = None;
        Ok(Self { endpoint, named_by: NamedBy::Flag("--control-socket"), tls })
    }

    /// Connects, within the dial timeout.
    pub(crate) async fn connect(&self) -> Result<Channel, String> {
        match timeout(DIAL_TIMEOUT, self.dial()).await {
            Ok(Ok(channel)) => Ok(channel),
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
                        async move { UnixStream::connect(path).await.map(TokioIo::new) }
                    }))
                    .await
            }
            Endpoint::Tcp(target) => {
                windows(transport::Endpoint::from_shared(format!("http://{target}"))?)
                    .connect_timeout(DIAL_TIMEOUT)
                    .connect()
                    .await
            }
            Endpoint::Tls(target) => {
                let connect = {
                    let (tls, target) = (self.tls.clone(), target.clone());
                    move |_| {
                        let (tls, target) = (tls.clone(), target.clone());
                        async move {
                            let tls = tls.ok_or(io::ErrorKind::Unsupported)?;
                            tls.connect(&target).await.map(TokioIo::new)
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
            && let Ok(Some(text)) = timeout(DIAL_TIMEOUT, self.look_at_tls()).await
        {
            return text;
        }
        rpc::text(status)
    }

    async fn look_at_tls(&self) -> Option<String> {
        match &self.endpoint {
            Endpoint::Unix(_) => None,
            Endpoint::Tcp(target) => Tls::is_spoken_by(target).await.then(|| {
                self.problem("the server speaks TLS", "add --tls, or write tls:// before the address")
            }),
            Endpoint::Tls(target) => {
                let talk = async {
                    let mut stream =
                        self.tls.as_ref().ok_or(io::ErrorKind::Unsupported)?.connect(target).await?;
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
        let control = self.named_by == NamedBy::Flag("--control-socket");
        let (why, remedy) = match io.map(io::Error::kind) {
            Some(io::ErrorKind::NotFound) => ("no such socket".to_owned(), None),
            Some(io::ErrorKind::ConnectionRefused) => {
                ("connection refused, nothing listens there".to_owned(), None)
            }
            Some(io::ErrorKind::TimedOut) => (format!("no answer within {} s", DIAL_TIMEOUT.as_secs()), None),
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
        let origin = match self.named_by {
            NamedBy::Variable(name) => format!(" (from ${name})"),
            NamedBy::Default => format!(" (and there is no {LOCAL_SOCKET})"),
            NamedBy::Flag(_) | NamedBy::LocalSocket => String::new(),
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

/// What a server may send before it has to wait for us: with HTTP/2's own 64 KiB it waits after each few dozen flows.
fn windows(endpoint: transport::Endpoint) -> transport::Endpoint {
    endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW)
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
        };
        let text =
            target(NamedBy::LocalSocket).unreachable(Some(&io::ErrorKind::PermissionDenied.into()), &"");
        assert_eq!(
            text,
            "cannot reach unix:///run/observer/hubble.sock\npermission denied\nhint: root and the group observer may use it: \
             run this with sudo, or join the group with `sudo usermod -aG observer $USER` and log in again"
        );
        let text = target(NamedBy::Variable("HUBBLE_SERVER"))
            .unreachable(Some(&io::ErrorKind::TimedOut.into()), &"");
        assert!(text.contains("(from $HUBBLE_SERVER)\nno answer within 5 s\nhint: "), "{text}");
        let text = target(NamedBy::Flag("--control-socket"))
            .unreachable(Some(&io::ErrorKind::PermissionDenied.into()), &"");
        assert!(text.ends_with("only root may use it: run this with sudo"), "{text}");
    }
}
