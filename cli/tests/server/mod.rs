//! A server that answers what a test told it to, and remembers what it was asked.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use observer_proto::{
    control::{
        CaptureStatusRequest, CaptureStatusResponse, Counter, ExplainPolicyRequest, ExplainPolicyResponse,
        Hook, InspectRequest, InspectResponse, ListPoliciesRequest, ListPoliciesResponse, Policy,
        RecordRequest, RecordResponse, SetPolicyModeRequest, SetPolicyModeResponse,
        control_server::{Control, ControlServer},
        policy,
    },
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
        GetNodesResponse, Namespace, Node, ServerStatusRequest, ServerStatusResponse,
        get_flows_response::ResponseTypes,
        observer_server::{Observer, ObserverServer},
    },
    peer::{
        ChangeNotification, NotifyRequest,
        peer_server::{Peer, PeerServer},
    },
    stats::{
        GetDropsResponse, GetEdgesResponse, GetHealthResponse, GetPoliciesResponse, GetServicesResponse,
        GetSignalsResponse, GetTalkersResponse, HealthRequest, ServicesRequest, WindowRequest,
        stats_server::{Stats, StatsServer},
    },
};
use prost_types::Timestamp;
use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    runtime::Runtime,
};
use tokio_stream::{Stream, StreamExt as _, iter, pending, wrappers::UnixListenerStream};
use tonic::{
    Code, Request, Response, Status, async_trait,
    transport::{self, server::Connected},
};

/// What to answer.
#[derive(Clone, Default)]
pub(crate) struct Mock {
    pub(crate) flows: Vec<GetFlowsResponse>,
    /// Keep the stream open after the flows.
    pub(crate) stay: bool,
    /// After the flows, the same again and again as if they happened now, so many a second.
    pub(crate) rate: u64,
    pub(crate) error: Option<(Code, &'static str)>,
    pub(crate) serving: bool,
    /// What the server has seen, for whom asks without a filter: the hint.
    pub(crate) known: Vec<GetFlowsResponse>,
    /// What the server has counted; none: it counts nothing, as Hubble's.
    pub(crate) edges: Option<GetEdgesResponse>,
    /// In place of the usual figures.
    pub(crate) status: Option<ServerStatusResponse>,
    pub(crate) agent_events: Vec<GetAgentEventsResponse>,
    pub(crate) debug_events: Vec<GetDebugEventsResponse>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) peers: Vec<ChangeNotification>,
    /// None: policies are not built in.
    pub(crate) policies: Option<ListPoliciesResponse>,
    /// The header `authorization` of the last GetFlows.
    pub(crate) authorization: Arc<Mutex<Option<String>>>,
    /// What was asked last; read it by [`Server::request`].
    pub(crate) last: Arc<Mutex<Option<GetFlowsRequest>>>,
}

/// Runs until it is dropped.
pub(crate) struct Server {
    path: PathBuf,
    /// A folder of its own.
    _folder: Option<TempDir>,
    last: Arc<Mutex<Option<GetFlowsRequest>>>,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start(mock: Mock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self::start_in(folder.path(), mock);
        Self { _folder: Some(folder), ..server }
    }

    /// In place of one that was there before.
    pub(crate) fn start_in(folder: &Path, mock: Mock) -> Self {
        let (path, control) = (folder.join("hubble.sock"), folder.join("control.sock"));
        let runtime = Runtime::new().unwrap();
        let last = mock.last.clone();
        let _ = (std::fs::remove_file(&path), std::fs::remove_file(&control));
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(&path).unwrap()
        };
        // One server answers for both of the daemon's sockets.
        std::os::unix::fs::symlink("hubble.sock", control).unwrap();
        runtime.spawn(serve(mock, UnixListenerStream::new(listener)));
        Self { path, _folder: None, last, _runtime: runtime }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.path().display())
    }

    /// The last GetFlows request.
    pub(crate) fn request(&self) -> GetFlowsRequest {
        self.last.lock().unwrap().clone().unwrap()
    }
}

/// Flows as if they happened now, so many a second, in portions.
fn endless(flows: Vec<GetFlowsResponse>, rate: u64) -> impl Stream<Item = Result<GetFlowsResponse, Status>> {
    const PORTION: Duration = Duration::from_millis(10);
    let (sender, receiver) = tokio::sync::mpsc::channel(4096);
    tokio::spawn(async move {
        let mut portions = tokio::time::interval(PORTION);
        let mut flows = flows.iter().cycle();
        loop {
            portions.tick().await;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let time = Some(Timestamp { seconds: now.as_secs() as i64, nanos: now.subsec_nanos() as i32 });
            for _ in 0..rate * PORTION.as_millis() as u64 / 1000 {
                let mut response = flows.next().unwrap().clone();
                response.time = time;
                if let Some(ResponseTypes::Flow(flow)) = &mut response.response_types {
                    flow.time = time;
                }
                if sender.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// Answers on these connections, for ever.
pub(crate) async fn serve<C>(mock: Mock, connections: impl Stream<Item = io::Result<C>>)
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    let state = if mock.serving {
        tonic_health::ServingStatus::Serving
    } else {
        tonic_health::ServingStatus::NotServing
    };
    reporter.set_service_status("hubble.server.Observer", state).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(observer_proto::DESCRIPTORS)
        .build_v1alpha()
        .unwrap();
    transport::Server::builder()
        .add_service(health)
        .add_service(ObserverServer::new(mock.clone()))
        .add_service(PeerServer::new(mock.clone()))
        .add_service(StatsServer::new(mock.clone()))
        .add_service(reflection)
        .add_service(ControlServer::new(mock))
        .serve_with_incoming(connections)
        .await
        .unwrap();
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl Observer for Mock {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Answers<GetAgentEventsResponse>;
    type GetDebugEventsStream = Answers<GetDebugEventsResponse>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        *self.authorization.lock().unwrap() = header.map(str::to_owned);
        let request = request.into_inner();
        if request.field_mask.is_some() {
            return Ok(Response::new(Box::pin(iter(self.known.clone().into_iter().map(Ok)))));
        }
        *self.last.lock().unwrap() = Some(request);
        if let Some((code, text)) = self.error {
            return Err(Status::new(code, text));
        }
        let flows = iter(self.flows.clone().into_iter().map(Ok));
        if self.rate > 0 {
            return Ok(Response::new(Box::pin(flows.chain(endless(self.flows.clone(), self.rate)))));
        }
        Ok(Response::new(if self.stay { Box::pin(flows.chain(pending())) } else { Box::pin(flows) }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(self.status.clone().unwrap_or_else(|| ServerStatusResponse {
            num_flows: 5,
            max_flows: 4095,
            seen_flows: 30,
            uptime_ns: 4_000_000_000,
            ..ServerStatusResponse::default()
        })))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Ok(Response::new(Box::pin(iter(self.agent_events.clone().into_iter().map(Ok)))))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Ok(Response::new(Box::pin(iter(self.debug_events.clone().into_iter().map(Ok)))))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Ok(Response::new(GetNodesResponse { nodes: self.nodes.clone() }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Ok(Response::new(GetNamespacesResponse { namespaces: self.namespaces.clone() }))
    }
}

#[async_trait]
impl Peer for Mock {
    type NotifyStream = Answers<ChangeNotification>;

    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        Ok(Response::new(Box::pin(iter(self.peers.clone().into_iter().map(Ok)))))
    }
}

#[async_trait]
impl Stats for Mock {
    type GetDropsStream = Answers<GetDropsResponse>;
    type GetEdgesStream = Answers<GetEdgesResponse>;
    type GetTalkersStream = Answers<GetTalkersResponse>;
    type GetHealthStream = Answers<GetHealthResponse>;
    type GetPoliciesStream = Answers<GetPoliciesResponse>;
    type GetSignalsStream = Answers<GetSignalsResponse>;

    async fn get_edges(&self, _: Request<WindowRequest>) -> Result<Response<Self::GetEdgesStream>, Status> {
        let edges = self.edges.clone().ok_or_else(|| Status::unimplemented("as Hubble's servers say"))?;
        Ok(Response::new(Box::pin(iter([Ok(edges)]))))
    }

    async fn get_drops(&self, _: Request<WindowRequest>) -> Result<Response<Self::GetDropsStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_talkers(
        &self,
        _: Request<WindowRequest>,
    ) -> Result<Response<Self::GetTalkersStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_health(&self, _: Request<HealthRequest>) -> Result<Response<Self::GetHealthStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_policies(
        &self,
        _: Request<WindowRequest>,
    ) -> Result<Response<Self::GetPoliciesStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_services(
        &self,
        _: Request<ServicesRequest>,
    ) -> Result<Response<GetServicesResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_signals(
        &self,
        _: Request<WindowRequest>,
    ) -> Result<Response<Self::GetSignalsStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }
}

#[async_trait]
impl Control for Mock {
    async fn capture_status(
        &self,
        _: Request<CaptureStatusRequest>,
    ) -> Result<Response<CaptureStatusResponse>, Status> {
        let counter =
            |kind, value| Counter { stage: "capture".to_owned(), kind, cause: "flows".to_owned(), value };
        Ok(Response::new(CaptureStatusResponse {
            hooks: vec![Hook { name: "flows: tcx".to_owned(), state: 1, reason: String::new() }],
            counters: vec![counter(1, 10), counter(2, 9), counter(3, 1)],
            ..CaptureStatusResponse::default()
        }))
    }

    type InspectStream = tokio_stream::Empty<Result<InspectResponse, Status>>;

    async fn inspect(&self, _: Request<InspectRequest>) -> Result<Response<Self::InspectStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        match &self.policies {
            Some(policies) => Ok(Response::new(policies.clone())),
            None => Err(Status::unimplemented("not built in: policies")),
        }
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        let asked = request.into_inner();
        if asked.port == 1 {
            return Err(Status::invalid_argument("source: no pod a/b is known"));
        }
        let notes = vec![format!("{:?} {} {}", asked.request, asked.protocol, asked.port)];
        Ok(Response::new(ExplainPolicyResponse { notes, ..ExplainPolicyResponse::default() }))
    }

    async fn set_policy_mode(
        &self,
        request: Request<SetPolicyModeRequest>,
    ) -> Result<Response<SetPolicyModeResponse>, Status> {
        let SetPolicyModeRequest { kind, namespace, name, mode } = request.into_inner();
        if name == "nobody" {
            return Err(Status::not_found("no policy is named nobody; `observe policy list` shows all"));
        }
        let mode_set_by = if mode == 0 { policy::SetBy::Default } else { policy::SetBy::Command };
        let policy =
            Policy { kind, namespace, name, mode, mode_set_by: mode_set_by.into(), ..Policy::default() };
        Ok(Response::new(SetPolicyModeResponse { policies: vec![policy] }))
    }

    async fn record(&self, _: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }
}
