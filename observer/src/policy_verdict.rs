//! What policies say of a connection on one side: one for all connections of which they say the same.

use observer_proto::flow as wire;
use prost::Message as _;
use std::fmt;

/// A policy as verdicts name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// One of [`PolicyName::KINDS`].
    pub kind: &'static str,
    /// Empty for one of the cluster.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

impl PolicyName {
    /// What [`PolicyName::kind`] may be.
    pub const KINDS: [&str; 3] = ["NetworkPolicy", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"];
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

/// What is told of a connection, as Hubble's flow has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PolicyTold {
    /// Whether it is the side of the source.
    pub is_egress: bool,
    /// Whether the policies deny it.
    pub denies: bool,
    /// Cilium's number for how exactly the deciding rule names the connection; 0 where no rule is about it.
    pub match_type: u8,
    /// The policies that allow it, or deny it; by which it is denied that no rule allows it.
    pub policies: Vec<PolicyName>,
    /// What they say for logs.
    pub log: Vec<Box<str>>,
    /// Which set of policies it was.
    pub revision: u64,
}

/// [`PolicyTold`] with its encoded forms.
#[derive(Debug, PartialEq, Eq)]
pub struct PolicyVerdict {
    told: PolicyTold,
    protobuf: Box<[u8]>,
    json: Box<[u8]>,
}

impl PolicyVerdict {
    /// Encodes it, once.
    pub fn new(told: PolicyTold) -> Self {
        let fields = fields(&told);
        let mut json = observer_proto::json::line(&fields).unwrap_or_default().into_bytes();
        // Of an object what is between the brackets, as fields that go on.
        json.pop();
        match json.len() {
            0 | 1 => json.clear(),
            _ => json[0] = b',',
        }
        Self { told, protobuf: fields.encode_to_vec().into(), json: json.into() }
    }

    /// What is told.
    pub fn told(&self) -> &PolicyTold {
        &self.told
    }

    /// The fields of `flow.Flow` with the names of policies, in the order of their numbers, which follow each other.
    pub(crate) fn protobuf(&self) -> &[u8] {
        &self.protobuf
    }

    /// The same as fields of a JSON object, each with a comma before it.
    pub(crate) fn json(&self) -> &[u8] {
        &self.json
    }

    /// What it takes on the heap, by and large.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.told.policies.iter().map(|policy| policy.namespace.len() + policy.name.len());
        let log = self.told.log.iter().map(|text| size_of_val(text) + text.len());
        size_of::<Self>()
            + self.told.policies.len() * size_of::<PolicyName>()
            + names.sum::<usize>()
            + log.sum::<usize>()
            + self.protobuf.len()
            + self.json.len()
    }
}

fn fields(told: &PolicyTold) -> wire::Flow {
    let policies = told.policies.iter().map(|policy| wire::Policy {
        name: policy.name.to_string(),
        namespace: policy.namespace.to_string(),
        labels: labels(policy),
        revision: told.revision,
        kind: policy.kind.to_owned(),
    });
    let mut flow =
        wire::Flow { policy_log: told.log.iter().map(ToString::to_string).collect(), ..Default::default() };
    let list = match (told.is_egress, told.denies) {
        (true, false) => &mut flow.egress_allowed_by,
        (false, false) => &mut flow.ingress_allowed_by,
        (true, true) => &mut flow.egress_denied_by,
        (false, true) => &mut flow.ingress_denied_by,
    };
    list.extend(policies);
    flow
}

/// Those that Cilium derives from what a policy is, sorted.
fn labels(policy: &PolicyName) -> Vec<String> {
    let label = |key: &str, value: &str| format!("k8s:io.cilium.k8s.policy.{key}={value}");
    let mut labels = vec![label("derived-from", policy.kind), label("name", &policy.name)];
    if !policy.namespace.is_empty() {
        labels.push(label("namespace", &policy.namespace));
    }
    labels
}
