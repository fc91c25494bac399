//! Where a server is, read once into a type that a connector can use. Connecting itself is the caller's: this crate
//! doesn't know the runtime.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a connection attempt may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The port of Hubble's relay, for an address that has none.
const DEFAULT_PORT: u16 = 4245;

/// Where the daemon's sockets are.
const RUN_FOLDER: &str = "/run/observer";

/// The name of the control socket, in whichever folder the daemon's sockets are.
const CONTROL_SOCKET: &str = "control.sock";

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket on this machine.
    Unix(PathBuf),
    /// `host:port` over plain TCP; IPv6 addresses in brackets.
    Tcp(String),
    /// The same over TLS.
    Tls(String),
}

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Neither a socket nor a host and port.
    #[error("{address:?} is no server address ({why}); use unix:///run/observer/hubble.sock or host:port")]
    Malformed {
        /// As given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Endpoint {
    /// Reads `unix:///path`, `unix:path`, `/path`, `host`, `host:port`, `[v6]:port`, `dns:///host:port` and
    /// `passthrough:///host:port`; `tls://` before the last five stands for TLS.
    pub fn parse(address: &str) -> Result<Self, InvalidEndpoint> {
        let malformed = |why| InvalidEndpoint::Malformed { address: address.to_owned(), why };
        if let Some(target) = address.strip_prefix("tls://") {
            return Self::parse(target)?.encrypted().ok_or(malformed("TLS is for TCP"));
        }
        if let Some(path) = address.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(malformed("no path")) } else { Ok(Self::Unix(path.into())) };
        }
        if address.starts_with('/') {
            return Ok(Self::Unix(address.into()));
        }
        let target = ["dns:///", "passthrough:///", "tcp://"]
            .iter()
            .find_map(|scheme| address.strip_prefix(scheme))
            .unwrap_or(address);
        if target.is_empty() {
            return Err(malformed("it is empty"));
        }
        if let Some(found) =
            target.find(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#'))
        {
            let why = if target[found..].starts_with("://") || target[found..].starts_with('/') {
                "unknown scheme or a path"
            } else {
                "a character that no host name has"
            };
            return Err(malformed(why));
        }
        // A bare IPv6 address has colons of its own.
        if target.parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(Self::Tcp(format!("[{target}]:{DEFAULT_PORT}")));
        }
        if target.starts_with('[') && target.ends_with(']') {
            return Ok(Self::Tcp(format!("{target}:{DEFAULT_PORT}")));
        }
        match target.rsplit_once(':') {
            Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => {
                Err(malformed("unclosed bracket"))
            }
            Some((host, _)) if host.contains(':') && !host.starts_with('[') => {
                Err(malformed("an IPv6 address needs brackets"))
            }
            Some(("", _)) => Err(malformed("no host")),
            Some((_, port)) if port.parse::<u16>().is_ok_and(|p| p != 0) => Ok(Self::Tcp(target.to_owned())),
            Some(_) => Err(malformed("the port is no number from 1 to 65535")),
            None => Ok(Self::Tcp(format!("{target}:{DEFAULT_PORT}"))),
        }
    }
}

impl Endpoint {
    /// The same server over TLS; nothing for a socket, which stays on its machine.
    #[must_use]
    pub fn encrypted(self) -> Option<Self> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp(target) | Self::Tls(target) => Some(Self::Tls(target)),
        }
    }

    /// The control socket of the daemon on this machine: beside the server's socket; for a server over TCP, which may
    /// stand before many daemons, in the usual place.
    #[must_use]
    pub fn control_socket(&self) -> Self {
        match self {
            Self::Unix(path) => Self::Unix(path.with_file_name(CONTROL_SOCKET)),
            Self::Tcp(_) | Self::Tls(_) => Self::Unix(Path::new(RUN_FOLDER).join(CONTROL_SOCKET)),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            // Hubble takes the prefix for a flag, not for a part of the address.
            Self::Tcp(target) | Self::Tls(target) => f.write_str(target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_grpc_targets() {
        let unix = |path: &str| Ok(Endpoint::Unix(path.into()));
        let tcp = |target: &str| Ok(Endpoint::Tcp(target.to_owned()));
        for (address, expected) in [
            ("unix:///run/x.sock", unix("/run/x.sock")),
            ("unix:x.sock", unix("x.sock")),
            ("unix:/run/x.sock", unix("/run/x.sock")),
            ("/run/x.sock", unix("/run/x.sock")),
            ("localhost:4245", tcp("localhost:4245")),
            ("localhost", tcp("localhost:4245")),
            ("dns:///relay:80", tcp("relay:80")),
            ("[::1]:4244", tcp("[::1]:4244")),
            ("[::1]", tcp("[::1]:4245")),
            ("::1", tcp("[::1]:4245")),
            ("10.0.0.1", tcp("10.0.0.1:4245")),
            ("tls://relay", Ok(Endpoint::Tls("relay:4245".to_owned()))),
            ("tls://dns:///[::1]:443", Ok(Endpoint::Tls("[::1]:443".to_owned()))),
        ] {
            assert_eq!(Endpoint::parse(address), expected, "{address}");
        }
        for bad in [
            "",
            "unix:",
            "unix://",
            "http://x:1",
            "x:0",
            "x:70000",
            ":80",
            "a b:1",
            "1::2:x",
            "[::1:80",
            "x:y",
            "tls://",
            "tls:///run/x.sock",
        ] {
            assert!(matches!(Endpoint::parse(bad), Err(InvalidEndpoint::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn the_control_socket_stands_beside_the_servers() {
        for (server, control) in [
            ("unix:///x/hubble.sock", "unix:///x/control.sock"),
            ("unix:hubble.sock", "unix://control.sock"),
            ("localhost:4245", "unix:///run/observer/control.sock"),
        ] {
            assert_eq!(Endpoint::parse(server).unwrap().control_socket().to_string(), control);
        }
    }
}
