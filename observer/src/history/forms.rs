//! How what flows have in common stands in a piece: by postcard, whose layout is written down. A change of any of these
//! types, and of those of `flow.rs` and `endpoint.rs` that stand here as they are, is another [`super::frame::VERSION`].

use crate::{
    endpoint::{Endpoint, Service, Text, Workload},
    flow::{DropSite, Link, Translated, Tunnel},
    layer7::{Layer7, Tls},
    policy_verdict::{PolicyName, PolicyTold, PolicyVerdict},
};
use observer_l7::tls::Version;
use observer_proto::flow as wire;
use prost::Message as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{net::IpAddr, sync::Arc};

/// Something that has a form.
pub(super) trait Form: Sized {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads it from the beginning of the bytes; what is behind it, too.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])>;
}

fn write(form: &impl Serialize, out: &mut Vec<u8>) {
    // Into memory, and of types that all have a form.
    let written = postcard::to_io(form, out);
    debug_assert!(written.is_ok(), "a form that can't be written");
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<(T, &'a [u8])> {
    postcard::take_from_bytes(bytes).ok()
}

/// Those that stand there as they are.
trait Plain: Serialize + DeserializeOwned {}

impl Plain for Service {}
impl Plain for Link {}
impl Plain for Tunnel {}
impl Plain for DropSite {}

impl<T: Plain> Form for T {
    fn write(&self, out: &mut Vec<u8>) {
        write(self, out);
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        read(bytes)
    }
}

#[derive(Serialize, Deserialize)]
struct EndpointForm<'a> {
    id: u32,
    identity: u32,
    is_local: bool,
    cluster: &'a str,
    namespace: &'a str,
    pod_name: &'a str,
    #[serde(borrow)]
    labels: Vec<&'a str>,
    /// Kind and name.
    workloads: Vec<(&'a str, &'a str)>,
}

impl Form for Endpoint {
    fn write(&self, out: &mut Vec<u8>) {
        let form = EndpointForm {
            id: self.id,
            identity: self.identity,
            is_local: self.local,
            cluster: &self.cluster,
            namespace: &self.namespace,
            pod_name: &self.pod_name,
            labels: self.labels.iter().map(|label| &**label).collect(),
            workloads: self.workloads.iter().map(|workload| (&*workload.kind, &*workload.name)).collect(),
        };
        write(&form, out);
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (form, rest) = read::<EndpointForm<'_>>(bytes)?;
        let workload = |(kind, name): (&str, &str)| Workload { kind: kind.to_owned(), name: name.to_owned() };
        let endpoint = Self {
            id: form.id,
            identity: form.identity,
            local: form.is_local,
            cluster: form.cluster.into(),
            namespace: form.namespace.into(),
            pod_name: form.pod_name.into(),
            labels: form.labels.into_iter().map(Text::from).collect(),
            workloads: form.workloads.into_iter().map(workload).collect(),
            ..Self::default()
        };
        Some((endpoint, rest))
    }
}

#[derive(Serialize, Deserialize)]
struct TranslatedForm {
    source: Option<IpAddr>,
    frontend: Option<(IpAddr, u16)>,
    source_names: Option<Vec<Box<str>>>,
    destination_names: Option<Vec<Box<str>>>,
}

impl Form for Translated {
    fn write(&self, out: &mut Vec<u8>) {
        let Self { source, frontend, source_names, destination_names } = self;
        let form = TranslatedForm {
            source: *source,
            frontend: *frontend,
            source_names: source_names.as_deref().map(<[_]>::to_vec),
            destination_names: destination_names.as_deref().map(<[_]>::to_vec),
        };
        write(&form, out);
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (form, rest) = read::<TranslatedForm>(bytes)?;
        let TranslatedForm { source, frontend, source_names, destination_names } = form;
        let translated = Self {
            source,
            frontend,
            source_names: source_names.map(Into::into),
            destination_names: destination_names.map(Into::into),
        };
        Some((translated, rest))
    }
}

#[derive(Serialize, Deserialize)]
struct PolicyForm {
    is_egress: bool,
    denies: bool,
    match_type: u8,
    revision: u64,
    /// The kind by its place in [`PolicyName::KINDS`], namespace, name.
    policies: Vec<(u8, Box<str>, Box<str>)>,
    log: Vec<Box<str>>,
}

impl Form for PolicyVerdict {
    fn write(&self, out: &mut Vec<u8>) {
        let PolicyTold { is_egress, denies, match_type, policies, log, revision } = self.told();
        let name = |policy: &PolicyName| {
            let kind = PolicyName::KINDS.iter().position(|kind| *kind == policy.kind).unwrap_or_default();
            (kind as u8, policy.namespace.clone(), policy.name.clone())
        };
        let form = PolicyForm {
            is_egress: *is_egress,
            denies: *denies,
            match_type: *match_type,
            revision: *revision,
            policies: policies.iter().map(name).collect(),
            log: log.clone(),
        };
        write(&form, out);
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (form, rest) = read::<PolicyForm>(bytes)?;
        let PolicyForm { is_egress, denies, match_type, revision, policies, log } = form;
        let name = |(kind, namespace, name): (u8, Box<str>, Box<str>)| {
            let kind = PolicyName::KINDS.get(usize::from(kind))?;
            Some(PolicyName { kind, namespace, name })
        };
        let policies = policies.into_iter().map(name).collect::<Option<_>>()?;
        let told = PolicyTold { is_egress, denies, match_type, policies, log, revision };
        Some((Self::new(told), rest))
    }
}

#[derive(Serialize, Deserialize)]
struct Layer7Form<'a> {
    /// Hubble's message.
    message: &'a [u8],
    trace_id: &'a str,
    #[serde(borrow)]
    tls: Option<TlsForm<'a>>,
}

#[derive(Serialize, Deserialize)]
struct TlsForm<'a> {
    server_name: &'a str,
    version: Option<&'a str>,
    alert: Option<&'a str>,
}

impl Form for Layer7 {
    fn write(&self, out: &mut Vec<u8>) {
        let message = self.message().encode_to_vec();
        let tls = self.tls().map(|tls| TlsForm {
            server_name: &tls.server_name,
            version: tls.version,
            alert: tls.alert.as_deref(),
        });
        write(&Layer7Form { message: &message, trace_id: self.trace_id().unwrap_or_default(), tls }, out);
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (form, rest) = read::<Layer7Form<'_>>(bytes)?;
        let message = wire::Layer7::decode(form.message).ok()?;
        let Some(TlsForm { server_name, version, alert }) = form.tls else {
            return Some((Self::new(message, form.trace_id), rest));
        };
        let version = match version {
            Some(name) => Some(Version::named(name)?.name()),
            None => None,
        };
        let tls = Tls { server_name: server_name.to_owned(), version, alert: alert.map(str::to_owned) };
        let is_answer = message.r#type() == wire::L7FlowType::Response;
        Some((Self::tls_began(tls, is_answer, message.latency_ns), rest))
    }
}

/// Reads all that stand there, `count` of them.
pub(super) fn read_all<T: Form>(count: usize, mut bytes: &[u8]) -> Option<Vec<Arc<T>>> {
    // Each takes a byte at least.
    let mut all = Vec::with_capacity(count.min(bytes.len()));
    for _ in 0..count {
        let (part, rest) = T::read(bytes)?;
        if rest.len() == bytes.len() {
            return None;
        }
        all.push(Arc::new(part));
        bytes = rest;
    }
    bytes.is_empty().then_some(all)
}
