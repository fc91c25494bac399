//! The table of the flags that filter flows: names, help, and what each does to a filter message.
//!
//! The command line and any prompt read the same table, so that they can't differ.

use super::{flag_values as values, view::Side};
use crate::flow::{FlowFilter, IpVersion, NetworkInterface};
use crate::names::RESERVED_IDENTITIES;

/// One flag. Every flag may be given more than once: values of one flag are alternatives, different flags all must hold.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// One-letter form.
    pub short: Option<char>,
    /// How help calls the value; `None` for a flag without one.
    pub value: Option<&'static str>,
    /// What a shell or a prompt can offer for the value.
    pub complete: Complete,
    /// One line of help.
    pub help: &'static str,
    pub(super) effect: Effect,
}

/// What can be offered for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complete {
    /// Nothing is known of it.
    Nothing,
    /// These, and often others.
    Words(&'static [&'static str]),
    /// The names of all drop reasons: [`drop_reasons`](super::drop_reasons).
    DropReasons,
    /// Pods that the server has seen lately, with their namespaces.
    Pods,
    /// Services that the server has seen lately, with their namespaces.
    Services,
    /// Workloads that the server has seen lately, with their kinds.
    Workloads,
    /// Labels that the server has seen lately.
    Labels,
    /// Namespaces that the server has seen in the last hour.
    Namespaces,
    /// Nodes that the server knows.
    Nodes,
}

/// Which end a flag speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
    /// Either: the source in the left filter, the destination in the right one.
    Either,
}

pub(super) type SetSide = fn(&mut FlowFilter, Side, &str) -> Result<(), String>;
pub(super) type SetWhole = fn(&mut FlowFilter, &str) -> Result<(), String>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    /// The next filter goes to the blacklist.
    Not,
    Side(End, SetSide),
    Whole(SetWhole),
    Namespace(End),
    AllNamespaces(End),
    /// A whole filter message as JSON; the flag decides the list by itself.
    Raw {
        deny: bool,
    },
}

/// Both sides' fields of a filter in one line.
macro_rules! sides {
    ($source:ident, $destination:ident, $value:ident => $read:expr) => {
        |f: &mut FlowFilter, side: Side, $value: &str| {
            let value = $read;
            match side {
                Side::Source => f.$source.push(value),
                Side::Destination => f.$destination.push(value),
            }
            Ok(())
        }
    };
}

macro_rules! whole {
    ($field:ident, $value:ident => $read:expr) => {
        |f: &mut FlowFilter, $value: &str| {
            f.$field.push($read);
            Ok(())
        }
    };
}

const POD: SetSide = sides!(source_pod, destination_pod, v => v.to_owned());
const SERVICE: SetSide = sides!(source_service, destination_service, v => v.to_owned());
const IP: SetSide = sides!(source_ip, destination_ip, v => v.to_owned());
const FQDN: SetSide = sides!(source_fqdn, destination_fqdn, v => v.to_owned());
const LABEL: SetSide = sides!(source_label, destination_label, v => v.to_owned());
const PORT: SetSide = sides!(source_port, destination_port, v => v.to_owned());
const CLUSTER: SetSide = sides!(source_cluster_name, destination_cluster_name, v => v.to_owned());
const IDENTITY: SetSide = sides!(source_identity, destination_identity, v => values::identity(v)?);
const WORKLOAD: SetSide = sides!(source_workload, destination_workload, v => values::workload(v));

/// How help calls a value, and what can be offered for it.
#[derive(Clone, Copy)]
struct Value(&'static str, Complete);

const POD_NAME: Value = Value("[NS/]PREFIX", Complete::Pods);
const SERVICE_NAME: Value = Value("[NS/]PREFIX", Complete::Services);
const WORKLOAD_NAME: Value = Value("[KIND/]NAME", Complete::Workloads);
const NS: Value = Value("NS", Complete::Namespaces);
const SELECTOR: Value = Value("SELECTOR", Complete::Labels);
const NODE_NAME: Value = Value("GLOB", Complete::Nodes);
// Without the first, `unknown`.
const IDENTITY_ID: Value = Value("ID", Complete::Words(RESERVED_IDENTITIES.split_at(1).1));
const TYPES: Value = Value(
    "TYPE[:SUB]",
    Complete::Words(&[
        "drop",
        "trace",
        "trace:from-endpoint",
        "trace:from-host",
        "trace:from-network",
        "trace:from-overlay",
        "trace:from-proxy",
        "trace:from-stack",
        "trace:from-crypto",
        "trace:to-endpoint",
        "trace:to-host",
        "trace:to-network",
        "trace:to-overlay",
        "trace:to-proxy",
        "trace:to-stack",
        "trace:to-crypto",
        "l7",
        "policy-verdict",
        "trace-sock",
        "capture",
    ]),
);

/// A value of which some are known here.
const fn words(name: &'static str, words: &'static [&'static str]) -> Value {
    Value(name, Complete::Words(words))
}

/// A value of which nothing is known.
const fn any(name: &'static str) -> Value {
    Value(name, Complete::Nothing)
}

const fn flag(name: &'static str, value: Value, help: &'static str, effect: Effect) -> Flag {
    Flag { name, short: None, value: Some(value.0), complete: value.1, help, effect }
}

const fn switch(name: &'static str, help: &'static str, effect: Effect) -> Flag {
    Flag { name, short: None, value: None, complete: Complete::Nothing, help, effect }
}

const fn short(letter: char, flag: Flag) -> Flag {
    Flag { short: Some(letter), ..flag }
}

use Effect::{AllNamespaces, Namespace, Not, Raw, Side as OfSide, Whole};
use End::{Destination, Either, Source};

/// All flags, in the order that help shows them in.
pub const FLAGS: &[Flag] = &[
    switch("not", "Turn the next filter round: show flows that it does not match", Not),
    flag(
        "pod",
        POD_NAME,
        "Either end is a pod whose name starts so; no slash means namespace default, NS/ all of it",
        OfSide(Either, POD),
    ),
    flag("from-pod", POD_NAME, "The source is such a pod", OfSide(Source, POD)),
    flag("to-pod", POD_NAME, "The destination is such a pod", OfSide(Destination, POD)),
    short('n', flag("namespace", NS, "Either end is in this namespace", Namespace(Either))),
    flag("from-namespace", NS, "The source is in this namespace", Namespace(Source)),
    flag("to-namespace", NS, "The destination is in this namespace", Namespace(Destination)),
    short('A', switch("all-namespaces", "Pods and services of any namespace", AllNamespaces(Either))),
    switch("from-all-namespaces", "The same for the source", AllNamespaces(Source)),
    switch("to-all-namespaces", "The same for the destination", AllNamespaces(Destination)),
    flag("service", SERVICE_NAME, "Either end is a service whose name starts so", OfSide(Either, SERVICE)),
    flag("from-service", SERVICE_NAME, "The source is such a service", OfSide(Source, SERVICE)),
    flag("to-service", SERVICE_NAME, "The destination is such a service", OfSide(Destination, SERVICE)),
    flag(
        "workload",
        WORKLOAD_NAME,
        "Either end belongs to this workload; KIND/ means all of that kind",
        OfSide(Either, WORKLOAD),
    ),
    flag("from-workload", WORKLOAD_NAME, "The source does", OfSide(Source, WORKLOAD)),
    flag("to-workload", WORKLOAD_NAME, "The destination does", OfSide(Destination, WORKLOAD)),
    short(
        'l',
        flag(
            "label",
            SELECTOR,
            "Either end's labels fit this Kubernetes selector (k8s:app=web,tier!=db)",
            OfSide(Either, LABEL),
        ),
    ),
    flag("from-label", SELECTOR, "The source's labels do", OfSide(Source, LABEL)),
    flag("to-label", SELECTOR, "The destination's labels do", OfSide(Destination, LABEL)),
    flag(
        "identity",
        IDENTITY_ID,
        "Either end has this security identity: a number or host, world, kube-apiserver, ...",
        OfSide(Either, IDENTITY),
    ),
    flag("from-identity", IDENTITY_ID, "The source has it", OfSide(Source, IDENTITY)),
    flag("to-identity", IDENTITY_ID, "The destination has it", OfSide(Destination, IDENTITY)),
    flag("ip", any("IP|CIDR"), "Either address is this one, or in this range", OfSide(Either, IP)),
    flag("from-ip", any("IP|CIDR"), "The source address is", OfSide(Source, IP)),
    flag("to-ip", any("IP|CIDR"), "The destination address is", OfSide(Destination, IP)),
    flag(
        "snat-ip",
        any("IP|CIDR"),
        "The translated source address is",
        Whole(whole!(source_ip_xlated, v => v.to_owned())),
    ),
    short('4', switch("ipv4", "IPv4 only", Whole(whole!(ip_version, _v => IpVersion::IPv4 as i32)))),
    short('6', switch("ipv6", "IPv6 only", Whole(whole!(ip_version, _v => IpVersion::IPv6 as i32)))),
    flag(
        "ip-version",
        words("VERSION", &["v4", "v6", "none"]),
        "v4, v6, or none for traffic without IP",
        Whole(whole!(ip_version, v => values::ip_version(v))),
    ),
    flag("fqdn", any("GLOB"), "Either end has a DNS name like this (*.example.com)", OfSide(Either, FQDN)),
    flag("from-fqdn", any("GLOB"), "The source has", OfSide(Source, FQDN)),
    flag("to-fqdn", any("GLOB"), "The destination has", OfSide(Destination, FQDN)),
    flag("port", any("PORT"), "Either port is this one", OfSide(Either, PORT)),
    flag("from-port", any("PORT"), "The source port is", OfSide(Source, PORT)),
    flag("to-port", any("PORT"), "The destination port is", OfSide(Destination, PORT)),
    flag(
        "protocol",
        words(
            "NAME",
            &["tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6", "vrrp", "igmp", "dns", "http", "tls"],
        ),
        "tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, dns, http or tls (not Hubble's)",
        Whole(whole!(protocol, v => v.to_owned())),
    ),
    flag(
        "tcp-flags",
        words("FLAGS", &["syn", "syn,ack", "ack", "fin", "rst", "psh", "urg", "ece", "cwr", "ns"]),
        "All these TCP flags are set (syn,ack)",
        Whole(whole!(tcp_flags, v => values::tcp_flags(v)?)),
    ),
    flag(
        "verdict",
        words("VERDICT", &["FORWARDED", "DROPPED", "AUDIT", "REDIRECTED", "ERROR", "TRACED", "TRANSLATED"]),
        "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED",
        Whole(whole!(verdict, v => values::verdict(v)?)),
    ),
    flag(
        "drop-reason-desc",
        Value("REASON", Complete::DropReasons),
        "Dropped for this reason: Hubble's (POLICY_DENIED), the kernel's (NETFILTER_DROP), or KERNEL for any of these",
        Whole(whole!(drop_reason_desc, v => values::drop_reason(v)?)),
    ),
    short(
        't',
        flag(
            "type",
            TYPES,
            "Event type: drop, trace, trace:to-endpoint, policy-verdict, l7, ... or numbers",
            Whole(whole!(event_type, v => values::event_type(v)?)),
        ),
    ),
    switch("reply", "Replies only", Whole(whole!(reply, _v => true))),
    switch("not-reply", "Requests only, and drops of unknown direction", Whole(whole!(reply, _v => false))),
    flag(
        "traffic-direction",
        words("DIRECTION", &["ingress", "egress"]),
        "ingress or egress, as the local endpoint sees it",
        Whole(whole!(traffic_direction, v => values::direction(v)?)),
    ),
    flag(
        "http-status",
        words(
            "CODE",
            &[
                "2+", "3+", "4+", "5+", "200", "301", "302", "400", "401", "403", "404", "429", "500", "502",
                "503", "504",
            ],
        ),
        "HTTP status, or its first digits (404, 5+)",
        Whole(whole!(http_status_code, v => v.to_owned())),
    ),
    flag(
        "http-method",
        words("METHOD", &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"]),
        "HTTP method",
        Whole(whole!(http_method, v => v.to_owned())),
    ),
    flag("http-path", any("REGEX"), "The URL's path matches", Whole(whole!(http_path, v => v.to_owned()))),
    flag("http-url", any("REGEX"), "The URL matches", Whole(whole!(http_url, v => v.to_owned()))),
    flag(
        "http-header",
        any("KEY:VALUE"),
        "This HTTP header is there",
        Whole(whole!(http_header, v => values::http_header(v)?)),
    ),
    switch("encrypted", "Through an encrypted tunnel", Whole(whole!(encrypted, _v => true))),
    switch("unencrypted", "Not through an encrypted tunnel", Whole(whole!(encrypted, _v => false))),
    flag(
        "interface",
        any("NAME"),
        "Seen on this network interface",
        Whole(whole!(interface, v => NetworkInterface { index: 0, name: v.to_owned() })),
    ),
    flag(
        "node-name",
        NODE_NAME,
        "Seen on this node ([cluster/]node)",
        Whole(whole!(node_name, v => v.to_owned())),
    ),
    flag(
        "node-label",
        any("SELECTOR"),
        "Seen on a node with these labels",
        Whole(whole!(node_labels, v => v.to_owned())),
    ),
    flag("cluster", any("NAME"), "Either end is in this cluster", OfSide(Either, CLUSTER)),
    flag("from-cluster", any("NAME"), "The source is", OfSide(Source, CLUSTER)),
    flag("to-cluster", any("NAME"), "The destination is", OfSide(Destination, CLUSTER)),
    flag("uuid", any("UUID"), "The flow with this uuid", Whole(whole!(uuid, v => v.to_owned()))),
    flag("trace-id", any("ID"), "The L7 flows of this trace", Whole(whole!(trace_id, v => v.to_owned()))),
    flag(
        "ip-trace-id",
        any("ID"),
        "Packets that carry this trace id in their IP options",
        Whole(whole!(ip_trace_id, v => values::ip_trace_id(v)?)),
    ),
    flag(
        "cel-expression",
        any("CEL"),
        "A CEL expression over _flow, where the server supports it",
        Whole(|f, v| {
            f.experimental.get_or_insert_default().cel_expression.push(v.to_owned());
            Ok(())
        }),
    ),
    flag("allowlist", any("JSON"), "Show what this FlowFilter matches, as JSON", Raw { deny: false }),
    flag("denylist", any("JSON"), "Leave out what this FlowFilter matches, as JSON", Raw { deny: true }),
];

/// Finds a flag by its long name.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|f| f.name == name)
}

/// Within a group no two different flags can stand in one list. The order is Hubble's: it decides the error's text.
pub(super) const CONFLICTS: &[&[&str]] = &[
    &[
        "from-fqdn",
        "from-ip",
        "ip",
        "fqdn",
        "from-namespace",
        "namespace",
        "from-all-namespaces",
        "all-namespaces",
    ],
    &["from-fqdn", "from-ip", "ip", "fqdn", "from-pod", "pod"],
    &["to-fqdn", "to-ip", "ip", "fqdn", "to-namespace", "namespace", "to-all-namespaces", "all-namespaces"],
    &["to-fqdn", "to-ip", "ip", "fqdn", "to-pod", "pod"],
    &["to-pod", "namespace", "all-namespaces"],
    &["from-pod", "namespace", "all-namespaces"],
    &["to-service", "namespace", "all-namespaces"],
    &["from-service", "namespace", "all-namespaces"],
    &["label", "from-label"],
    &["label", "to-label"],
    &["service", "from-service"],
    &["service", "to-service"],
    &["port", "to-port"],
    &["port", "from-port"],
    &["identity", "to-identity"],
    &["identity", "from-identity"],
    &["workload", "to-workload"],
    &["workload", "from-workload"],
    &["encrypted", "unencrypted"],
    &["reply", "not-reply"],
];
