//! The control service's answers about policies in force, and the change of their modes.

use crate::policy::{CommandError, Declared, Named, Policies, Set, Updater};
use hashbrown::HashMap;
use observer_policy::{
    model::{Mode, Policy},
    wire::{self, Besides},
};
use observer_proto::control::{
    ExplainPolicyRequest, ExplainPolicyResponse, ListPoliciesRequest, ListPoliciesResponse, PolicyWarning,
    SetPolicyModeRequest, SetPolicyModeResponse, policy::Mode as WireMode,
};
use std::sync::{Arc, Mutex, PoisonError};
use tonic::Status;

/// Those that are asked for.
pub(super) fn list(policies: &Policies, request: &ListPoliciesRequest) -> ListPoliciesResponse {
    let set: Arc<Set> = policies.set();
    let declared: HashMap<_, &Declared> =
        set.policies.iter().map(|one| ((&one.policy.id, one.policy.part), one)).collect();
    let besides = |policy: &Policy| {
        let set_by = declared.get(&(&policy.id, policy.part)).map(|one| one.set_by());
        Besides { set_by: set_by.unwrap_or_default(), hits: Some(policies.hits(&policy.id)) }
    };
    let mut listed = {
        let world = policies.world();
        let listed = wire::list(&world.engine, request, besides);
        ListPoliciesResponse { revision: world.revision, ..listed }
    };
    let capped = set.policies.iter().filter_map(|one| {
        let Policy { id, part, .. } = &*one.policy;
        Some(((id.kind.to_string(), &*id.namespace, &*id.name, *part), set.why_not_as_asked(one)?))
    });
    let capped: HashMap<_, String> = capped.collect();
    for policy in &mut listed.policies {
        let key = (policy.kind.clone(), &*policy.namespace, &*policy.name, policy.part);
        if let Some(problem) = capped.get(&key).cloned() {
            let warning = PolicyWarning { line: policy.line, problem, ..PolicyWarning::default() };
            policy.warnings.insert(0, warning);
        }
    }
    listed.loaded = Some(set.loaded.into());
    listed.problem = policies.problem().unwrap_or_default();
    listed
}

/// What they say of a connection, and by which set.
pub(super) fn explain(
    policies: &Policies,
    request: &ExplainPolicyRequest,
) -> Result<ExplainPolicyResponse, String> {
    let world = policies.world();
    let explained = wire::explain(&world.engine, request)?;
    Ok(ExplainPolicyResponse { revision: world.revision, ..explained })
}

/// Has a policy be in a mode from now on.
pub(super) fn set_mode(
    updater: &Mutex<Updater>,
    request: &SetPolicyModeRequest,
) -> Result<SetPolicyModeResponse, Status> {
    let mode = match WireMode::try_from(request.mode) {
        Ok(WireMode::Unknown) => None,
        Ok(WireMode::Observe) => Some(Mode::Observe),
        Ok(WireMode::Audit) => Some(Mode::Audit),
        Ok(WireMode::Enforce) => Some(Mode::Enforce),
        Err(_) => return Err(Status::invalid_argument(format!("mode: {} is none", request.mode))),
    };
    if request.name.is_empty() {
        return Err(Status::invalid_argument("name: which policy is meant?"));
    }
    let named = Named { kind: &request.kind, namespace: &request.namespace, name: &request.name };
    let mut updater = updater.lock().unwrap_or_else(PoisonError::into_inner);
    let policy = updater.command(named, mode).map_err(|error| {
        let text = error.to_string();
        match error {
            CommandError::Unknown(_) => Status::not_found(text),
            CommandError::Ambiguous(_) => Status::invalid_argument(text),
            CommandError::Refused(_) => Status::failed_precondition(text),
            CommandError::NotTaken(_) | CommandError::NotKept(_) => Status::unknown(text),
        }
    })?;
    let exactly = ListPoliciesRequest {
        kind: policy.kind.to_string(),
        namespace: policy.namespace.into(),
        name: policy.name.into(),
        rules: false,
    };
    Ok(SetPolicyModeResponse { policies: list(updater.policies(), &exactly).policies })
}
