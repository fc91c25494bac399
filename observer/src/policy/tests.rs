//! Connections judged by policies that are written here, between pods that a source has told of.

use super::*;
use crate::{
    enrich::{
        ipcache::IpCache,
        source::{Node, Pod, PodPort, Rank, ServiceEntry, Snapshot, Surroundings, Window},
    },
    flow::{DropSite, Link, LinkKind, Notes, Record, Sample, Tristate},
};
use observer_proto::{
    control::{PolicyHits, policy::SetBy},
    flow::{TraceObservationPoint as Point, TraceReason},
};
use std::{fs, net::IpAddr, path::Path};

mod api;
mod changes;
mod in_kernel;
mod modes;
mod requests;

fn pod(name: &str, ip: &str, labels: &[&str]) -> Pod {
    let (namespace, name) = name.split_once('/').unwrap();
    let own = [
        "k8s:io.cilium.k8s.policy.cluster=default".to_owned(),
        format!("k8s:io.kubernetes.pod.namespace={namespace}"),
    ];
    Pod {
        uid: format!("{namespace}/{name}"),
        namespace: namespace.into(),
        name: name.into(),
        ips: vec![ip.parse().unwrap()],
        labels: labels.iter().map(|label| format!("k8s:{label}")).chain(own).collect(),
        local: !name.starts_with("far"),
        ..Pod::default()
    }
}

fn snapshot(pods: Vec<Pod>) -> Snapshot {
    let node = |name: &str, ip: &str| Node {
        name: name.into(),
        addresses: vec![ip.parse().unwrap()],
        labels: [("role".to_owned(), "edge".to_owned())].into(),
        ..Node::default()
    };
    let nodes = vec![node("n1", "192.168.0.1"), node("n2", "192.168.0.2")];
    Snapshot { pods, surroundings: Surroundings { nodes, ..Surroundings::default() } }
}

fn usual() -> Vec<Pod> {
    vec![
        pod("shop/web", "10.0.0.1", &["app=web"]),
        pod("shop/api", "10.0.0.2", &["app=api"]),
        pod("ops/tool", "10.0.0.3", &["app=tool"]),
        pod("ops/far", "10.0.1.1", &["app=tool"]),
    ]
}

/// The names, the policies in a folder, and the judge.
struct Bed {
    folder: tempfile::TempDir,
    cache: Arc<IpCache>,
    updater: Updater,
    judge: Judge,
    time: u64,
}

impl Bed {
    fn new(mode: Mode, policies: &str) -> Self {
        Self::with(PolicyConfig { mode, ..PolicyConfig::default() }, policies)
    }

    fn with(config: PolicyConfig, policies: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("policies.yaml"), policies).unwrap();
        let cache = Arc::new(IpCache::new("n1"));
        cache.replace(Rank::Inventory, snapshot(usual()), Window::exact(0));
        let config = PolicyConfig { files: vec![folder.path().to_owned()], ..config };
        let updater = Updater::load(config, "default", Arc::clone(&cache), None).unwrap();
        let judge = Judge::new(Arc::clone(updater.policies()), Arc::clone(&cache));
        Self { folder, cache, updater, judge, time: 1 }
    }

    fn flow(&self, from: &str, to: &str, point: Point) -> Sample {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (to, port) = to.rsplit_once(':').unwrap();
        Sample {
            record: Record {
                event_type: Record::TRACE_EVENT,
                verdict: 1,
                source_ip: Some(ip(from)),
                destination_ip: Some(ip(to)),
                source_port: 40_000,
                destination_port: port.parse().unwrap(),
                protocol: 6,
                ip_version: 4,
                observation_point: point as u8,
                trace_reason: TraceReason::New as u8,
                is_reply: Tristate::No,
                packets: 1,
                bytes: 60,
                ..Record::default()
            },
            source: self.cache.lookup(ip(from), self.time),
            destination: self.cache.lookup(ip(to), self.time),
            ..Sample::default()
        }
    }

    fn judge(&mut self, flow: &Sample) -> Vec<String> {
        let mut told = Vec::new();
        let given = self.judge.begin().judge(&flow.flow(), None, &mut |verdict| told.push(show(verdict)));
        assert_eq!((given.verdicts, given.denied_by), (told.len() as u64, None));
        told
    }

    /// A connection, where it is told.
    fn connect(&mut self, from: &str, to: &str) -> Vec<String> {
        let delivered = self.flow(from, to, Point::ToEndpoint);
        let leaves = self.flow(from, to, Point::ToStack);
        let flow = if delivered.destination.local { delivered } else { leaves };
        self.judge(&flow)
    }
}

/// `direction verdict match: policies [log]`.
fn show(flow: &crate::flow::Flow<'_>) -> String {
    let told = flow.policy.unwrap().told();
    assert_eq!((flow.event_type, flow.observation_point, flow.trace_reason), (5, 0, 0));
    assert_eq!((flow.is_reply, flow.packets, flow.bytes, flow.drop.is_some()), (Tristate::No, 0, 0, false));
    assert!(flow.link.is_none() && flow.tunnel.is_none());
    assert_eq!(told.is_egress, flow.direction == 2);
    assert_eq!(told.denies, flow.verdict == 4);
    let verdict = ["?", "forwarded", "?", "?", "audit"][usize::from(flow.verdict)];
    let direction = if told.is_egress { "egress" } else { "ingress" };
    let policies: Vec<_> = told.policies.iter().map(ToString::to_string).collect();
    format!("{direction} {verdict} {}: {} {:?}", told.match_type, policies.join(", "), told.log)
}

/// Everybody to `api` is denied but `web` on port 80; who is `tool` may go nowhere.
const POLICIES: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: web}}]
      toPorts: [{ports: [{port: '80', protocol: TCP}]}]
  ingressDeny:
    - toPorts: [{ports: [{port: '22', protocol: TCP}]}]
  log: {value: shop-api}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: tools, namespace: ops}
spec: {podSelector: {}, policyTypes: [Egress]}
";

/// Allowed, and what would be denied where nothing is.
fn passed(hits: PolicyHits) -> (u64, u64) {
    assert_eq!((hits.denied, hits.refused), (0, 0), "{hits:?}");
    (hits.allowed, hits.would_deny)
}

#[test]
fn each_side_is_told_with_its_policies() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let api = "CiliumNetworkPolicy shop/api [\"shop-api\"]";
    for (from, to, expected) in [
        ("10.0.0.1", "10.0.0.2:80", vec![format!("ingress forwarded 2: {api}")]),
        ("10.0.0.1", "10.0.0.2:81", vec![format!("ingress audit 0: {api}")]),
        ("10.0.0.1", "10.0.0.2:22", vec![format!("ingress audit 3: {api}")]),
        (
            "10.0.0.3",
            "10.0.0.2:80",
            vec!["egress audit 0: NetworkPolicy ops/tools []".to_owned(), format!("ingress audit 0: {api}")],
        ),
        // Another node's pod: its own side is judged there.
        ("10.0.1.1", "10.0.0.2:80", vec![format!("ingress audit 0: {api}")]),
        // The own node always comes in; the rule is nobody's.
        ("192.168.0.1", "10.0.0.2:80", vec!["ingress forwarded 1:  []".to_owned()]),
        ("192.168.0.2", "10.0.0.2:80", vec![format!("ingress audit 0: {api}")]),
        ("203.0.113.9", "10.0.0.2:80", vec![format!("ingress audit 0: {api}")]),
        // Nobody says anything of these.
        ("10.0.0.2", "10.0.0.1:80", vec![]),
        ("10.0.0.1", "203.0.113.9:443", vec![]),
        ("10.0.0.2", "10.0.0.2:81", vec![]),
    ] {
        assert_eq!(bed.connect(from, to), expected, "{from} -> {to}");
    }
    let policies = bed.updater.policies();
    let counters = &policies.counters;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!([read(&counters.verdicts), read(&counters.audited)], [9, 7]);
    assert_eq!([read(&counters.observed), read(&counters.ends_unknown)], [0, 0]);
    let hits: Vec<_> = policies.set().ids().iter().map(|id| passed(policies.hits(id))).collect();
    assert_eq!(hits, [(0, 1), (1, 6)], "the tools, then the API");
}

#[test]
fn only_the_first_packet_of_the_opener_is_judged() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let first = bed.flow("10.0.0.1", "10.0.0.2:80", Point::ToEndpoint);
    assert_eq!(bed.judge(&first).len(), 1);
    for (reason, is_reply) in [
        (TraceReason::Established, Tristate::No),
        (TraceReason::Reply, Tristate::Yes),
        (TraceReason::Related, Tristate::No),
        (TraceReason::Unknown, Tristate::Unset),
    ] {
        let record = Record { trace_reason: reason as u8, is_reply, ..first.record };
        assert_eq!(bed.judge(&Sample { record, ..first.clone() }), [""; 0], "{reason:?}");
    }
    let solicitation = Record { protocol: 58, ip_version: 6, flags_or_type: 135 << 8, ..first.record };
    assert_eq!(bed.judge(&Sample { record: solicitation, ..first.clone() }), [""; 0]);
    let echo = Record { protocol: 1, flags_or_type: 8 << 8, ..first.record };
    assert_eq!(bed.judge(&Sample { record: echo, ..first }).len(), 1);
}

#[test]
fn what_others_drop_between_pods_is_judged_at_its_sender() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let flow = bed.flow("10.0.0.3", "10.0.0.2:80", Point::UnknownPoint);
    let link = |kind| Some(Arc::new(Link { index: 4, name: "veth1".into(), kind }));
    let site =
        DropSite { kernel_reason: "NETFILTER_DROP".into(), hubble_reason: 133, location: Err("".into()) };
    let record = Record {
        event_type: Record::DROP_EVENT,
        verdict: 2,
        trace_reason: 0,
        flags_or_type: 2,
        is_reply: Tristate::Unset,
        ..flow.record
    };
    let drop = Sample { record, drop: Some(Arc::new(site)), link: link(LinkKind::Pod), ..flow };
    assert_eq!(bed.judge(&drop), ["egress audit 0: NetworkPolicy ops/tools []"]);
    let far = bed.cache.lookup("10.0.1.1".parse().unwrap(), 1);
    for other in [
        // Inside a pod: it was delivered.
        Sample { link: None, ..drop.clone() },
        Sample { link: link(LinkKind::Uplink), ..drop.clone() },
        Sample { record: Record { flags_or_type: 0x12, ..record }, ..drop.clone() },
        Sample { record: Record { protocol: 17, ..record }, ..drop.clone() },
        Sample { record: Record { notes: Notes::SUM, ..record }, ..drop.clone() },
        // Told where it left the pod.
        Sample { destination: far, ..drop },
    ] {
        assert_eq!(bed.judge(&other), [""; 0], "{other:?}");
    }
}

#[test]
fn a_host_is_judged_where_its_packets_come_and_go() {
    let mut bed = Bed::new(
        Mode::Audit,
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: host}\nspec:\n  \
         nodeSelector: {matchLabels: {role: edge}}\n  ingress: [{fromEntities: [cluster]}]\n  \
         egress: [{toEntities: [cluster]}]\n",
    );
    let host = "CiliumClusterwideNetworkPolicy host []";
    for (from, to, point, expected) in [
        ("192.168.0.1", "203.0.113.9:443", Point::ToNetwork, vec![format!("egress audit 0: {host}")]),
        ("203.0.113.9", "192.168.0.1:443", Point::FromNetwork, vec![format!("ingress audit 0: {host}")]),
        ("192.168.0.1", "10.0.0.1:80", Point::ToEndpoint, vec![format!("egress forwarded 1: {host}")]),
        ("10.0.0.1", "192.168.0.1:80", Point::ToStack, vec![format!("ingress forwarded 1: {host}")]),
        ("192.168.0.2", "192.168.0.1:80", Point::FromNetwork, vec![format!("ingress forwarded 1: {host}")]),
        // What only passes through.
        ("10.0.1.1", "203.0.113.9:443", Point::ToNetwork, vec![]),
    ] {
        let flow = bed.flow(from, to, point);
        assert_eq!(bed.judge(&flow), expected, "{from} -> {to} {point:?}");
    }
}

#[test]
fn what_is_evaluated_only_is_counted_and_not_told() {
    let mut bed = Bed::new(Mode::Observe, POLICIES);
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80"), [""; 0]);
    assert_eq!(bed.connect("10.0.0.3", "10.0.0.2:80"), [""; 0]);
    let policies = bed.updater.policies();
    assert_eq!(policies.counters.observed.load(Ordering::Relaxed), 3);
    let hits: Vec<_> = policies.set().ids().iter().map(|id| passed(policies.hits(id))).collect();
    assert_eq!(hits, [(0, 1), (1, 1)]);

    // One that says its mode itself is told, and the others' say counts for nothing in it.
    let annotated = POLICIES.replace(
        "metadata: {name: tools, namespace: ops}",
        "metadata: {name: tools, namespace: ops, annotations: {observer/policy-mode: enforce}}",
    );
    let cap = Some(Cap { most: Mode::Audit, why: "a test drops nothing".into() });
    let config = PolicyConfig { mode: Mode::Observe, cap, ..PolicyConfig::default() };
    let mut bed = Bed::with(config, &annotated);
    assert_eq!(bed.connect("10.0.0.3", "10.0.0.2:80"), ["egress audit 0: NetworkPolicy ops/tools []"]);
    let set = bed.updater.policies().set();
    assert_eq!(
        set.capped().unwrap(),
        "in mode audit and not as they ask, since a test drops nothing: NetworkPolicy ops/tools"
    );
    assert_eq!(set.policies.iter().map(Declared::mode).collect::<Vec<_>>(), [Mode::Observe, Mode::Audit]);
}

#[test]
fn a_service_without_a_known_backend_is_not_judged() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let mut flow = bed.flow("10.0.0.3", "10.96.0.1:80", Point::ToStack);
    assert_eq!(bed.judge(&flow).len(), 1, "an address of the world");
    flow.destination_service = Some(Arc::default());
    assert_eq!(bed.judge(&flow), [""; 0]);
    assert_eq!(bed.updater.policies().counters.backend_unknown.load(Ordering::Relaxed), 1);
}

#[test]
fn judging_takes_no_memory_where_the_rules_are_known() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let flows = [("10.0.0.3", "10.0.0.2:80"), ("192.168.0.1", "10.0.0.2:80"), ("203.0.113.9", "10.0.0.2:81")]
        .map(|(from, to)| bed.flow(from, to, Point::ToEndpoint));
    let mut judge = || {
        let mut judging = bed.judge.begin();
        flows.iter().map(|flow| judging.judge(&flow.flow(), None, &mut |_| {}).verdicts).sum::<u64>()
    };
    assert_eq!(judge(), 4);
    let mut given = 0;
    let counted = allocation_counter::measure(|| given = judge());
    assert_eq!((given, counted.count_total), (4, 0));
}

/// A file that isn't there stops the start, with its name.
#[test]
fn what_can_not_be_read_is_named() {
    let files = vec![Path::new("/nonexistent/policies").to_owned()];
    let config = PolicyConfig { files, ..PolicyConfig::default() };
    let error = Updater::load(config, "default", Arc::new(IpCache::new("n1")), None).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/policies: No such file"), "{error}");
}
