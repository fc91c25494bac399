//! A server of given flows, which filters with our own code.

use observer_proto::{
    filter::Filters,
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
        GetNodesResponse, ServerStatusRequest, ServerStatusResponse,
        get_flows_response::ResponseTypes,
        observer_server::{Observer, ObserverServer},
    },
};
use std::path::{Path, PathBuf};
use tokio::{net::UnixListener, runtime::Runtime};
use tokio_stream::{Iter, Pending, iter, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, async_trait, transport};

/// Serves until it is dropped.
pub(super) struct Server {
    pub(super) socket: PathBuf,
    _runtime: Runtime,
}

pub(super) fn start(flows: Vec<GetFlowsResponse>, folder: &Path) -> Server {
    let runtime = Runtime::new().unwrap();
    let socket = folder.join("hubble.sock");
    let listener = {
        let _guard = runtime.enter();
        UnixListener::bind(&socket).unwrap()
    };
    let service = ObserverServer::new(Flows(flows));
    let connections = UnixListenerStream::new(listener);
    runtime.spawn(transport::Server::builder().add_service(service).serve_with_incoming(connections));
    Server { socket, _runtime: runtime }
}

struct Flows(Vec<GetFlowsResponse>);

type Answers<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;

#[async_trait]
impl Observer for Flows {
    type GetFlowsStream = Answers<GetFlowsResponse>;
    type GetAgentEventsStream = Pending<Result<GetAgentEventsResponse, Status>>;
    type GetDebugEventsStream = Pending<Result<GetDebugEventsResponse, Status>>;

    async fn get_flows(
        &self,
        request: Request<GetFlowsRequest>,
    ) -> Result<Response<Self::GetFlowsStream>, Status> {
        let request = request.into_inner();
        let filters = Filters::compile(&request.whitelist, &request.blacklist)
            .map_err(|error| Status::unknown(error.to_string()))?;
        let passes = |response: &&GetFlowsResponse| match &response.response_types {
            Some(ResponseTypes::Flow(flow)) => filters.matches(flow),
            _ => true,
        };
        let mut found: Vec<_> = self.0.iter().filter(passes).cloned().map(Ok).collect();
        let number = usize::try_from(request.number).unwrap_or(usize::MAX);
        if request.first {
            found.truncate(number);
        } else {
            found.drain(..found.len().saturating_sub(number));
        }
        Ok(Response::new(iter(found)))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_agent_events(
        &self,
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        Err(Status::unimplemented("not part of the test"))
    }
}
