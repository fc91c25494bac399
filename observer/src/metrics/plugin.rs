//! Hubble's metrics of flows: what each counts, and by which labels.

use super::{
    context::{Context, Value, Values},
    series::{Room, Table},
};
use crate::{
    dynamic::Selection,
    flow::{Flow, Record, Tristate},
    serve::{query::Selector, view::NodeView},
    store::{self, Lot},
};
use observer_proto::{
    filter::L4,
    flow::{DropReason, TrafficDirection, Verdict},
    names,
};
use std::sync::Arc;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Drop,
    Flow,
    FlowsToWorld,
    Icmp,
    Policy,
    PortDistribution,
    Tcp,
}

/// A metric's own options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Options {
    any_drop: bool,
    port: bool,
    syn_only: bool,
}

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    kind: Kind,
    context: Context,
    options: Options,
    selection: Selection,
}

/// Metrics of what flows don't tell yet.
const NOT_YET: [&str; 5] = ["dns", "http", "httpV2", "kafka", "sctp"];

impl Kind {
    const ALL: [(&'static str, Self); 7] = [
        ("drop", Self::Drop),
        ("flow", Self::Flow),
        ("flows-to-world", Self::FlowsToWorld),
        ("icmp", Self::Icmp),
        ("policy", Self::Policy),
        ("port-distribution", Self::PortDistribution),
        ("tcp", Self::Tcp),
    ];

    fn named(name: &str) -> Result<Self, String> {
        if let Some((_, kind)) = Self::ALL.into_iter().find(|(known, _)| *known == name) {
            return Ok(kind);
        }
        let known = Self::ALL.map(|(name, _)| name).join(", ");
        Err(if NOT_YET.contains(&name) {
            format!("not built in: {name}, as flows don't tell of it yet; there are {known}")
        } else {
            format!("no metric is named `{name}`; there are {known}")
        })
    }

    /// Its name in Prometheus, and its help.
    pub(super) fn family(self) -> (&'static str, &'static str) {
        match self {
            Self::Drop => ("hubble_drop_total", "Packets dropped."),
            Self::Flow => ("hubble_flows_processed_total", "Flows processed."),
            Self::FlowsToWorld => ("hubble_flows_to_world_total", "Flows to reserved:world."),
            Self::Icmp => ("hubble_icmp_total", "ICMP messages."),
            Self::Policy => ("hubble_policy_verdicts_total", "Verdicts of network policies."),
            Self::PortDistribution => ("hubble_port_distribution_total", "Flows by destination port."),
            Self::Tcp => ("hubble_tcp_flags_total", "TCP flags seen."),
        }
    }

    fn labels(self, options: Options) -> &'static [&'static str] {
        match self {
            Self::Drop => &["reason", "protocol"],
            Self::Flow => &["protocol", "type", "subtype", "verdict"],
            Self::FlowsToWorld if options.port => &["protocol", "verdict", "port"],
            Self::FlowsToWorld => &["protocol", "verdict"],
            Self::Icmp => &["family", "type"],
            Self::Policy => &["direction", "match", "action"],
            Self::PortDistribution => &["protocol", "port"],
            Self::Tcp => &["flag", "family"],
        }
    }
}

impl Wanted {
    /// Checks what was asked for. The error names the option.
    pub(super) fn new<'a>(
        name: &str,
        options: impl Iterator<Item = (&'a str, Vec<&'a str>)>,
        selection: Selection,
    ) -> Result<Self, String> {
        let kind = Kind::named(name)?;
        let mut wanted = Self { kind, context: Context::default(), options: Options::default(), selection };
        for (option, values) in options {
            let known = wanted.context.take(option, &values).map_err(|error| format!("{option}: {error}"))?;
            let own = match (kind, option.to_ascii_lowercase().as_str()) {
                _ if known => continue,
                (Kind::FlowsToWorld, "any-drop") => &mut wanted.options.any_drop,
                (Kind::FlowsToWorld, "port") => &mut wanted.options.port,
                (Kind::FlowsToWorld, "syn-only") => &mut wanted.options.syn_only,
                _ => return Err(format!("`{option}` is no option of {name}")),
            };
            *own = true;
        }
        Ok(wanted)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }
}

/// A metric that is measured.
pub(super) struct Plugin {
    wanted: Wanted,
    selector: Selector,
    pods: [bool; 2],
    table: Table,
}

impl Plugin {
    pub(super) fn new(wanted: Wanted, node: Arc<NodeView>) -> Self {
        let names =
            wanted.kind.labels(wanted.options).iter().copied().chain(wanted.context.names()).collect();
        Self {
            selector: Selector::new(wanted.selection.filters().matcher(), node),
            pods: wanted.context.names_pods(),
            table: Table::new(names),
            wanted,
        }
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn table_mut(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Counts the flows of a lot.
    pub(super) fn examine(&mut self, lot: &Lot<'_>, room: &mut Room) {
        let mut left = self.selector.select(lot);
        while left != 0 {
            let stored = lot.get(left.trailing_zeros() as usize);
            left &= left - 1;
            self.count(&stored.flow(), room);
        }
    }

    fn count(&mut self, flow: &Flow<'_>, room: &mut Room) {
        if self.wanted.kind != Kind::Tcp {
            let mut values = Values::new();
            if let Some(count) = own_values(self.wanted.kind, self.wanted.options, flow, &mut values) {
                self.add(values, flow, count, room);
            }
            return;
        }
        let Some(flags) = store::tcp_flags(flow).filter(|_| is_forwarded(flow)) else { return };
        let is_set = |bit: u16| flags & bit != 0;
        for (flag, seen) in [
            ("FIN", is_set(0x01)),
            ("SYN", is_set(0x02) && !is_set(0x10)),
            ("SYN-ACK", is_set(0x02) && is_set(0x10)),
            ("RST", is_set(0x04)),
        ] {
            if seen {
                let mut values = Values::new();
                values.push(Value::Text(flag));
                values.push(Value::Text(family(flow)));
                self.add(values, flow, 1, room);
            }
        }
    }

    fn add<'a>(&mut self, mut values: Values<'a>, flow: &Flow<'a>, count: u64, room: &mut Room) {
        self.wanted.context.values(flow, &mut values);
        let pods = [(self.pods[0], flow.source), (self.pods[1], flow.destination)];
        self.table.add(values.as_slice(), count, pods.map(|(named, end)| named.then_some(&**end)), room);
    }
}

/// The values of the metric's own labels, and how much the flow counts, if it does.
fn own_values<'a>(kind: Kind, options: Options, flow: &Flow<'a>, values: &mut Values<'a>) -> Option<u64> {
    let is_dropped = flow.verdict == Verdict::Dropped as u8;
    let mut text = |text: &'static str| values.push(Value::Text(text));
    match kind {
        Kind::Drop if is_dropped => {
            text(drop_reason(flow));
            text(protocol(flow));
            // One flow tells of many drops, where they are alike.
            return Some(if flow.is_drop() { flow.packets.max(1) } else { 1 });
        }
        Kind::Flow => {
            text(protocol(flow));
            let (kind, subtype) = event_type(flow);
            text(kind);
            text(subtype);
            text(verdict(flow));
        }
        Kind::FlowsToWorld => {
            let is_reply = flow.is_reply == Tristate::Yes;
            let l4 = store::l4(flow)?;
            let is_syn = store::tcp_flags(flow).is_some_and(|flags| flags & 0x02 != 0);
            let by_policy = flow.drop_reason() == DropReason::PolicyDenied as u16;
            if !is_world(&flow.destination.labels)
                || (is_dropped && !options.any_drop && !by_policy)
                || (!is_dropped && is_reply)
                || (options.syn_only && (!is_syn || is_reply))
            {
                return None;
            }
            text(protocol(flow));
            text(verdict(flow));
            if options.port {
                let has_port = matches!(l4, L4::Tcp | L4::Udp | L4::Sctp);
                values.push(if has_port { Value::Number(flow.destination_port) } else { Value::Text("") });
            }
        }
        Kind::Icmp => {
            let l4 = store::l4(flow)?;
            let (kind, code) = flow.icmp();
            if !matches!(l4, L4::IcmpV4 | L4::IcmpV6) {
                return None;
            }
            text(if l4 == L4::IcmpV6 { "IPv6" } else { "IPv4" });
            values.push(Value::Icmp(l4 == L4::IcmpV6, kind, code));
        }
        // The host may connect to what is local.
        Kind::Policy if flow.is_policy_verdict() && flow.source.identity != HOST => {
            let direction = TrafficDirection::try_from(i32::from(flow.direction)).unwrap_or_default();
            let matched = flow.policy.map_or(0, |policy| policy.told().match_type);
            for name in [direction.as_str_name(), names::policy_match_name(matched.into()), verdict(flow)] {
                values.push(Value::Small(name));
            }
        }
        Kind::PortDistribution if is_forwarded(flow) && flow.is_reply == Tristate::No => {
            let l4 = store::l4(flow)?;
            text(protocol(flow));
            let has_port = matches!(l4, L4::Tcp | L4::Udp | L4::Sctp);
            values.push(Value::Number(if has_port { flow.destination_port } else { 0 }));
        }
        Kind::Drop | Kind::Policy | Kind::PortDistribution | Kind::Tcp => return None,
    }
    Some(1)
}

/// Cilium's reserved identity.
const HOST: u32 = 1;

fn is_forwarded(flow: &Record) -> bool {
    [Verdict::Forwarded as u8, Verdict::Redirected as u8].contains(&flow.verdict)
}

fn is_world(labels: &[String]) -> bool {
    const WORLD: [&str; 3] = ["reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"];
    labels.iter().any(|label| WORLD.contains(&label.as_str()))
}

fn drop_reason(flow: &Flow<'_>) -> &'static str {
    DropReason::try_from(i32::from(flow.drop_reason())).unwrap_or_default().as_str_name()
}

fn verdict(flow: &Record) -> &'static str {
    Verdict::try_from(i32::from(flow.verdict)).unwrap_or_default().as_str_name()
}

fn family(flow: &Record) -> &'static str {
    if flow.ip_version == 6 { "IPv6" } else { "IPv4" }
}

fn protocol(flow: &Record) -> &'static str {
    match store::l4(flow) {
        Some(L4::Tcp) => "TCP",
        Some(L4::Udp) => "UDP",
        Some(L4::IcmpV4) => "ICMPv4",
        Some(L4::IcmpV6) => "ICMPv6",
        Some(L4::Sctp) => "SCTP",
        Some(L4::Vrrp) => "VRRP",
        Some(L4::Igmp) => "IGMP",
        None => "Unknown L4",
    }
}

fn event_type(flow: &Flow<'_>) -> (&'static str, &'static str) {
    match flow.event_type {
        Record::DROP_EVENT => ("Drop", ""),
        Record::TRACE_EVENT => ("Trace", names::trace_point_name(flow.event_sub_type().into()).unwrap_or("")),
        Record::POLICY_EVENT => ("PolicyVerdict", ""),
        Record::L7_EVENT if flow.l7.is_some_and(|l7| l7.dns().is_some()) => ("L7", "DNS"),
        Record::L7_EVENT => ("L7", "HTTP"),
        _ => ("Unknown", ""),
    }
}
