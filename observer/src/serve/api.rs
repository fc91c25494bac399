//! The calls of Hubble's observer service but GetFlows, and the peer service.

use super::{
    encode::NodeInfo,
    events::{self, Selection},
    nodes::Asked,
    peers::Peers,
    stream::now_ns,
};
use crate::{
    events::{Events, debug, note},
    store::{Namespace, Store},
};
use futures_core::Stream;
use observer_proto::{
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
        GetNodesResponse, ServerStatusRequest, ServerStatusResponse, observer_server::Observer,
    },
    peer::{ChangeNotification, NotifyRequest, peer_server::Peer},
};
use std::{pin::Pin, sync::Arc, time::Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status, async_trait};

pub(super) type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers for this node.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) store: Arc<Store>,
    pub(super) node: Arc<NodeInfo>,
    pub(super) started: Instant,
    pub(super) events: Arc<Events>,
    pub(super) peers: Peers,
    pub(super) asked: Arc<Asked>,
    pub(super) places: Places,
    pub(super) shutdown: watch::Receiver<bool>,
}

/// Places for streams, over all connections and calls.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) free: Arc<Semaphore>,
    pub(super) most: usize,
}

impl Places {
    /// Streams now.
    pub(super) fn taken(&self) -> usize {
        self.most.saturating_sub(self.free.available_permits())
    }

    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Status> {
        let place = Arc::clone(&self.free).try_acquire_owned();
        place.map_err(|_| Status::resource_exhausted(format!("too many streams: at most {}", self.most)))
    }
}

impl Api {
    fn status(&self) -> ServerStatusResponse {
        ServerStatusResponse {
            num_flows: self.store.len(),
            max_flows: self.store.capacity(),
            seen_flows: self.store.seen(),
            uptime_ns: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            version: format!("observer v{}", self.node.version),
            flows_rate: self.store.rate(now_ns()),
            // Of a relay only.
            num_connected_nodes: None,
            num_unavailable_nodes: None,
            unavailable_nodes: Vec::new(),
        }
    }
}

#[async_trait]
impl Observer for Api {
    type GetFlowsStream = Streaming<GetFlowsResponse>;
    type GetAgentEventsStream = Streaming<GetAgentEventsResponse>;
    type GetDebugEventsStream = Streaming<GetDebugEventsResponse>;

    /// Never reached: `flows::WithFlows` answers it.
    async fn get_flows(&self, _: Request<GetFlowsRequest>) -> Result<Response<Self::GetFlowsStream>, Status> {
        Err(Status::internal("GetFlows came to the wrong place"))
    }

    async fn get_agent_events(
        &self,
        request: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        let selection = Selection::of_agent_events(request.into_inner())?;
        let node_name = self.node.full_name();
        let response = move |time, event| GetAgentEventsResponse {
            agent_event: Some(event),
            node_name: node_name.clone(),
            time: Some(super::encode::proto_time(time)),
        };
        let lost = |count| note("lost", lost_words(count));
        let (events, ending) = (Arc::clone(&self.events), self.shutdown.clone());
        let stream = events::stream(events, selection, response, lost, ending, self.places.take()?);
        Ok(Response::new(stream))
    }

    async fn get_debug_events(
        &self,
        request: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        let selection = Selection::of_debug_events(request.into_inner())?;
        let node_name = self.node.full_name();
        let response = move |time, event| GetDebugEventsResponse {
            debug_event: Some(event),
            node_name: node_name.clone(),
            time: Some(super::encode::proto_time(time)),
        };
        let lost = |count| debug(lost_words(count));
        let (events, ending) = (Arc::clone(&self.events), self.shutdown.clone());
        let stream = events::stream(events, selection, response, lost, ending, self.places.take()?);
        Ok(Response::new(stream))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let nodes = self.asked.nodes(&mut self.peers.clone(), self.status()).await;
        Ok(Response::new(GetNodesResponse { nodes }))
    }

    async fn get_namespaces(
        &self,
        _: Request<GetNamespacesRequest>,
    ) -> Result<Response<GetNamespacesResponse>, Status> {
        let namespaces = self
            .store
            .namespaces(now_ns())
            .into_iter()
            .map(|Namespace { cluster, name }| observer_proto::observer::Namespace {
                cluster,
                namespace: name,
            })
            .collect();
        Ok(Response::new(GetNamespacesResponse { namespaces }))
    }

    async fn server_status(
        &self,
        _: Request<ServerStatusRequest>,
    ) -> Result<Response<ServerStatusResponse>, Status> {
        Ok(Response::new(self.status()))
    }
}

#[async_trait]
impl Peer for Api {
    type NotifyStream = Streaming<ChangeNotification>;

    /// This daemon and those of other nodes, then their changes; the stream stays open, as relays expect.
    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let place = self.places.take()?;
        Ok(Response::new(self.peers.clone().notify(self.shutdown.clone(), place)))
    }
}

fn lost_words(count: u64) -> String {
    format!("{count} events were overwritten before they were read")
}
