//! The table of the flags that filter flows: names, help, and what each does to a filter message.
//!
//! The command line and any prompt read the same table, so that they can't differ.

use super::{flag_values as values, view::Side};
use crate::flow::{FlowFilter, IpVersion, NetworkInterface};

/// One flag. Every flag may be given more than once: values of one flag are alternatives, different flags all must hold.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// One-letter form.
    pub short: Option<char>,
    /// How help calls the value; `None` for a flag without one.
    pub value: Option<&'static str>,
    /// One line of help.
    pub help: &'static str,
    pub(super) effect: Effect,
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

const fn flag(name: &'static str, value: &'static str, help: &'static str, effect: Effect) -> Flag {
    Flag { name, short: None, value: Some(value), help, effect }
}

const fn switch(name: &'static str, help: &'static str, effect: Effect) -> Flag {
    Flag { name, short: None, value: None, help, effect }
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
        "[NS/]PREFIX",
        "Either end is a pod whose name starts so; no slash means namespace default, NS/ all of it",
        OfSide(Either, POD),
    ),
    flag("from-pod", "[NS/]PREFIX", "The source is such a pod", OfSide(Source, POD)),
    flag("to-pod", "[NS/]PREFIX", "The destination is such a pod", OfSide(Destination, POD)),
    short('n', flag("namespace", "NS", "Either end is in this namespace", Namespace(Either))),
    flag("from-namespace", "NS", "The source is in this namespace", Namespace(Source)),
    flag("to-namespace", "NS", "The destination is in this namespace", Namespace(Destination)),
    short('A', switch("all-namespaces", "Pods and services of any namespace", AllNamespaces(Either))),
    switch("from-all-namespaces", "The same for the source", AllNamespaces(Source)),
    switch("to-all-namespaces", "The same for the destination", AllNamespaces(Destination)),
    flag("service", "[NS/]PREFIX", "Either end is a service whose name starts so", OfSide(Either, SERVICE)),
    flag("from-service", "[NS/]PREFIX", "The source is such a service", OfSide(Source, SERVICE)),
    flag("to-service", "[NS/]PREFIX", "The destination is such a service", OfSide(Destination, SERVICE)),
    flag(
        "workload",
        "[KIND/]NAME",
        "Either end belongs to this workload; KIND/ means all of that kind",
        OfSide(Either, WORKLOAD),
    ),
    flag("from-workload", "[KIND/]NAME", "The source does", OfSide(Source, WORKLOAD)),
    flag("to-workload", "[KIND/]NAME", "The destination does", OfSide(Destination, WORKLOAD)),
    short(
        'l',
        flag(
            "label",
            "SELECTOR",
            "Either end's labels fit this Kubernetes selector (k8s:app=web,tier!=db)",
            OfSide(Either, LABEL),
        ),
    ),
    flag("from-label", "SELECTOR", "The source's labels do", OfSide(Source, LABEL)),
    flag("to-label", "SELECTOR", "The destination's labels do", OfSide(Destination, LABEL)),
    flag(
        "identity",
        "ID",
        "Either end has this security identity: a number or host, world, kube-apiserver, ...",
        OfSide(Either, IDENTITY),
    ),
    flag("from-identity", "ID", "The source has it", OfSide(Source, IDENTITY)),
    flag("to-identity", "ID", "The destination has it", OfSide(Destination, IDENTITY)),
    flag("ip", "IP|CIDR", "Either address is this one, or in this range", OfSide(Either, IP)),
    flag("from-ip", "IP|CIDR", "The source address is", OfSide(Source, IP)),
    flag("to-ip", "IP|CIDR", "The destination address is", OfSide(Destination, IP)),
    flag(
        "snat-ip",
        "IP|CIDR",
        "The translated source address is",
        Whole(whole!(source_ip_xlated, v => v.to_owned())),
    ),
    short('4', switch("ipv4", "IPv4 only", Whole(whole!(ip_version, _v => IpVersion::IPv4 as i32)))),
    short('6', switch("ipv6", "IPv6 only", Whole(whole!(ip_version, _v => IpVersion::IPv6 as i32)))),
    flag(
        "ip-version",
        "VERSION",
        "v4, v6, or none for traffic without IP",
        Whole(whole!(ip_version, v => values::ip_version(v))),
    ),
    flag("fqdn", "GLOB", "Either end has a DNS name like this (*.example.com)", OfSide(Either, FQDN)),
    flag("from-fqdn", "GLOB", "The source has", OfSide(Source, FQDN)),
    flag("to-fqdn", "GLOB", "The destination has", OfSide(Destination, FQDN)),
    flag("port", "PORT", "Either port is this one", OfSide(Either, PORT)),
    flag("from-port", "PORT", "The source port is", OfSide(Source, PORT)),
    flag("to-port", "PORT", "The destination port is", OfSide(Destination, PORT)),
    flag(
        "protocol",
        "NAME",
        "tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, dns or http",
        Whole(whole!(protocol, v => v.to_owned())),
    ),
    flag(
        "tcp-flags",
        "FLAGS",
        "All these TCP flags are set (syn,ack)",
        Whole(whole!(tcp_flags, v => values::tcp_flags(v)?)),
    ),
    flag(
        "verdict",
        "VERDICT",
        "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED or TRANSLATED",
        Whole(whole!(verdict, v => values::verdict(v)?)),
    ),
    flag(
        "drop-reason-desc",
        "REASON",
        "Dropped for this reason (POLICY_DENIED)",
        Whole(whole!(drop_reason_desc, v => values::drop_reason(v)?)),
    ),
    short(
        't',
        flag(
            "type",
            "TYPE[:SUB]",
            "Event type: drop, trace, trace:to-endpoint, policy-verdict, l7, ... or numbers",
            Whole(whole!(event_type, v => values::event_type(v)?)),
        ),
    ),
    switch("reply", "Replies only", Whole(whole!(reply, _v => true))),
    switch("not-reply", "Requests only, and drops of unknown direction", Whole(whole!(reply, _v => false))),
    flag(
        "traffic-direction",
        "DIRECTION",
        "ingress or egress, as the local endpoint sees it",
        Whole(whole!(traffic_direction, v => values::direction(v)?)),
    ),
    flag(
        "http-status",
        "CODE",
        "HTTP status, or its first digits (404, 5+)",
        Whole(whole!(http_status_code, v => v.to_owned())),
    ),
    flag("http-method", "METHOD", "HTTP method", Whole(whole!(http_method, v => v.to_owned()))),
    flag("http-path", "REGEX", "The URL's path matches", Whole(whole!(http_path, v => v.to_owned()))),
    flag("http-url", "REGEX", "The URL matches", Whole(whole!(http_url, v => v.to_owned()))),
    flag(
        "http-header",
        "KEY:VALUE",
        "This HTTP header is there",
        Whole(whole!(http_header, v => values::http_header(v)?)),
    ),
    switch("encrypted", "Through an encrypted tunnel", Whole(whole!(encrypted, _v => true))),
    switch("unencrypted", "Not through an encrypted tunnel", Whole(whole!(encrypted, _v => false))),
    flag(
        "interface",
        "NAME",
        "Seen on this network interface",
        Whole(whole!(interface, v => NetworkInterface { index: 0, name: v.to_owned() })),
    ),
    flag(
        "node-name",
        "GLOB",
        "Seen on this node ([cluster/]node)",
        Whole(whole!(node_name, v => v.to_owned())),
    ),
    flag(
        "node-label",
        "SELECTOR",
        "Seen on a node with these labels",
        Whole(whole!(node_labels, v => v.to_owned())),
    ),
    flag("cluster", "NAME", "Either end is in this cluster", OfSide(Either, CLUSTER)),
    flag("from-cluster", "NAME", "The source is", OfSide(Source, CLUSTER)),
    flag("to-cluster", "NAME", "The destination is", OfSide(Destination, CLUSTER)),
    flag("uuid", "UUID", "The flow with this uuid", Whole(whole!(uuid, v => v.to_owned()))),
    flag("trace-id", "ID", "The L7 flows of this trace", Whole(whole!(trace_id, v => v.to_owned()))),
    flag(
        "ip-trace-id",
        "ID",
        "Packets that carry this trace id in their IP options",
        Whole(whole!(ip_trace_id, v => values::ip_trace_id(v)?)),
    ),
    flag(
        "cel-expression",
        "CEL",
        "A CEL expression over _flow, where the server supports it",
        Whole(|f, v| {
            f.experimental.get_or_insert_default().cel_expression.push(v.to_owned());
            Ok(())
        }),
    ),
    flag("allowlist", "JSON", "Show what this FlowFilter matches, as JSON", Raw { deny: false }),
    flag("denylist", "JSON", "Leave out what this FlowFilter matches, as JSON", Raw { deny: true }),
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
