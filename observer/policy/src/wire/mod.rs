//! Policies and explanations as the control service's messages, for the daemon and for the command line without one.

mod ends;
mod explain;
mod words;

pub use explain::{explain, explain_seen};
pub use words::protocol;

use crate::{
    engine::Engine,
    model::{Direction, Mode, Policy, PolicyId},
    warn::Warning,
};
use hashbrown::HashMap;
use observer_proto::{
    control::{
        ListPoliciesRequest, ListPoliciesResponse, OpenPod, Policy as Message, PolicyHits, PolicyRule,
        PolicyWarning,
        policy::{Mode as WireMode, SetBy},
    },
    flow::TrafficDirection,
};

/// The most endpoints of a policy that are named.
const MAX_ENDPOINTS: usize = 100;

/// What only the caller knows of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Besides {
    /// What decided its mode.
    pub set_by: SetBy,
    /// Where they are counted.
    pub hits: Option<PolicyHits>,
}

/// The policies that are asked for; who calls adds when they were loaded, what keeps newer ones out, and the node.
pub fn list(
    engine: &Engine,
    request: &ListPoliciesRequest,
    besides: impl Fn(&Policy) -> Besides,
) -> ListPoliciesResponse {
    let mut names: HashMap<u32, Vec<&str>> = HashMap::new();
    for (name, kind, _) in engine.known() {
        names.entry(kind).or_default().push(name);
    }
    let mut warnings: HashMap<(PolicyId, u32), Vec<Warning>> = HashMap::new();
    for warning in engine.warnings() {
        warnings.entry((warning.policy.clone(), warning.part)).or_default().push(warning);
    }
    let asked = |given: &str, own: &str| given.is_empty() || given == own;
    let are_all_asked =
        [&request.kind, &request.namespace, &request.name].iter().all(|given| given.is_empty());
    let mut open_pods = if are_all_asked { open(engine) } else { Vec::new() };
    let open_count = open_pods.len() as u64;
    open_pods.truncate(MAX_ENDPOINTS);
    let mut policies: Vec<(&Policy, Message)> = Vec::new();
    for (policy, mode, kinds) in engine.policies_with_kinds() {
        let id = &policy.id;
        let wanted = asked(&request.kind, &id.kind.to_string())
            && asked(&request.namespace, &id.namespace)
            && asked(&request.name, &id.name);
        if !wanted {
            continue;
        }
        let mut selected: Vec<&str> = kinds.filter_map(|kind| names.get(&kind)).flatten().copied().collect();
        let count = selected.len() as u64;
        selected.sort_unstable();
        selected.truncate(MAX_ENDPOINTS);
        let warnings = warnings.remove(&(id.clone(), policy.part)).unwrap_or_default();
        let Besides { set_by, hits } = besides(policy);
        let message = Message {
            mode: wire_mode(mode).into(),
            mode_set_by: set_by.into(),
            selected: count,
            endpoints: selected.into_iter().map(str::to_owned).collect(),
            rules: if request.rules { rules(policy) } else { Vec::new() },
            hits,
            warnings: warnings.into_iter().map(warning).collect(),
            ..of_policy(policy)
        };
        policies.push((policy, message));
    }
    policies.sort_by_key(|(policy, _)| (&policy.id, policy.part));
    ListPoliciesResponse {
        policies: policies.into_iter().map(|(_, message)| message).collect(),
        open_count,
        open_pods,
        ..ListPoliciesResponse::default()
    }
}

/// Pods with a side that no policy isolates, by name.
fn open(engine: &Engine) -> Vec<OpenPod> {
    let mut isolated: HashMap<u32, [bool; 2]> = HashMap::new();
    for (policy, _, kinds) in engine.policies_with_kinds() {
        for kind in kinds {
            let sides = isolated.entry(kind).or_default();
            sides[0] |= policy.isolates(Direction::Ingress);
            sides[1] |= policy.isolates(Direction::Egress);
        }
    }
    let pods = engine.known().filter(|(name, ..)| name.contains('/'));
    let mut pods: Vec<OpenPod> = pods
        .map(|(name, kind, _)| {
            let [ingress, egress] = isolated.get(&kind).copied().unwrap_or_default();
            OpenPod { name: name.to_string(), ingress: !ingress, egress: !egress }
        })
        .filter(|pod| pod.ingress || pod.egress)
        .collect();
    pods.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// What the policy says of itself.
fn of_policy(policy: &Policy) -> Message {
    let rules = policy.ingress.iter().chain(&policy.egress).map(|side| side.rules().count() as u64);
    Message {
        kind: policy.id.kind.to_string(),
        namespace: policy.id.namespace.to_string(),
        name: policy.id.name.to_string(),
        part: policy.part,
        file: file(policy),
        line: policy.line,
        uid: text(policy.uid.as_deref()),
        description: text(policy.description.as_deref()),
        log: text(policy.log.as_deref()),
        selects: words::subject(&policy.subject),
        isolates_ingress: policy.isolates(Direction::Ingress),
        isolates_egress: policy.isolates(Direction::Egress),
        rule_count: rules.sum(),
        ..Message::default()
    }
}

fn rules(policy: &Policy) -> Vec<PolicyRule> {
    let directions =
        [(Direction::Ingress, TrafficDirection::Ingress), (Direction::Egress, TrafficDirection::Egress)];
    let sides = directions.into_iter().filter_map(|(direction, wire)| Some((policy.side(direction)?, wire)));
    let rules = sides.flat_map(|(side, direction)| {
        let allow = side.allow.iter().map(|rule| (rule, false));
        let all = allow.chain(side.deny.iter().map(|rule| (rule, true)));
        all.map(move |(rule, deny)| PolicyRule {
            path: rule.path.to_string(),
            line: rule.line,
            direction: direction.into(),
            deny,
            peers: words::peers(rule),
            ports: words::ports(rule),
        })
    });
    rules.collect()
}

fn warning(warning: Warning) -> PolicyWarning {
    PolicyWarning { path: warning.path.into(), line: warning.line, problem: warning.problem }
}

fn wire_mode(mode: Mode) -> WireMode {
    match mode {
        Mode::Observe => WireMode::Observe,
        Mode::Audit => WireMode::Audit,
        Mode::Enforce => WireMode::Enforce,
    }
}

fn file(policy: &Policy) -> String {
    policy.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default()
}

fn text(text: Option<&str>) -> String {
    text.map(str::to_owned).unwrap_or_default()
}
