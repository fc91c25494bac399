//! The proxy as a whole: what it sets up in the node, and the connections that it serves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use observer_policy::model::TCP;
use observer_proxy::{End, Limits, serve};
use socket2::SockRef;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::dns::{self, Dialogue};
use super::routing::Routing;
use super::session::{Common, Connection};
use super::sockets;
use super::told::Teller;
use super::workers::Workers;
use crate::enrich::resolved::Resolved;
use crate::l7::Redaction;
use crate::policy::{Policies, Said};

/// Connections at once, each with two sockets; more wait in the kernel.
const MOST_CONNECTIONS: usize = 16_384;
/// In mode audit so long is waited for the client's first byte: of other protocols the server's may come first.
const FIRST: Duration = Duration::from_secs(1);
/// How often it is asked whether what is carried unjudged still may be.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// So often a port is looked for that is free for TCP and UDP.
const MOST_TRIES: u32 = 16;

/// What is set up; taken down when this is dropped, unless the programs stay.
#[derive(Debug)]
pub struct Proxy {
    routing: Option<Routing>,
    listeners: Vec<Listening>,
    /// None before it serves.
    workers: Option<Workers>,
}

/// Where it listens, by TCP and UDP at the same port.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    streams: std::net::TcpListener,
    datagrams: std::net::UdpSocket,
}

impl Listening {
    /// On the loopback address of a family.
    fn begin(is_ipv6: bool) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let streams: std::net::TcpListener = sockets::listen(is_ipv6)?.into();
            let address = streams.local_addr()?;
            match sockets::listen_udp(address) {
                // Somebody has that port for UDP.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < MOST_TRIES => tries += 1,
                datagrams => return Ok(Self { address, streams, datagrams: datagrams?.into() }),
            }
        }
    }
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
            match Listening::begin(is_ipv6) {
                Ok(listening) => listeners.push(listening),
                // The family may be off, and nobody speaks it then.
                Err(error) if is_ipv6 => {
                    tracing::warn!(%error, "the proxy does not listen on ::1: requests over IPv6 are not passed on");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { routing: Some(routing), listeners, workers: None })
    }

    /// The port of a family, 0 where it has none.
    pub fn port(&self, is_ipv6: bool) -> u16 {
        let found = self.listeners.iter().find(|listening| listening.address.is_ipv6() == is_ipv6);
        found.map_or(0, |listening| listening.address.port())
    }

    /// Serves what is handed over, until this is dropped; queries by UDP in `runtime`, until that ends.
    pub(crate) fn serve(
        &mut self,
        runtime: &Handle,
        policies: &Arc<Policies>,
        names: &Arc<Resolved>,
        redaction: Redaction,
        teller: Teller,
    ) -> io::Result<()> {
        let common = Arc::new(Common {
            policies: Arc::clone(policies),
            redaction,
            teller,
            names: Arc::clone(names),
            next_port: AtomicU16::new(0),
        });
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let workers = self.workers.insert(Workers::begin()?).runtimes();
        for Listening { address, streams, datagrams } in &self.listeners {
            let datagrams = within(runtime, || UdpSocket::from_std(datagrams.try_clone()?))?;
            runtime.spawn(dns::serve_datagrams(datagrams, *address, Arc::clone(&common)));
            let listener = within(&workers[0], || TcpListener::from_std(streams.try_clone()?))?;
            let (common, room) = (Arc::clone(&common), Arc::clone(&room));
            workers[0].spawn(accept(listener, *address, common, room, Arc::clone(&workers)));
        }
        Ok(())
    }

    /// Leaves the routing to programs that stay without this daemon.
    pub fn leave(&mut self) {
        self.routing.take().into_iter().for_each(Routing::leave);
    }
}

/// Makes what belongs to a runtime.
fn within<T>(runtime: &Handle, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let _guard = runtime.enter();
    make()
}

/// Whether the client's first byte is one of HTTP's, and comes soon.
async fn begins_as_http(client: &TcpStream) -> bool {
    let mut first = [0];
    let peeked = timeout(FIRST, client.peek(&mut first)).await;
    matches!(peeked, Ok(Ok(1))) && first[0].is_ascii_uppercase()
}

/// Carries what both sides say, until both have ended or an enforced policy has requests judged.
async fn pass(mut client: TcpStream, common: &Common, address: SocketAddr, to: SocketAddr) -> End {
    if let Ok(mut server) = common.connect(address, to).await {
        for side in [&client, &server] {
            // Nobody else notices that one is gone.
            let _ = SockRef::from(side).set_keepalive(true);
        }
        // However it ends, both are closed.
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = enforced(common, address, to) => {}
        }
    }
    End::Closed
}

/// Ends once an enforced policy has requests judged between them.
async fn enforced(common: &Common, client: SocketAddr, server: SocketAddr) {
    while common.policies.only_audits(client, server) {
        tokio::time::sleep(ASKED_AGAIN).await;
    }
}

/// Accepts what is handed over, and gives it to the workers in turn.
async fn accept(
    listener: TcpListener,
    own: SocketAddr,
    common: Arc<Common>,
    room: Arc<Semaphore>,
    workers: Arc<[Handle]>,
) {
    let mut turn = 0;
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Of a connection that is gone already, or for want of files: others may end meanwhile.
                tracing::debug!(%error, "a connection to the proxy was not taken");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        // Nobody handed it over: it would call itself.
        let Some(server) = stream.local_addr().ok().filter(|server| *server != own) else { continue };
        common.policies.counters.proxied.fetch_add(1, Ordering::Relaxed);
        // It came with the client's name; without delay, since it is one of two.
        let _ = stream.set_nodelay(true);
        // Its readiness is told by the runtime that it will live in.
        let Ok(stream) = stream.into_std() else { continue };
        let common = Arc::clone(&common);
        turn = (turn + 1) % workers.len();
        workers[turn].spawn(async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                carry(stream, common, client, server).await;
            }
            drop(place);
        });
    }
}

/// Carries one connection to its end.
async fn carry(stream: TcpStream, common: Arc<Common>, client: SocketAddr, server: SocketAddr) {
    let policies = Arc::clone(&common.policies);
    let ended = if policies.speaks_dns(client, server) {
        dns::serve_stream(stream, Dialogue { common, client, server, protocol: TCP }).await
    } else if policies.only_audits(client, server) && !begins_as_http(&stream).await {
        pass(stream, &common, client, server).await
    } else {
        serve(
            stream,
            Arc::new(Connection { common, client, server, said: Said::default() }),
            Limits::default(),
        )
        .await
    };
    let counter = match ended {
        End::Closed => return,
        End::Refused => &policies.counters.proxied_refused,
        End::Late => &policies.counters.proxied_late,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}
