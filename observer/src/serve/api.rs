//! The unary calls of Hubble's observer service, and the peer service.

use super::{encode::NodeInfo, stream::now_ns};
use crate::store::{Namespace, Store};
use futures_core::Stream;
use observer_proto::{
    observer::{
        GetAgentEventsRequest, GetAgentEventsResponse, GetDebugEventsRequest, GetDebugEventsResponse,
        GetFlowsRequest, GetFlowsResponse, GetNamespacesRequest, GetNamespacesResponse, GetNodesRequest,
        GetNodesResponse, Node, ServerStatusRequest, ServerStatusResponse, Tls, observer_server::Observer,
    },
    peer::{ChangeNotification, ChangeNotificationType, NotifyRequest, peer_server::Peer},
    relay::NodeState,
};
use std::{pin::Pin, sync::Arc, time::Instant};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

type Streaming<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers for this node.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) store: Arc<Store>,
    pub(super) node: Arc<NodeInfo>,
    pub(super) started: Instant,
    /// Where others reach this server.
    pub(super) address: Arc<str>,
    pub(super) shutdown: watch::Receiver<bool>,
}

impl Api {
    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn version_text(&self) -> String {
        format!("observer v{}", self.node.version)
    }

    /// The cluster is named only where it isn't the default one.
    fn peer_name(&self) -> String {
        if self.node.cluster == "default" { self.node.name.clone() } else { self.node.full_name() }
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
        _: Request<GetAgentEventsRequest>,
    ) -> Result<Response<Self::GetAgentEventsStream>, Status> {
        Err(Status::unimplemented("not built in: agent events"))
    }

    async fn get_debug_events(
        &self,
        _: Request<GetDebugEventsRequest>,
    ) -> Result<Response<Self::GetDebugEventsStream>, Status> {
        Err(Status::unimplemented("not built in: debug events"))
    }

    async fn get_nodes(&self, _: Request<GetNodesRequest>) -> Result<Response<GetNodesResponse>, Status> {
        let node = Node {
            name: self.node.full_name(),
            version: self.version_text(),
            address: self.address.to_string(),
            state: NodeState::NodeConnected.into(),
            tls: Some(Tls { enabled: false, server_name: String::new() }),
            uptime_ns: self.uptime_ns(),
            num_flows: self.store.len(),
            max_flows: self.store.capacity(),
            seen_flows: self.store.seen(),
        };
        Ok(Response::new(GetNodesResponse { nodes: vec![node] }))
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
        Ok(Response::new(ServerStatusResponse {
            num_flows: self.store.len(),
            max_flows: self.store.capacity(),
            seen_flows: self.store.seen(),
            uptime_ns: self.uptime_ns(),
            version: self.version_text(),
            flows_rate: self.store.rate(now_ns()),
            ..ServerStatusResponse::default()
        }))
    }
}

#[async_trait]
impl Peer for Api {
    type NotifyStream = Streaming<ChangeNotification>;

    /// This server knows of itself only: one notification, then the stream stays open, as relays expect.
    async fn notify(&self, _: Request<NotifyRequest>) -> Result<Response<Self::NotifyStream>, Status> {
        let own = ChangeNotification {
            name: self.peer_name(),
            address: self.address.to_string(),
            r#type: ChangeNotificationType::PeerAdded.into(),
            tls: None,
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let mut shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            if sender.send(Ok(own)).await.is_ok() {
                tokio::select! {
                    () = sender.closed() => return,
                    _ = shutdown.wait_for(|down| *down) => {}
                }
                // The client may be gone by now, which is as good.
                let _ = sender.send(Err(Status::unavailable("the server is shutting down"))).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }
}
