//! Flows of every kind, likely or not.

use super::dice::Dice;
use observer_proto::{
    flow::{
        CiliumEventType, Dns, Endpoint, Ethernet, Flow, Http, HttpHeader, IcmPv4, IcmPv6, Ip, IpTraceId,
        Layer4, Layer7, NetworkInterface, Policy, Sctp, Service, Tcp, TcpFlags, TraceContext, TraceParent,
        Udp, Verdict, Workload, layer4::Protocol, layer7::Record,
    },
    names,
};

pub(super) const NAMESPACES: &[&str] = &["shop", "prod", "kube-system", "default", ""];
pub(super) const PODS: &[&str] = &["web-0", "web-1", "api-7f9c", "db", "coredns-x", ""];
pub(super) const SERVICES: &[&str] = &["api", "web", "kube-dns"];
pub(super) const KINDS: &[&str] = &["Deployment", "StatefulSet", "DaemonSet"];
pub(super) const LABELS: &[&str] = &[
    "k8s:app=web",
    "k8s:app=api",
    "k8s:tier=db",
    "reserved:world",
    "reserved:host",
    "k8s:k8s-app=kube-dns",
    "plain",
];
pub(super) const ADDRESSES: &[&str] =
    &["10.0.1.5", "10.0.1.60", "192.168.7.9", "1.1.1.1", "fd00::5", "2001:db8::1", ""];
pub(super) const NAMES: &[&str] = &["example.com", "www.example.com", "api.test", "a-b.example.com"];
pub(super) const PORTS: &[u32] = &[0, 53, 80, 443, 8080, 40_000, 65_535];
pub(super) const NODES: &[&str] = &["default/n1", "default/n2", "east/n1", "n3", ""];
pub(super) const METHODS: &[&str] = &["GET", "POST", "PUT", ""];
pub(super) const URLS: &[&str] =
    &["http://api/v1", "http://api/v1/x?y=<1>&z", "https://www.example.com/", "/", ""];
pub(super) const CLUSTERS: &[&str] = &["default", "east", ""];
pub(super) const LINKS: &[&str] = &["eth0", "lxc1", ""];
pub(super) const TRACE_IDS: &[&str] = &["abc", "0af7651916cd43dd8448eb211c80319c"];
pub(super) const IDENTITIES: &[u32] = &[0, 1, 2, 7, 11, 4001, 4002, 16_777_217];

/// The nth flow; times go up, as they do in a log.
pub(super) fn flow(dice: &mut Dice, nth: usize) -> Flow {
    let seconds = 1_767_608_130 + i64::try_from(nth).unwrap();
    let fractions = [0, 120_000_000, 120_300_000, 123_456_789];
    let kind = *dice.pick(&[0, 1, 2, 3, 4, 4, 4, 5, 5, 7, 129, 130]);
    let verdict = dice.below(9).try_into().unwrap();
    // v1.20 has the point of a translation in the subtype, too; we take it from either.
    let point = dice.below(5).try_into().unwrap();
    let sub_type = *dice.pick(&[0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 133, 181, 196, 250]);
    // Hubble names policies on some policy verdicts only, and those of an audited flow in another way in each version.
    let is_told = [Verdict::Forwarded, Verdict::Redirected, Verdict::Dropped, Verdict::Error];
    let names_policies =
        kind == names::EVENT_POLICY_VERDICT && is_told.iter().any(|told| *told as i32 == verdict);
    let policies = |dice: &mut Dice| if names_policies { policies(dice) } else { Vec::new() };
    Flow {
        time: (!dice.once_in(40)).then(|| prost_types::Timestamp { seconds, nanos: *dice.pick(&fractions) }),
        uuid: uuid(nth),
        verdict,
        #[expect(deprecated, reason = "Hubble still fills it")]
        drop_reason: *dice.pick(&[0, 133, 181, 196]),
        auth_type: if dice.once_in(6) { dice.below(4).try_into().unwrap() } else { 0 },
        ethernet: dice.once_in(2).then(|| Ethernet {
            source: "0a:01:02:03:04:05".to_owned(),
            destination: "0a:01:02:03:04:06".to_owned(),
        }),
        ip: (!dice.once_in(8)).then(|| Ip {
            source: dice.text(ADDRESSES),
            source_xlated: if dice.once_in(5) { dice.text(ADDRESSES) } else { String::new() },
            destination: dice.text(ADDRESSES),
            ip_version: dice.below(3).try_into().unwrap(),
            encrypted: dice.once_in(4),
        }),
        l4: (!dice.once_in(8)).then(|| Layer4 { protocol: Some(layer4(dice)) }),
        source: (!dice.once_in(10)).then(|| end(dice)),
        destination: (!dice.once_in(10)).then(|| end(dice)),
        r#type: dice.below(4).try_into().unwrap(),
        node_name: dice.text(NODES),
        node_labels: dice.some(&["zone=a", "io.cilium/egress-gateway=true"], 2),
        source_names: dice.some(NAMES, 2),
        destination_names: dice.some(NAMES, 2),
        l7: dice.once_in(4).then(|| layer7(dice)),
        event_type: (names_policies || !dice.once_in(10)).then_some(CiliumEventType {
            r#type: kind,
            sub_type: if kind == names::EVENT_TRACE_SOCK { point } else { sub_type },
        }),
        source_service: dice.once_in(5).then(|| service(dice)),
        destination_service: dice.once_in(4).then(|| service(dice)),
        traffic_direction: dice.below(3).try_into().unwrap(),
        policy_match_type: dice.number(8),
        trace_observation_point: *dice.pick(&[0, 1, 2, 3, 4, 5, 11, 101]),
        ip_trace_id: dice
            .once_in(8)
            .then(|| IpTraceId { trace_id: *dice.pick(&[0, 7, 42]), ip_option_type: 136 }),
        drop_reason_desc: *dice.pick(&[0, 133, 181, 196]),
        is_reply: *dice.pick(&[None, Some(false), Some(true)]),
        debug_capture_point: *dice.pick(&[0, 4, 5, 11]),
        interface: dice
            .once_in(3)
            .then(|| NetworkInterface { index: dice.number(3), name: dice.text(LINKS) }),
        proxy_port: dice.number(2) * 15_001,
        trace_context: dice
            .once_in(6)
            .then(|| TraceContext { parent: Some(TraceParent { trace_id: dice.text(TRACE_IDS) }) }),
        sock_xlate_point: point,
        socket_cookie: *dice.pick(&[0, 7, u64::MAX]),
        #[expect(deprecated, reason = "Hubble prints it")]
        summary: dice.text(&["TCP Flags: SYN", "UDP", "DNS Query example.com. A", ""]),
        egress_allowed_by: policies(dice),
        ingress_allowed_by: policies(dice),
        egress_denied_by: policies(dice),
        ingress_denied_by: policies(dice),
        ..Flow::default()
    }
}

pub(super) fn uuid(nth: usize) -> String {
    format!("8d4d4aa4-06bb-442e-9fc4-{nth:012x}")
}

fn end(dice: &mut Dice) -> Endpoint {
    Endpoint {
        id: dice.number(3) * 17,
        identity: *dice.pick(IDENTITIES),
        cluster_name: dice.text(CLUSTERS),
        namespace: dice.text(NAMESPACES),
        labels: dice.some(LABELS, 3),
        pod_name: dice.text(PODS),
        workloads: (0..dice.below(2))
            .map(|_| Workload { name: dice.text(&["web", "api", "db"]), kind: dice.text(KINDS) })
            .collect(),
    }
}

fn service(dice: &mut Dice) -> Service {
    Service { name: dice.text(SERVICES), namespace: dice.text(NAMESPACES) }
}

fn policies(dice: &mut Dice) -> Vec<Policy> {
    if !dice.once_in(4) {
        return Vec::new();
    }
    let policy = |dice: &mut Dice| Policy {
        name: dice.text(&["deny-all", "allow-web", ""]),
        namespace: dice.text(NAMESPACES),
        kind: dice.text(&["NetworkPolicy", "CiliumNetworkPolicy", ""]),
        revision: dice.below(3) as u64,
        ..Policy::default()
    };
    (0..=dice.below(2)).map(|_| policy(dice)).collect()
}

fn layer4(dice: &mut Dice) -> Protocol {
    let (source_port, destination_port) = (*dice.pick(PORTS), *dice.pick(PORTS));
    match dice.below(8) {
        0 => Protocol::Udp(Udp { source_port, destination_port }),
        1 => Protocol::IcmPv4(IcmPv4 { r#type: *dice.pick(&[0, 3, 8]), code: dice.number(2) }),
        2 => Protocol::IcmPv6(IcmPv6 { r#type: *dice.pick(&[128, 133, 135]), code: 0 }),
        3 => Protocol::Sctp(Sctp { source_port, destination_port, ..Sctp::default() }),
        _ => Protocol::Tcp(Tcp {
            source_port,
            destination_port,
            flags: (!dice.once_in(6)).then(|| TcpFlags {
                syn: dice.once_in(2),
                ack: dice.once_in(2),
                fin: dice.once_in(5),
                rst: dice.once_in(6),
                psh: dice.once_in(4),
                ..TcpFlags::default()
            }),
        }),
    }
}

fn layer7(dice: &mut Dice) -> Layer7 {
    let record = match dice.below(3) {
        0 => None,
        1 => Some(Record::Dns(Dns {
            query: dice.text(&["example.com.", "www.example.com.", ""]),
            ips: dice.some(&["192.0.2.7", "2001:db8::7"], 2),
            ttl: dice.number(60),
            observation_source: dice.text(&["proxy", ""]),
            rcode: *dice.pick(&[0, 3]),
            qtypes: dice.some(&["A", "AAAA"], 2),
            ..Dns::default()
        })),
        _ => Some(Record::Http(Http {
            code: *dice.pick(&[0, 200, 204, 404, 500, 503]),
            method: dice.text(METHODS),
            url: dice.text(URLS),
            protocol: "HTTP/1.1".to_owned(),
            headers: (0..dice.below(3))
                .map(|_| HttpHeader { key: dice.text(&["foo", "Host"]), value: dice.text(&["bar", "api"]) })
                .collect(),
        })),
    };
    Layer7 { r#type: dice.below(4).try_into().unwrap(), latency_ns: dice.below(9_000_000) as u64, record }
}
