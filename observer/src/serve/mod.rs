//! Hubble's gRPC API over the store, on a unix socket and TCP, and the control service on a socket of its own.
//!
//! What clients may take is bounded:
//!
//! | what | default | beyond it |
//! |---|---|---|
//! | connections (unix and TCP together; as many again for control) | 1,024 | closed at once |
//! | connections that have not spoken HTTP/2 yet, of each socket | 256 | the oldest is closed |
//! | time until HTTP/2 is spoken, TLS included | 10 s | closed |
//! | streams of all calls, over all connections | 1,000 | RESOURCE_EXHAUSTED |
//! | HTTP/2 streams of a connection | 100 | the client waits, as HTTP/2 has it |
//! | a request message | 4 MiB | OUT_OF_RANGE |
//! | request headers | 16 KiB | the stream is refused |
//! | streams reset before they were looked at | 20 | closed |
//! | frames that carry nothing, beyond those that answer data | 1,000 at once, 100/s | closed |
//! | filters of a request | those of `observer_proto::filter` | INVALID_ARGUMENT |
//! | flows that a reader is behind | the store's capacity | they are lost to it, and it is told how many |
//! | streams that read flows of the past from the disk at a time | 32 | RESOURCE_EXHAUSTED |
//! | bytes of a stream that its client doesn't read | 128 KiB and a message | the stream waits |
//! | bytes that a socket doesn't take | 80 KiB a connection | its streams wait |
//! | a client without a sign of life | 20 s | closed |
//!
//! Each is counted in [`Counters`], by reason or by gRPC's code, which the control service tells.

mod accept;
mod api;
mod control;
mod counters;
pub mod encode;
mod events;
mod fanout;
mod flows;
mod frames;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gather;
mod handshakes;
mod health;
mod inspect;
mod limits;
mod lost;
pub mod mask;
mod nodes;
mod past;
mod peers;
mod policies;
pub mod query;
mod services;
mod sockets;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
pub mod view;
mod wire;

pub use control::{CaptureInfo, KernelUse};
pub use counters::{Counters, Refusal};
pub use encode::NodeInfo;
pub use inspect::{Answer, Inspect, InspectError};
pub use limits::Limits;
pub(crate) use lost::LostEvents;
pub use services::Services;
pub(crate) use stream::now_ns;
pub use tls::{CertificateCounters, TlsConfig, TlsError};

use crate::{
    enrich::source::Node,
    events::Events,
    history::History,
    policy::{Policies, Updater},
    store::Store,
};
use accept::{Door, Listener};
use api::{Api, Places as Streams};
use control::ControlApi;
use encode::Encoder;
use flows::{Shared, WithFlows};
use http::{HeaderName, HeaderValue};
use observer_proto::{
    DESCRIPTORS, observer::observer_server::ObserverServer, peer::peer_server::PeerServer,
    stats::stats_server::StatsServer,
};
use peers::{Own, Peers};
use sockets::{Access, SocketFile};
use stats::StatsApi;
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tls::Certificate;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tower::util::MapResponse;

/// The name under which Hubble's health is asked for; not the name of a service.
const HEALTH_NAME: &str = "hubble.server.Observer";
/// How long streams get to end when the server does; with the other stages the daemon ends within 2 s.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Where and as whom to serve.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The socket of the read-only services.
    pub socket: PathBuf,
    /// The socket of the control service, for root only.
    pub control_socket: PathBuf,
    /// The group that may use `socket`.
    pub group: String,
    /// TCP as well, where wanted.
    pub listen: Option<SocketAddr>,
    /// TCP is encrypted.
    pub tls: Option<TlsConfig>,
    /// TCP may be plain, where it is not.
    pub insecure: bool,
    /// This node.
    pub node: NodeInfo,
    /// All nodes, to tell relays of their daemons.
    pub nodes: watch::Receiver<Arc<[Node]>>,
    /// What happens besides flows.
    pub events: Arc<Events>,
    /// By which connections are judged, where any are given.
    pub policies: Option<Arc<Policies>>,
    /// Who knows what is loaded in the kernel, where something is.
    pub inspect: Option<Arc<dyn Inspect>>,
    /// What changes their modes, where any are given.
    pub updater: Option<Arc<Mutex<Updater>>>,
    /// Whether HTTP and DNS can be among the flows.
    pub l7_is_watched: bool,
    /// Who stands behind services, where somebody tells.
    pub services: Option<Services>,
    /// Where flows are kept on the disk, if they are.
    pub history: Option<Arc<History>>,
    /// What is turned down.
    pub limits: Limits,
}

impl ServeConfig {
    /// The usual places.
    pub fn new(node: NodeInfo) -> Self {
        Self {
            socket: "/run/observer/hubble.sock".into(),
            control_socket: "/run/observer/control.sock".into(),
            group: "observer".into(),
            listen: None,
            tls: None,
            insecure: false,
            node,
            nodes: watch::Sender::new(Arc::default()).subscribe(),
            events: Arc::default(),
            policies: None,
            inspect: None,
            updater: None,
            l7_is_watched: true,
            services: None,
            history: None,
            limits: Limits::default(),
        }
    }
}

/// Why serving can't start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket is in use.
    #[error("another process is listening on {}; stop it, or choose another path", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else stands there.
    #[error("{} exists and is no socket; move it away or choose another path", path.display())]
    NoSocket {
        /// The path.
        path: PathBuf,
    },
    /// Anybody could replace the socket.
    #[error("{}: its directory can be written by everybody; choose one that only root can write", path.display())]
    OpenDirectory {
        /// The socket.
        path: PathBuf,
    },
    /// The system said no.
    #[error("can't {what} {}: {error}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The step.
        what: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// TCP address not to be had.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        error: io::Error,
    },
    /// Without TLS flows would be readable by everybody on the way.
    #[error("listen {address}: there is no certificate; name one, or allow plain text with --insecure")]
    NeedsTls {
        /// The address.
        address: SocketAddr,
    },
    /// A file of TLS is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The version is no header value.
    #[error("version {0:?} can't be sent as a header")]
    Version(String),
    /// The compiled descriptors are broken.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A running server; it ends with [`Server::shutdown`], or at once when dropped.
#[derive(Debug)]
pub struct Server {
    shutdown: watch::Sender<bool>,
    tasks: JoinSet<()>,
    /// Ends with the server.
    _reload: JoinSet<()>,
    tcp: Option<SocketAddr>,
    counters: Arc<Counters>,
    _files: [SocketFile; 2],
}

impl Server {
    /// The TCP address listened on, with the port that the system chose for port 0.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// What its transports count.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Ends every stream with UNAVAILABLE and waits for that, 1 s at most.
    pub async fn shutdown(mut self) {
        self.shutdown.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN, ended).await.is_err() {
            tracing::warn!("some clients did not end within {} s and were cut off", SHUTDOWN.as_secs());
        }
    }
}

/// Threads to serve with: two, of which a second would only wake and wait where the process has one processor.
pub fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(2)
}

/// Binds everything, then serves in the background. Must be called within a tokio runtime.
pub async fn start(
    config: ServeConfig,
    store: Arc<Store>,
    capture: Arc<dyn CaptureInfo>,
) -> Result<Server, ServeError> {
    config.history.iter().for_each(|history| encode::begin_life(history.life()));
    let mut reload = JoinSet::new();
    let certificate = match (config.listen, config.tls) {
        (None, _) => None,
        (Some(_), Some(files)) => {
            let (certificate, follow) = Certificate::load(files)?;
            reload.spawn(follow);
            Some(certificate)
        }
        (Some(_), None) if config.insecure => None,
        (Some(address), None) => return Err(ServeError::NeedsTls { address }),
    };
    let version = HeaderValue::from_str(&config.node.version)
        .map_err(|_| ServeError::Version(config.node.version.clone()))?;
    let (hubble, hubble_file) = bind(&config.socket, Access::Group(&config.group))?;
    let (control, control_file) = bind(&config.control_socket, Access::Owner)?;
    let tcp = match config.listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let tcp_address = tcp.as_ref().map(|(address, _)| *address);

    let limits = config.limits;
    let counters =
        Arc::new(Counters::new(limits, certificate.as_ref().map(|loaded| Arc::clone(loaded.counters()))));
    let (shutdown, ending) = watch::channel(false);
    let node = Arc::new(config.node.clone());
    let streams = Streams { free: Arc::clone(&counters.free_streams), most: limits.streams };
    let own = Own {
        tcp: tcp_address,
        socket: format!("unix://{}", config.socket.display()),
        tls: certificate.is_some(),
    };
    let api = Api {
        store: Arc::clone(&store),
        node: Arc::clone(&node),
        started: Instant::now(),
        events: Arc::clone(&config.events),
        peers: Peers { node: Arc::clone(&node), own, nodes: config.nodes },
        asked: Arc::default(),
        places: streams.clone(),
        shutdown: ending.clone(),
    };
    tokio::spawn(health::watch(Arc::clone(&capture), config.events, ending.clone()));
    let shared = Shared {
        store: Arc::clone(&store),
        history: config.history,
        encoder: Encoder::new(&node),
        fanout: Arc::default(),
        node: (&*node).into(),
        limits,
        places: streams,
        shutdown: ending.clone(),
    };
    let told = (config.l7_is_watched, config.services);
    let stats = StatsApi::start(Arc::clone(&store), api.places.clone(), told, ending.clone());
    let routes = hubble_routes(api, shared, stats, &limits).await?;
    let control_routes = ControlApi {
        capture,
        policies: config.policies,
        looks: inspect::Looks::new(config.inspect),
        updater: config.updater,
        store,
        node,
        counters: Arc::clone(&counters),
        started: stream::now_ns(),
    }
    .routes(&limits);

    let mut tasks = JoinSet::new();
    let door = |name: String, listener, places: &Arc<Semaphore>, routes| Door {
        name: name.into(),
        listener,
        limits,
        places: Arc::clone(places),
        service: service(routes, &version, &counters),
        counters: Arc::clone(&counters),
        ending: ending.clone(),
    };
    let hubble_places = &counters.free_connections;
    if let Some((address, listener)) = tcp {
        let listener = match certificate {
            Some(certificate) => Listener::Tls(listener, certificate),
            None => Listener::Tcp(listener),
        };
        tasks.spawn(door(address.to_string(), listener, hubble_places, routes.clone()).run());
    }
    let socket = config.socket.display().to_string();
    tasks.spawn(door(socket, Listener::Unix(hubble), hubble_places, routes).run());
    // Clients of flows can't take the places of those who control.
    let control_places = Arc::new(Semaphore::new(limits.connections));
    let socket = config.control_socket.display().to_string();
    tasks.spawn(door(socket, Listener::Unix(control), &control_places, control_routes).run());
    Ok(Server {
        shutdown,
        tasks,
        _reload: reload,
        tcp: tcp_address,
        counters,
        _files: [hubble_file, control_file],
    })
}

async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), ServeError> {
    let refused = |error| ServeError::Listen { address, error };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    Ok((listener.local_addr().map_err(refused)?, listener))
}

fn bind(path: &std::path::Path, access: Access<'_>) -> Result<(UnixListener, SocketFile), ServeError> {
    let (listener, file) = sockets::bind(path, access)?;
    let listener = UnixListener::from_std(listener).map_err(|error| ServeError::Socket {
        path: path.to_owned(),
        what: "watch",
        error,
    })?;
    Ok((listener, file))
}

async fn hubble_routes(
    api: Api,
    shared: Shared,
    stats: StatsApi,
    limits: &Limits,
) -> Result<Routes, ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(HEALTH_NAME, ServingStatus::Serving).await;
    // Listed is what is served here: the descriptors have the control service too, which has a socket of its own.
    let reflection = |own| {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        ["observer.Observer", "peer.Peer", "stats.Stats", "grpc.health.v1.Health", own]
            .into_iter()
            .fold(builder, tonic_reflection::server::Builder::with_service_name)
    };
    let observer = ObserverServer::new(api.clone()).max_decoding_message_size(limits.message_bytes);
    Ok(Routes::new(WithFlows { inner: observer, context: Arc::new(shared) })
        .add_service(PeerServer::new(api).max_decoding_message_size(limits.message_bytes))
        .add_service(StatsServer::new(stats).max_decoding_message_size(limits.message_bytes))
        .add_service(health_service)
        .add_service(reflection("grpc.reflection.v1.ServerReflection").build_v1()?)
        .add_service(reflection("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?))
}

type Response = http::Response<tonic::body::Body>;

/// Adds the header by which Hubble's clients warn of a newer server, to errors too, and counts those.
fn service(
    routes: Routes,
    version: &HeaderValue,
    counters: &Arc<Counters>,
) -> MapResponse<Routes, impl Fn(Response) -> Response + Clone + Send + use<>> {
    let (version, counters) = (version.clone(), Arc::clone(counters));
    MapResponse::new(routes.prepare(), move |mut response: Response| {
        counters.answer(response.headers());
        response.headers_mut().insert(HeaderName::from_static("hubble-server-version"), version.clone());
        response
    })
}
