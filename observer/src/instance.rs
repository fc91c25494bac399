//! One daemon a node: two would count every packet twice and fight over its links.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
};

/// An abstract unix socket belongs to a network namespace, as the links that a daemon watches do. It needs no file, so
/// nothing is left behind by a daemon that was killed.
const NAME: &str = "observer.daemon";

/// Held for the life of the daemon.
#[derive(Debug)]
pub struct Instance(
    #[expect(dead_code, reason = "held open, never read: the bound name is the lock")] UnixListener,
);

/// Why this daemon can't be the only one.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// There is one already.
    #[error(
        "another observer (pid {pid}) already watches this network namespace: stop it first, or use its socket"
    )]
    Taken {
        /// Its process id, 0 where the kernel does not tell.
        pid: i32,
    },
    /// The lock itself failed.
    #[error("cannot take the node's lock: {0}")]
    Failed(#[from] io::Error),
}

impl Instance {
    /// Takes the lock of this network namespace.
    pub fn take() -> Result<Self, InstanceError> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(Self(listener)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let peer = UnixStream::connect_addr(&address)
                    .and_then(|s| rustix::net::sockopt::socket_peercred(&s).map_err(io::Error::from));
                let pid = peer.map_or(0, |credentials| credentials.pid.as_raw_nonzero().get());
                Err(InstanceError::Taken { pid })
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_by_the_first_ones_pid() {
        let Ok(first) = Instance::take() else {
            // A daemon runs on this machine: then the refusal itself is what is seen.
            assert!(matches!(Instance::take(), Err(InstanceError::Taken { .. })));
            return;
        };
        let Err(InstanceError::Taken { pid }) = Instance::take() else { panic!("a second lock was given") };
        assert_eq!(pid, std::process::id().cast_signed());
        drop(first);
        Instance::take().unwrap();
    }
}
