//! Hubble's metrics of flows: what each counts, and by which labels.

use super::{
    context::{Context, Value, Values},
    l7,
    series::{Amount, Family, Room, Table},
};
use crate::{
    dynamic::Selection,
    endpoint::Text,
    flow::{Flow, Record, Tristate},
    serve::{query::Selector, view::NodeView},
    store::{self, Lot},
};
use observer_proto::{
    filter::L4,
    flow::{DropReason, TrafficDirection, Verdict},
    names,
};

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Dns,
    Drop,
    Flow,
    FlowsToWorld,
    Http,
    HttpV2,
    Icmp,
    Policy,
    PortDistribution,
    Tcp,
}

/// A metric's own options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option that is given or not")]
pub(super) struct Options {
    any_drop: bool,
    port: bool,
    syn_only: bool,
    /// Of DNS: with the name that is asked for.
    pub(super) query: bool,
    pub(super) ignore_aaaa: bool,
    /// Of HTTP: with traces.
    pub(super) exemplars: bool,
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
const NOT_YET: [&str; 2] = ["kafka", "sctp"];

const DROP: Family = Family::counter("hubble_drop_total", "Packets dropped.", &["reason", "protocol"]);
const FLOW: Family = Family::counter(
    "hubble_flows_processed_total",
    "Flows processed.",
    &["protocol", "type", "subtype", "verdict"],
);
const FLOWS_TO_WORLD: Family =
    Family::counter("hubble_flows_to_world_total", "Flows to reserved:world.", &["protocol", "verdict"]);
const FLOWS_TO_WORLD_BY_PORT: Family = FLOWS_TO_WORLD.with(&["protocol", "verdict", "port"]);
const ICMP: Family = Family::counter("hubble_icmp_total", "ICMP messages.", &["family", "type"]);
const POLICY: Family = Family::counter(
    "hubble_policy_verdicts_total",
    "Verdicts of network policies.",
    &["direction", "match", "action"],
);
const PORT_DISTRIBUTION: Family =
    Family::counter("hubble_port_distribution_total", "Flows by destination port.", &["protocol", "port"]);
const TCP: Family = Family::counter("hubble_tcp_flags_total", "TCP flags seen.", &["flag", "family"]);

impl Kind {
    const ALL: [(&'static str, Self); 10] = [
        ("dns", Self::Dns),
        ("drop", Self::Drop),
        ("flow", Self::Flow),
        ("flows-to-world", Self::FlowsToWorld),
        ("http", Self::Http),
        ("httpV2", Self::HttpV2),
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

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// What there is of it in Prometheus.
    fn families(self, options: Options) -> &'static [Family] {
        match self {
            Self::Dns if options.query => &l7::DNS_BY_QUERY,
            Self::Dns => &l7::DNS,
            Self::Drop => &[DROP],
            Self::Flow => &[FLOW],
            Self::FlowsToWorld if options.port => &[FLOWS_TO_WORLD_BY_PORT],
            Self::FlowsToWorld => &[FLOWS_TO_WORLD],
            Self::Http => &l7::HTTP,
            Self::HttpV2 => &l7::HTTP_V2,
            Self::Icmp => &[ICMP],
            Self::Policy => &[POLICY],
            Self::PortDistribution => &[PORT_DISTRIBUTION],
            Self::Tcp => &[TCP],
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
            if wanted.context.take(option, &values).map_err(|error| format!("{option}: {error}"))? {
                continue;
            }
            let mut is_on = true;
            let own = match (kind, option.to_ascii_lowercase().as_str()) {
                (Kind::FlowsToWorld, "any-drop") => &mut wanted.options.any_drop,
                (Kind::FlowsToWorld, "port") => &mut wanted.options.port,
                (Kind::FlowsToWorld, "syn-only") => &mut wanted.options.syn_only,
                (Kind::Dns, "query") => &mut wanted.options.query,
                (Kind::Dns, "ignoreaaaa") => &mut wanted.options.ignore_aaaa,
                (Kind::Http | Kind::HttpV2, "exemplars") => {
                    is_on = match values[..] {
                        ["true"] => true,
                        ["false"] => false,
                        _ => return Err(format!("{option}: write `{option}=true` or `{option}=false`")),
                    };
                    &mut wanted.options.exemplars
                }
                _ => return Err(format!("`{option}` is no option of {name}")),
            };
            *own = is_on;
        }
        Ok(wanted)
    }

    /// Whether it may be measured beside these; the error says why not.
    pub(super) fn fits(&self, others: &[Self]) -> Result<(), String> {
        let is_there = |kind| others.iter().any(|other| other.kind == kind);
        let rival = match self.kind {
            kind if is_there(kind) => return Err(format!("{} is there twice", kind.name())),
            Kind::Http => Kind::HttpV2,
            Kind::HttpV2 => Kind::Http,
            _ => return Ok(()),
        };
        if is_there(rival) {
            return Err(format!(
                "{} and {} have series of one name: leave out the one or the other",
                rival.name(),
                self.kind.name()
            ));
        }
        Ok(())
    }
}

/// What a flow is counted by.
pub(super) struct Count<'a> {
    /// Of the metric's own labels.
    pub(super) values: Values<'a>,
    pub(super) amount: Amount,
    /// The trace that it is an example of.
    pub(super) trace: Option<&'a str>,
    /// Whether the flow answers the one that is told.
    pub(super) is_turned: bool,
}

impl<'a> Count<'a> {
    /// Once.
    pub(super) fn of(values: Values<'a>) -> Self {
        Self { values, amount: Amount::Count(1), trace: None, is_turned: false }
    }
}

/// A metric that is measured.
pub(super) struct Plugin {
    wanted: Wanted,
    selector: Selector,
    pods: [bool; 2],
    /// As [`Kind::families`] has them.
    tables: Vec<Table>,
}

impl Plugin {
    pub(super) fn new(wanted: Wanted, node: NodeView) -> Self {
        let families = wanted.kind.families(wanted.options).iter();
        Self {
            selector: Selector::new(wanted.selection.filters().matcher(), node),
            pods: wanted.context.names_pods(),
            tables: families.map(|family| Table::new(*family, wanted.context.names())).collect(),
            wanted,
        }
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(super) fn tables_mut(&mut self) -> &mut [Table] {
        &mut self.tables
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

    fn count<'a>(&mut self, flow: &Flow<'a>, room: &mut Room) {
        let Self { wanted, pods, tables, .. } = self;
        let options = wanted.options;
        let give = |table: usize, mut count: Count<'a>| {
            wanted.context.values(flow, count.is_turned, &mut count.values);
            let mut ends = [flow.source, flow.destination];
            if count.is_turned {
                ends.reverse();
            }
            let named = [pods[0].then_some(&**ends[0]), pods[1].then_some(&**ends[1])];
            let example = count.trace.map(|trace| (trace, flow.time_ns));
            if let Some(table) = tables.get_mut(table) {
                table.add(count.values.as_slice(), count.amount, example, named, room);
            }
        };
        match wanted.kind {
            Kind::Dns => l7::dns(flow, options, give),
            Kind::Http => l7::http(flow, options, give),
            Kind::HttpV2 => l7::http_v2(flow, options, give),
            Kind::Tcp => tcp_flags(flow, give),
            kind => once(kind, options, flow, give),
        }
    }
}

fn tcp_flags<'a>(flow: &Flow<'a>, mut give: impl FnMut(usize, Count<'a>)) {
    let Some(flags) = store::tcp_flags(flow).filter(|_| is_forwarded(flow)) else { return };
    let is_set = |bit: u16| flags & bit != 0;
    for (flag, seen) in [
        ("FIN", is_set(0x01)),
        ("SYN", is_set(0x02) && !is_set(0x10)),
        ("SYN-ACK", is_set(0x02) && is_set(0x10)),
        ("RST", is_set(0x04)),
    ] {
        if seen {
            give(0, Count::of([Value::Text(flag), Value::Text(family(flow))].into_iter().collect()));
        }
    }
}

/// Metrics that count a flow in one series.
fn once<'a>(kind: Kind, options: Options, flow: &Flow<'a>, mut give: impl FnMut(usize, Count<'a>)) {
    let mut values = Values::new();
    if let Some(count) = own_values(kind, options, flow, &mut values) {
        give(0, Count { amount: Amount::Count(count), ..Count::of(values) });
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
            // Of what is said in a connection, too.
            text(l4_name(Some(l4)));
            let has_port = matches!(l4, L4::Tcp | L4::Udp | L4::Sctp);
            values.push(Value::Number(if has_port { flow.destination_port } else { 0 }));
        }
        _ => return None,
    }
    Some(1)
}

/// Cilium's reserved identity.
const HOST: u32 = 1;

fn is_forwarded(flow: &Record) -> bool {
    [Verdict::Forwarded as u8, Verdict::Redirected as u8].contains(&flow.verdict)
}

fn is_world(labels: &[Text]) -> bool {
    const WORLD: [&str; 3] = ["reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"];
    labels.iter().any(|label| WORLD.contains(&&**label))
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

fn protocol(flow: &Flow<'_>) -> &'static str {
    if flow.is_l7() { l7_name(flow).unwrap_or("Unknown L7") } else { l4_name(store::l4(flow)) }
}

fn l7_name(flow: &Flow<'_>) -> Option<&'static str> {
    let l7 = flow.l7?;
    let http = || l7.http().map(|_| "HTTP");
    l7.dns().map(|_| "DNS").or_else(http).or_else(|| l7.tls().map(|_| "TLS"))
}

fn l4_name(l4: Option<L4>) -> &'static str {
    match l4 {
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
        Record::L7_EVENT => ("L7", l7_name(flow).unwrap_or("")),
        _ => ("Unknown", ""),
    }
}
