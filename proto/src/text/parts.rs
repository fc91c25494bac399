//! The pieces of a flow's line. What was sent by others is escaped where it is written.

use super::{
    Options,
    foreign::{Foreign, Out},
    shown::{L7, L7Record, Shown},
};
use crate::{
    flow::{
        AuthType, DebugCapturePoint, Endpoint, Flow, L7FlowType, Policy, Service, TrafficDirection, Verdict,
        layer4::Protocol,
    },
    json::digits_of,
    names,
};
use std::{borrow::Cow, fmt::Result, slice};

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const MAGENTA: &str = "35";
const CYAN: &str = "36";

/// Writes something in a colour, if colours are wanted.
fn colored<W: Out>(
    options: Options,
    color: &str,
    out: &mut W,
    write: impl FnOnce(&mut W) -> Result,
) -> Result {
    if options.colors {
        write!(out, "\x1b[{color}m")?;
        write(out)?;
        out.write_str("\x1b[0m")
    } else {
        write(out)
    }
}

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl End {
    /// In a pair of what both ends have.
    fn place(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 1,
        }
    }

    pub(crate) fn endpoint(self, flow: &Flow) -> Option<&Endpoint> {
        match self {
            Self::Source => flow.source.as_ref(),
            Self::Destination => flow.destination.as_ref(),
        }
    }

    pub(crate) fn service(self, flow: &Flow) -> Option<&Service> {
        match self {
            Self::Source => flow.source_service.as_ref(),
            Self::Destination => flow.destination_service.as_ref(),
        }
    }

    pub(crate) fn port(self, flow: &Flow) -> u32 {
        let ports = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
            Some(Protocol::Tcp(tcp)) => (tcp.source_port, tcp.destination_port),
            Some(Protocol::Udp(udp)) => (udp.source_port, udp.destination_port),
            Some(Protocol::Sctp(sctp)) => (sctp.source_port, sctp.destination_port),
            _ => (0, 0),
        };
        match self {
            Self::Source => ports.0,
            Self::Destination => ports.1,
        }
    }
}

/// The name or address of one end and its port, not escaped yet; `None` where a flow has no address at all. A service's
/// namespace wins, but a pod's name does.
pub(crate) fn name<'a>(options: Options, flow: &Shown<'a>, end: End) -> Option<(Cow<'a, str>, u32)> {
    let (namespace, names) = parts_of_name(options, flow, end)?;
    let whole = match names {
        [name] if namespace.is_empty() => name.raw(),
        [name] => format!("{}/{}", namespace.raw(), name.raw()).into(),
        // Those of DNS, which have no namespace.
        _ => names.iter().map(|name| name.raw()).collect::<Vec<_>>().join(",").into(),
    };
    Some((whole, port(flow, end)))
}

fn port(flow: &Shown<'_>, end: End) -> u32 {
    if flow.ips.is_some() { flow.ports[end.place()] } else { 0 }
}

/// The namespace that stands before the name, and the name, or the names.
fn parts_of_name<'s, 'a>(
    options: Options,
    flow: &'s Shown<'a>,
    end: End,
) -> Option<(Foreign<'a>, &'s [Foreign<'a>])> {
    let end = end.place();
    let none = Foreign::default();
    let Some(ips) = &flow.ips else { return Some((none, slice::from_ref(&flow.macs.as_ref()?[end]))) };
    let (endpoint, service) = (&flow.endpoints[end], &flow.services[end]);
    if options.translate {
        let namespace = service.map_or(endpoint.namespace, |service| service.namespace);
        let service = service.as_ref().map(|service| &service.name);
        let names = [Some(&endpoint.pod_name), service];
        if let Some(name) = names.into_iter().flatten().find(|name| !name.is_empty()) {
            return Some((namespace, slice::from_ref(name)));
        }
        if !flow.dns_names[end].is_empty() {
            return Some((none, &flow.dns_names[end]));
        }
    }
    Some((none, slice::from_ref(&ips[end])))
}

/// The name or address of one end, with its port.
pub(super) fn host(options: Options, flow: &Shown<'_>, end: End, out: &mut impl Out) -> Result {
    let Some((namespace, names)) = parts_of_name(options, flow, end) else { return Ok(()) };
    named_in(options, namespace, names, port(flow, end), out)
}

/// A name with a port, unless that is 0; brackets tell the colons of an address from the one before the port.
pub(crate) fn named(options: Options, name: &str, port: u32, out: &mut impl Out) -> Result {
    named_in(options, Foreign::default(), &[name.into()], port, out)
}

fn named_in(
    options: Options,
    namespace: Foreign<'_>,
    names: &[Foreign<'_>],
    port: u32,
    out: &mut impl Out,
) -> Result {
    fn whole(namespace: Foreign<'_>, names: &[Foreign<'_>], out: &mut impl Out) -> Result {
        if !namespace.is_empty() {
            namespace.write(out)?;
            out.write_char('/')?;
        }
        for (at, name) in names.iter().enumerate() {
            if at > 0 {
                out.write_char(',')?;
            }
            name.write(out)?;
        }
        Ok(())
    }
    colored(options, CYAN, out, |out| {
        if port == 0 {
            return whole(namespace, names, out);
        }
        if namespace.has_colon() || names.iter().any(|name| name.has_colon()) {
            out.write_char('[')?;
            whole(namespace, names, out)?;
            out.write_str("]:")?;
        } else {
            whole(namespace, names, out)?;
            out.write_char(':')?;
        }
        colored(options, YELLOW, out, |out| decimal(port, out))
    })
}

/// As a formatter writes it, in less time than that takes to begin.
fn decimal(number: u32, out: &mut impl Out) -> Result {
    out.write_ascii(digits_of(number.into(), &mut [0; 20]))
}

/// `(ID:4001)`, or the name of a reserved identity; none is `(unknown)`.
pub(super) fn identity(options: Options, flow: &Shown<'_>, end: End, out: &mut impl Out) -> Result {
    let identity = flow.endpoints[end.place()].identity;
    colored(options, MAGENTA, out, |out| {
        if let Some(name) = names::reserved_identity_name(identity) {
            out.write_char('(')?;
            out.write_str(name)?;
        } else {
            out.write_str("(ID:")?;
            decimal(identity, out)?;
        }
        out.write_char(')')
    })
}

/// `http-request`, `dns-response` and the like.
pub(super) fn l7_type(l7: &L7<'_>, out: &mut impl Out) -> Result {
    out.write_str(match l7.record {
        L7Record::Dns(_) => "dns-",
        L7Record::Http => "http-",
        L7Record::Kafka => "kafka-",
        L7Record::None => "l7-",
    })?;
    match L7FlowType::try_from(l7.kind) {
        Ok(kind) => out.write_str(&kind.as_str_name().to_lowercase()),
        Err(_) => write!(out, "{}", l7.kind),
    }
}

/// What an end is that has an address and no name: `host`, `world` and the like. None where addresses were asked for.
pub(super) fn kind_of_address(options: Options, flow: &Shown<'_>, end: End) -> Option<&'static str> {
    let (endpoint, service) = (&flow.endpoints[end.place()], &flow.services[end.place()]);
    let has_name = !endpoint.pod_name.is_empty() || !flow.dns_names[end.place()].is_empty();
    let has_name = has_name || service.is_some_and(|service| !service.name.is_empty());
    let is_shown = flow.ips.is_some() && options.translate && !has_name && endpoint.identity != 0;
    names::reserved_identity_name(endpoint.identity).filter(|_| is_shown)
}

/// A word in the colour of an identity.
pub(super) fn kind_alone(options: Options, word: &str, out: &mut impl Out) -> Result {
    colored(options, MAGENTA, out, |out| out.write_str(word))
}

/// What kind of event it was.
pub(crate) fn event_type(flow: &Shown<'_>, out: &mut impl Out) -> Result {
    if let Some(l7) = &flow.l7 {
        l7_type(l7, out)?;
        if let L7Record::Dns(source) = l7.record {
            out.write_char(' ')?;
            source.write(out)?;
        }
        return Ok(());
    }
    match flow.event_type {
        names::EVENT_TRACE => match names::trace_point_name(flow.sub_type) {
            Some(name) => out.write_str(name),
            None => write!(out, "{}", flow.sub_type),
        },
        names::EVENT_DROP => match names::drop_reason_text(flow.sub_type) {
            Some(text) => out.write_str(text),
            // Hubble prints the number and an extended reason, which is always 0 here.
            None => write!(out, "{}, 0", flow.sub_type as u8),
        },
        names::EVENT_POLICY_VERDICT => {
            out.write_str("policy-verdict:")?;
            out.write_str(names::policy_match_name(flow.policy_match_type))?;
            out.write_char(' ')?;
            match TrafficDirection::try_from(flow.traffic_direction) {
                Ok(direction) => out.write_str(direction.as_str_name()),
                Err(_) => write!(out, "{}", flow.traffic_direction),
            }
        }
        names::EVENT_CAPTURE => capture_point(flow, out),
        names::EVENT_TRACE_SOCK => {
            // v1.20 moves the point into the event's subtype.
            let name = names::socket_point_name(flow.sock_xlate_point)
                .or_else(|| names::socket_point_name(flow.sub_type));
            out.write_str(name.unwrap_or("SOCK_XLATE_POINT_UNKNOWN"))
        }
        _ => out.write_str("UNKNOWN"),
    }
}

/// Where a packet was captured for debugging.
pub(super) fn capture_point(flow: &Shown<'_>, out: &mut impl Out) -> Result {
    match DebugCapturePoint::try_from(flow.debug_capture_point) {
        Ok(point) => out.write_str(point.as_str_name()),
        Err(_) => write!(out, "{}", flow.debug_capture_point),
    }
}

/// The verdict, in the words of a policy verdict where it is one, and the policies behind it if wanted.
pub(super) fn verdict(options: Options, flow: &Shown<'_>, out: &mut impl Out) -> Result {
    let mut text = verdict_word(flow);
    if options.policy_names {
        policies(flow, text.to_mut())?;
    }
    verdict_alone(options, &text, flow, out)
}

/// The verdict as a word.
pub(super) fn verdict_word(flow: &Shown<'_>) -> Cow<'static, str> {
    let is_policy = flow.event_type == names::EVENT_POLICY_VERDICT;
    let Ok(verdict) = Verdict::try_from(flow.verdict) else { return flow.verdict.to_string().into() };
    match verdict {
        Verdict::Forwarded | Verdict::Redirected if is_policy => "ALLOWED",
        Verdict::Dropped | Verdict::Error if is_policy => "DENIED",
        Verdict::Audit if is_policy => "AUDITED",
        _ => verdict.as_str_name(),
    }
    .into()
}

/// A word in the colour of the flow's verdict.
pub(super) fn verdict_alone(options: Options, word: &str, flow: &Shown<'_>, out: &mut impl Out) -> Result {
    let color = match Verdict::try_from(flow.verdict) {
        Ok(Verdict::Forwarded | Verdict::Redirected) => GREEN,
        Ok(Verdict::Dropped | Verdict::Error) => RED,
        Ok(Verdict::Audit | Verdict::Traced | Verdict::Translated) => YELLOW,
        Ok(Verdict::Unknown) | Err(_) => return out.write_str(word),
    };
    colored(options, color, out, |out| out.write_str(word))
}

/// The policies behind a verdict, of the allowing and the denying ones of each direction.
fn behind<'a, T>(direction: i32, verdict: i32, ingress: [&'a [T]; 2], egress: [&'a [T]; 2]) -> &'a [T] {
    let [allowed, denied] = match TrafficDirection::try_from(direction) {
        Ok(TrafficDirection::Ingress) => ingress,
        Ok(TrafficDirection::Egress) => egress,
        Ok(TrafficDirection::Unknown) | Err(_) => return &[],
    };
    match Verdict::try_from(verdict) {
        Ok(Verdict::Unknown) | Err(_) => &[],
        // v1.19 looks at the allowing policies of an audited flow, v1.20 at the denying ones.
        Ok(Verdict::Audit) if denied.is_empty() => allowed,
        Ok(Verdict::Dropped | Verdict::Error | Verdict::Audit) => denied,
        Ok(_) => allowed,
    }
}

/// The policies behind a flow's verdict.
pub(crate) fn deciding(flow: &Flow) -> &[Policy] {
    let ingress = [&flow.ingress_allowed_by[..], &flow.ingress_denied_by];
    let egress = [&flow.egress_allowed_by[..], &flow.egress_denied_by];
    behind(flow.traffic_direction, flow.verdict, ingress, egress)
}

/// ` BY name (Kind), name (Kind)`.
pub(super) fn policies(flow: &Shown<'_>, out: &mut impl Out) -> Result {
    let [ingress, egress] = [&flow.ingress, &flow.egress].map(|lists| [&lists.allowed[..], &lists.denied]);
    let list = behind(flow.traffic_direction, flow.verdict, ingress, egress);
    let mut separator = " BY ";
    for (name, kind) in list.iter().filter(|(name, kind)| !name.is_empty() && !kind.is_empty()) {
        out.write_str(separator)?;
        name.write(out)?;
        out.write_str(" (")?;
        kind.write(out)?;
        out.write_char(')')?;
        separator = ", ";
    }
    Ok(())
}

/// The Summary, with the IP trace id before and the authentication after it.
pub(super) fn summary(options: Options, flow: &Shown<'_>, out: &mut impl Out) -> Result {
    if flow.trace_id != 0 {
        write!(out, "IP Trace ID: {}; ", flow.trace_id)?;
    }
    flow.summary.write(out)?;
    if flow.auth_type == AuthType::Disabled as i32 {
        return Ok(());
    }
    out.write_str("; Auth: ")?;
    match AuthType::try_from(flow.auth_type) {
        Ok(kind) => {
            let color = if kind == AuthType::TestAlwaysFail { RED } else { GREEN };
            colored(options, color, out, |out| out.write_str(kind.as_str_name()))
        }
        Err(_) => colored(options, GREEN, out, |out| write!(out, "{}", flow.auth_type)),
    }
}
