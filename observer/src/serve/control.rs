//! The control service, on the root-only socket.

use super::{
    Limits,
    counters::Counters,
    encode::{NodeInfo, proto_time},
    inspect::Looks,
};
use crate::{
    policy::{Declared, Policies, Set},
    store::Store,
};
use hashbrown::{HashMap, HashSet};
use observer_policy::{
    model::{Mode, Policy},
    wire::{self as said, Besides},
};
use observer_proto::control::{
    self as wire, CaptureStatusRequest, CaptureStatusResponse, ExplainPolicyRequest, ExplainPolicyResponse,
    InspectRequest, InspectResponse, ListPoliciesRequest, ListPoliciesResponse, PolicyHits, PolicyWarning,
    RecordRequest, RecordResponse,
    control_server::{Control, ControlServer},
};
use std::sync::Arc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait, service::Routes};

/// What the capture knows of itself.
pub trait CaptureInfo: Send + Sync {
    /// Kernel, hooks, links and counters; the server adds node, version, start and store.
    fn capture_status(&self) -> CaptureStatusResponse;
}

/// The control service.
pub(super) struct ControlApi {
    pub(super) capture: Arc<dyn CaptureInfo>,
    /// Nothing where none were given.
    pub(super) policies: Option<Arc<Policies>>,
    pub(super) looks: Looks,
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
        let listed = tokio::task::spawn_blocking(move || list(&policies, request.get_ref())).await;
        let listed = listed.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ListPoliciesResponse { node_name, ..listed }))
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, Status> {
        let policies = self.policies.as_ref().ok_or_else(|| {
            Status::failed_precondition("the daemon has no policies: start it with --policy FILE or FOLDER")
        })?;
        let explained = said::explain(&policies.world().engine, request.get_ref());
        explained.map(Response::new).map_err(Status::invalid_argument)
    }

    async fn record(&self, _: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        Err(Status::unimplemented("not built in: record"))
    }
}

fn list(policies: &Policies, request: &ListPoliciesRequest) -> ListPoliciesResponse {
    let set: Arc<Set> = policies.set();
    let declared: HashMap<_, &Declared> =
        set.policies.iter().map(|one| ((&one.policy.id, one.policy.part), one)).collect();
    let besides = |policy: &Policy| {
        let (allowed, denied) = policies.hits(&policy.id);
        let set_by = declared.get(&(&policy.id, policy.part)).map(|one| one.asked_by);
        Besides { set_by: set_by.unwrap_or_default(), hits: Some(PolicyHits { allowed, denied }) }
    };
    let mut listed = said::list(&policies.world().engine, request, besides);
    let enforced = set.policies.iter().filter(|one| one.asked == Mode::Enforce).map(|one| &one.policy);
    let enforced: HashSet<_> = enforced
        .map(|policy| (policy.id.kind.to_string(), &*policy.id.namespace, &*policy.id.name, policy.part))
        .collect();
    for policy in &mut listed.policies {
        let key = (policy.kind.clone(), &*policy.namespace, &*policy.name, policy.part);
        if enforced.contains(&key) {
            let problem =
                "asks for mode enforce, which is not built in yet: it is judged as audit".to_owned();
            policy
                .warnings
                .insert(0, PolicyWarning { line: policy.line, problem, ..PolicyWarning::default() });
        }
    }
    listed.loaded = Some(set.loaded.into());
    listed.problem = policies.problem().unwrap_or_default();
    listed
}
