//! The proxy as a whole: what it sets up in the node, and the connections that it serves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use observer_proxy::{End, Limits, serve};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::routing::Routing;
use super::session::{Common, Connection};
use super::sockets;
use super::told::Teller;
use crate::l7::Redaction;
use crate::policy::Policies;

/// Connections at once, each with two sockets; more wait in the kernel.
const MOST_CONNECTIONS: usize = 16_384;

/// What is set up; taken down when this is dropped, unless the programs stay.
#[derive(Debug)]
pub struct Proxy {
    routing: Option<Routing>,
    listeners: Vec<(std::net::TcpListener, SocketAddr)>,
}

impl Proxy {
    /// Sets it up in the calling thread's network namespace.
    pub fn set_up() -> io::Result<Self> {
        let routing = Routing::set_up()?;
        let mut listeners = Vec::new();
        for is_ipv6 in [false, true] {
            if is_ipv6 && !routing.has_ipv6() {
                continue;
            }
            let socket: std::net::TcpListener = match sockets::listen(is_ipv6) {
                Ok(socket) => socket.into(),
                // The family may be off, and nobody speaks it then.
                Err(error) if is_ipv6 => {
                    tracing::warn!(%error, "the proxy does not listen on ::1: requests over IPv6 are not passed on");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let address = socket.local_addr()?;
            listeners.push((socket, address));
        }
        Ok(Self { routing: Some(routing), listeners })
    }

    /// The port of a family, 0 where it has none.
    pub fn port(&self, is_ipv6: bool) -> u16 {
        let found = self.listeners.iter().find(|(_, address)| address.is_ipv6() == is_ipv6);
        found.map_or(0, |(_, address)| address.port())
    }

    /// Serves what is handed over, until the runtime ends.
    pub fn serve(
        &mut self,
        runtime: &Handle,
        policies: &Arc<Policies>,
        redaction: Redaction,
        teller: Teller,
    ) -> io::Result<()> {
        let common = Arc::new(Common {
            policies: Arc::clone(policies),
            redaction,
            teller,
            next_port: AtomicU16::new(0),
        });
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let _guard = runtime.enter();
        for (listener, address) in &self.listeners {
            let listener = TcpListener::from_std(listener.try_clone()?)?;
            let (common, room) = (Arc::clone(&common), Arc::clone(&room));
            runtime.spawn(accept(listener, *address, common, room));
        }
        Ok(())
    }

    /// Leaves the routing to programs that stay without this daemon.
    pub fn leave(&mut self) {
        self.routing.take().into_iter().for_each(Routing::leave);
    }
}

async fn accept(listener: TcpListener, own: SocketAddr, common: Arc<Common>, room: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of a connection that is gone already, or for want of files: others may end meanwhile.
                tracing::debug!(%error, "a connection to the proxy was not taken");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                continue;
            }
        };
        // Nobody handed it over: it would call itself.
        let Some(server) = stream.local_addr().ok().filter(|server| *server != own) else { continue };
        common.policies.counters.proxied.fetch_add(1, Ordering::Relaxed);
        // It came with the client's name; without delay, since it is one of two.
        let _ = stream.set_nodelay(true);
        let session = Arc::new(Connection { common: Arc::clone(&common), client, server });
        let policies = Arc::clone(&common.policies);
        tokio::spawn(async move {
            let counter = match serve(stream, session, Limits::default()).await {
                End::Closed => None,
                End::Refused => Some(&policies.counters.proxied_refused),
                End::Late => Some(&policies.counters.proxied_late),
            };
            if let Some(counter) = counter {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            drop(place);
        });
    }
}
