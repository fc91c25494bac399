//! The control service, on the root-only socket.

use super::{
    Limits,
    counters::Counters,
    encode::{NodeInfo, proto_time},
    inspect::Looks,
    policies,
};
use crate::{
    capture::{AttachTimes, Fill},
    policy::{Policies, Updater},
    store::Store,
};
use observer_proto::control::{
    self as wire, CaptureStatusRequest, CaptureStatusResponse, ExplainPolicyRequest, ExplainPolicyResponse,
    InspectRequest, InspectResponse, ListPoliciesRequest, ListPoliciesResponse, RecordRequest,
    RecordResponse, SetPolicyModeRequest, SetPolicyModeResponse,
    control_server::{Control, ControlServer},
};
use std::sync::{Arc, Mutex};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait, service::Routes};

/// What the capture knows of itself.
pub trait CaptureInfo: Send + Sync {
    /// Kernel, hooks, links and counters; the server adds node, version, start and store.
    fn capture_status(&self) -> CaptureStatusResponse;

    /// Pods that no link of the node leads to. The kernel is asked of each, so this may take a while.
    fn unlinked(&self) -> Vec<wire::Unlinked> {
        Vec::new()
    }

    /// How full what the kernel keeps is, and how long it took to attach; nothing where nothing runs.
    fn kernel_use(&self) -> KernelUse {
        KernelUse::default()
    }
}

/// What metrics tell besides the capture's status.
#[derive(Debug, Default)]
pub struct KernelUse {
    /// Rings in bytes.
    pub rings: Vec<Fill>,
    /// Tables of connections.
    pub tables: Vec<Fill>,
    /// Times that programs were put on links.
    pub attached: AttachTimes,
}

/// The control service.
pub(super) struct ControlApi {
    pub(super) capture: Arc<dyn CaptureInfo>,
    /// Nothing where none were given.
    pub(super) policies: Option<Arc<Policies>>,
    pub(super) looks: Looks,
    /// What changes them.
    pub(super) updater: Option<Arc<Mutex<Updater>>>,
    pub(super) store: Arc<Store>,
    pub(super) node: Arc<NodeInfo>,
    pub(super) counters: Arc<Counters>,
    /// Unix time in nanoseconds.
    pub(super) started: i64,
}

impl ControlApi {
    /// For its socket.
    pub(super) fn routes(self, limits: &Limits) -> Routes {
        Routes::new(ControlServer::new(self).max_decoding_message_size(limits.message_bytes))
    }
}

#[async_trait]
impl Control for ControlApi {
    async fn capture_status(
        &self,
        _: Request<CaptureStatusRequest>,
    ) -> Result<Response<CaptureStatusResponse>, Status> {
        let capture = Arc::clone(&self.capture);
        let unlinked = tokio::task::spawn_blocking(move || capture.unlinked()).await;
        Ok(Response::new(CaptureStatusResponse {
            unlinked: unlinked.map_err(|error| Status::internal(error.to_string()))?,
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

    type InspectStream = ReceiverStream<Result<InspectResponse, Status>>;

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<Self::InspectStream>, Status> {
        self.looks.answer(request.into_inner(), &self.node).map(Response::new)
    }

    async fn list_policies(
        &self,
        request: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, Status> {
        let node_name = self.node.full_name();
        let Some(policies) = self.policies.clone() else {
            return Ok(Response::new(ListPoliciesResponse { node_name, ..ListPoliciesResponse::default() }));
        };
        // Of thousands of policies it takes a while.
        let listed = tokio::task::spawn_blocking(move || policies::list(&policies, request.get_ref())).await;
        let listed = listed.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ListPoliciesResponse { node_name, ..listed }))
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        let policies = self.policies.as_ref().ok_or_else(no_policies)?;
        let explained = policies::explain(policies, request.get_ref());
        explained.map(Response::new).map_err(Status::invalid_argument)
    }

    async fn set_policy_mode(
        &self,
        request: Request<SetPolicyModeRequest>,
    ) -> Result<Response<SetPolicyModeResponse>, Status> {
        let updater = self.updater.clone().ok_or_else(no_policies)?;
        // It waits for the disk, and for whoever reads the policies.
        let set = tokio::task::spawn_blocking(move || policies::set_mode(&updater, request.get_ref())).await;
        set.map_err(|error| Status::internal(error.to_string()))?.map(Response::new)
    }

    async fn record(&self, _: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        Err(Status::unimplemented("not built in: record"))
    }
}

fn no_policies() -> Status {
    Status::failed_precondition("the daemon has no policies: start it with --policy FILE or FOLDER")
}
