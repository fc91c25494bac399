//! Which server, and the way to it.

use crate::args::ServerArgs;
use hyper_util::rt::TokioIo;
use observer_proto::client::{DIAL_TIMEOUT, Endpoint};
use std::{env, error::Error, fmt, io, path::Path};
use tokio::{net::UnixStream, time::timeout};
use tonic::transport::{self, Channel};

/// Where the daemon listens.
const LOCAL_SOCKET: &str = "/run/observer/hubble.sock";
/// Hubble's default, for a relay or a port-forward.
const DEFAULT_SERVER: &str = "localhost:4245";
/// Whose members may use the daemon's socket.
const GROUP: &str = "observer";

/// A server and who named it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    named_by: NamedBy,
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
        let (address, named_by) = args
            .server
            .clone()
            .map(|address| (address, NamedBy::Flag("--server")))
            .or_else(|| variable("OBSERVE_SERVER"))
            .or_else(|| variable("HUBBLE_SERVER"))
            .unwrap_or_else(|| {
                // What can't be looked at is there: the error then says what is not permitted.
                if Path::new(LOCAL_SOCKET).try_exists().unwrap_or(true) {
                    (LOCAL_SOCKET.to_owned(), NamedBy::LocalSocket)
                } else {
                    (DEFAULT_SERVER.to_owned(), NamedBy::Default)
                }
            });
        let endpoint = Endpoint::parse(&address).map_err(|e| match named_by {
            NamedBy::Variable(name) => format!("${name}: {e}"),
            _ => e.to_string(),
        })?;
        Ok(Self { endpoint, named_by })
    }

    /// The daemon's control socket: the given one, else the one beside the server's socket, else the usual one.
    pub(crate) fn control(given: Option<&str>, args: &ServerArgs) -> Result<Self, String> {
        let endpoint = match given {
            Some(path) => Endpoint::parse(path).map_err(|e| format!("--control-socket: {e}"))?,
            None => Self::choose(args)?.endpoint.control_socket(),
        };
        Ok(Self { endpoint, named_by: NamedBy::Flag("--control-socket") })
    }

    /// Connects, within the dial timeout.
    pub(crate) async fn connect(&self) -> Result<Channel, String> {
        match timeout(DIAL_TIMEOUT, self.dial()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(self.unreachable(io_error(&error), &error)),
            Err(_) => Err(self.unreachable(Some(io::ErrorKind::TimedOut), &"timed out")),
        }
    }

    async fn dial(&self) -> Result<Channel, transport::Error> {
        match &self.endpoint {
            Endpoint::Unix(path) => {
                let path = path.clone();
                // The address stands for the `:authority` header only.
                transport::Endpoint::from_static("http://localhost")
                    .connect_with_connector(tower::service_fn(move |_| {
                        let path = path.clone();
                        async move { UnixStream::connect(path).await.map(TokioIo::new) }
                    }))
                    .await
            }
            Endpoint::Tcp(target) => {
                transport::Endpoint::from_shared(format!("http://{target}"))?
                    .connect_timeout(DIAL_TIMEOUT)
                    .connect()
                    .await
            }
        }
    }

    /// One line: what was tried, and what to do.
    fn unreachable(&self, kind: Option<io::ErrorKind>, error: &dyn fmt::Display) -> String {
        let control = self.named_by == NamedBy::Flag("--control-socket");
        let (why, remedy) = match kind {
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
        let origin = match self.named_by {
            NamedBy::Variable(name) => format!(" (from ${name})"),
            NamedBy::Default => format!(" (and there is no {LOCAL_SOCKET})"),
            NamedBy::Flag(_) | NamedBy::LocalSocket => String::new(),
        };
        let remedy = remedy.unwrap_or_else(|| {
            let flag = if control { "--control-socket" } else { "--server or $OBSERVE_SERVER" };
            format!("start the daemon (observer), or name another with {flag}")
        });
        format!("cannot reach {}{origin}: {why}; {remedy}", self.endpoint)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

fn io_error(error: &transport::Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_socket_names_the_group_and_stays_one_line() {
        let target =
            |named_by| Target { endpoint: Endpoint::Unix("/run/observer/hubble.sock".into()), named_by };
        let text = target(NamedBy::LocalSocket).unreachable(Some(io::ErrorKind::PermissionDenied), &"");
        assert_eq!(
            text,
            "cannot reach unix:///run/observer/hubble.sock: permission denied; root and the group observer may use it: \
             run this with sudo, or join the group with `sudo usermod -aG observer $USER` and log in again"
        );
        let text = target(NamedBy::Variable("HUBBLE_SERVER")).unreachable(Some(io::ErrorKind::TimedOut), &"");
        assert!(text.contains("(from $HUBBLE_SERVER): no answer within 5 s;"), "{text}");
        let text =
            target(NamedBy::Flag("--control-socket")).unreachable(Some(io::ErrorKind::PermissionDenied), &"");
        assert!(text.ends_with("only root may use it: run this with sudo"), "{text}");
    }
}
