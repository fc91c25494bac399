//! The control service, on the root-only socket.

use super::{
    counters::Counters,
    encode::{NodeInfo, proto_time},
};
use crate::store::Store;
use observer_proto::control::{
    self as wire, CaptureStatusRequest, CaptureStatusResponse, ExplainPolicyRequest, ExplainPolicyResponse,
    InspectRequest, InspectResponse, ListPoliciesRequest, ListPoliciesResponse, RecordRequest,
    RecordResponse, control_server::Control,
};
use std::sync::Arc;
use tonic::{Request, Response, Status, async_trait};

/// What the capture knows of itself.
pub trait CaptureInfo: Send + Sync {
    /// Kernel, hooks, links and counters; the server adds node, version, start and store.
    fn capture_status(&self) -> CaptureStatusResponse;
}

/// The control service.
pub(super) struct ControlApi {
    pub(super) capture: Arc<dyn CaptureInfo>,
    pub(super) store: Arc<Store>,
    pub(super) node: Arc<NodeInfo>,
    pub(super) counters: Arc<Counters>,
    /// Unix time in nanoseconds.
    pub(super) started: i64,
}

#[async_trait]
impl Control for ControlApi {
    async fn capture_status(
        &self,
        _: Request<CaptureStatusRequest>,
    ) -> Result<Response<CaptureStatusResponse>, Status> {
        Ok(Response::new(CaptureStatusResponse {
            node_name: self.node.full_name(),
            version: self.node.version.clone(),
            started: Some(proto_time(self.started)),
            store: Some(wire::Store {
                flows: self.store.len(),
                capacity: self.store.capacity(),
                bytes: self.store.bytes(),
                oldest: self.store.oldest_time().map(proto_time),
            }),
            server: Some(self.counters.to_wire()),
            ..self.capture.capture_status()
        }))
    }

    async fn inspect(&self, _: Request<InspectRequest>) -> Result<Response<InspectResponse>, Status> {
        Err(Status::unimplemented("not built in: inspect"))
    }

    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        Err(Status::unimplemented("not built in: policies"))
    }

    async fn explain_policy(
        &self,
        _: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        Err(Status::unimplemented("not built in: policies"))
    }

    async fn record(&self, _: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        Err(Status::unimplemented("not built in: record"))
    }
}
