//! The pieces of a flow's line. What was sent by others is escaped where it is written.

use super::{Options, sanitize::clean};
use crate::{
    flow::{
        AuthType, DebugCapturePoint, Endpoint, Flow, L7FlowType, Layer7, Policy, Service, TrafficDirection,
        Verdict, layer4::Protocol, layer7::Record,
    },
    names,
};
use std::{
    borrow::Cow,
    fmt::{Result, Write},
};

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const MAGENTA: &str = "35";
const CYAN: &str = "36";

/// Writes something in a colour, if colours are wanted.
fn colored<W: Write>(
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

    fn dns_names(self, flow: &Flow) -> &[String] {
        match self {
            Self::Source => &flow.source_names,
            Self::Destination => &flow.destination_names,
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
pub(crate) fn name(options: Options, flow: &Flow, end: End) -> Option<(Cow<'_, str>, u32)> {
    let Some(ip) = &flow.ip else {
        let ethernet = flow.ethernet.as_ref()?;
        let address = match end {
            End::Source => &ethernet.source,
            End::Destination => &ethernet.destination,
        };
        return Some((address.into(), 0));
    };
    let address = match end {
        End::Source => &ip.source,
        End::Destination => &ip.destination,
    };
    let (endpoint, service) = (end.endpoint(flow), end.service(flow));
    let namespace = service
        .map(|service| service.namespace.as_str())
        .or(endpoint.map(|endpoint| endpoint.namespace.as_str()))
        .unwrap_or_default();
    let pod = endpoint.map(|endpoint| endpoint.pod_name.as_str()).filter(|name| !name.is_empty());
    let service = service.map(|service| service.name.as_str()).filter(|name| !name.is_empty());
    let dns = end.dns_names(flow);

    let name = match pod.or(service).filter(|_| options.translate) {
        Some(name) if namespace.is_empty() => name.into(),
        Some(name) => format!("{namespace}/{name}").into(),
        None if options.translate && !dns.is_empty() => dns.join(",").into(),
        None => address.into(),
    };
    Some((name, end.port(flow)))
}

/// The name or address of one end, with its port.
pub(super) fn host(options: Options, flow: &Flow, end: End, out: &mut impl Write) -> Result {
    match name(options, flow, end) {
        Some((name, port)) => named(options, &name, port, out),
        None => Ok(()),
    }
}

/// A name with a port, unless that is 0; brackets tell the colons of an address from the one before the port.
pub(crate) fn named(options: Options, name: &str, port: u32, out: &mut impl Write) -> Result {
    colored(options, CYAN, out, |out| {
        if port == 0 {
            return clean(name, out);
        }
        if name.contains(':') {
            out.write_char('[')?;
            clean(name, out)?;
            out.write_str("]:")?;
        } else {
            clean(name, out)?;
            out.write_char(':')?;
        }
        colored(options, YELLOW, out, |out| write!(out, "{port}"))
    })
}

/// `(ID:4001)`, or the name of a reserved identity; none is `(unknown)`.
pub(super) fn identity(options: Options, flow: &Flow, end: End, out: &mut impl Write) -> Result {
    let identity = end.endpoint(flow).map_or(0, |endpoint| endpoint.identity);
    colored(options, MAGENTA, out, |out| match names::reserved_identity_name(identity) {
        Some(name) => write!(out, "({name})"),
        None => write!(out, "(ID:{identity})"),
    })
}

/// `http-request`, `dns-response` and the like.
pub(super) fn l7_type(l7: &Layer7, out: &mut impl Write) -> Result {
    let protocol = match &l7.record {
        Some(Record::Dns(_)) => "dns",
        Some(Record::Http(_)) => "http",
        #[expect(deprecated, reason = "servers before v1.20 send it")]
        Some(Record::Kafka(_)) => "kafka",
        None => "l7",
    };
    write!(out, "{protocol}-")?;
    match L7FlowType::try_from(l7.r#type) {
        Ok(kind) => out.write_str(&kind.as_str_name().to_lowercase()),
        Err(_) => write!(out, "{}", l7.r#type),
    }
}

/// What an end is that has an address and no name: `host`, `world` and the like. None where addresses were asked for.
pub(super) fn kind_of_address(options: Options, flow: &Flow, end: End) -> Option<&'static str> {
    let endpoint = end.endpoint(flow)?;
    let has_name = !endpoint.pod_name.is_empty() || !end.dns_names(flow).is_empty();
    let has_name = has_name || end.service(flow).is_some_and(|service| !service.name.is_empty());
    let is_shown = flow.ip.is_some() && options.translate && !has_name && endpoint.identity != 0;
    names::reserved_identity_name(endpoint.identity).filter(|_| is_shown)
}

/// A word in the colour of an identity.
pub(super) fn kind_alone(options: Options, word: &str, out: &mut impl Write) -> Result {
    colored(options, MAGENTA, out, |out| out.write_str(word))
}

/// What kind of event it was.
pub(crate) fn event_type(flow: &Flow, out: &mut impl Write) -> Result {
    if let Some(l7) = &flow.l7 {
        l7_type(l7, out)?;
        if let Some(Record::Dns(dns)) = &l7.record {
            out.write_char(' ')?;
            clean(&dns.observation_source, out)?;
        }
        return Ok(());
    }
    let event = flow.event_type.unwrap_or_default();
    match event.r#type {
        names::EVENT_TRACE => match names::trace_point_name(event.sub_type) {
            Some(name) => out.write_str(name),
            None => write!(out, "{}", event.sub_type),
        },
        names::EVENT_DROP => match names::drop_reason_text(event.sub_type) {
            Some(text) => out.write_str(text),
            // Hubble prints the number and an extended reason, which is always 0 here.
            None => write!(out, "{}, 0", event.sub_type as u8),
        },
        names::EVENT_POLICY_VERDICT => {
            write!(out, "policy-verdict:{} ", names::policy_match_name(flow.policy_match_type))?;
            match TrafficDirection::try_from(flow.traffic_direction) {
                Ok(direction) => out.write_str(direction.as_str_name()),
                Err(_) => write!(out, "{}", flow.traffic_direction),
            }
        }
        names::EVENT_CAPTURE => capture_point(flow, out),
        names::EVENT_TRACE_SOCK => {
            // v1.20 moves the point into the event's subtype.
            let name = names::socket_point_name(flow.sock_xlate_point)
                .or_else(|| names::socket_point_name(event.sub_type));
            out.write_str(name.unwrap_or("SOCK_XLATE_POINT_UNKNOWN"))
        }
        _ => out.write_str("UNKNOWN"),
    }
}

/// Where a packet was captured for debugging.
pub(super) fn capture_point(flow: &Flow, out: &mut impl Write) -> Result {
    match DebugCapturePoint::try_from(flow.debug_capture_point) {
        Ok(point) => out.write_str(point.as_str_name()),
        Err(_) => write!(out, "{}", flow.debug_capture_point),
    }
}

/// The verdict, in the words of a policy verdict where it is one, and the policies behind it if wanted.
pub(super) fn verdict(options: Options, flow: &Flow, out: &mut impl Write) -> Result {
    let mut text = verdict_word(flow).into_owned();
    if options.policy_names {
        policies(flow, &mut text)?;
    }
    verdict_alone(options, &text, flow, out)
}

/// The verdict as a word.
pub(super) fn verdict_word(flow: &Flow) -> Cow<'static, str> {
    let is_policy = flow.event_type.is_some_and(|event| event.r#type == names::EVENT_POLICY_VERDICT);
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
pub(super) fn verdict_alone(options: Options, word: &str, flow: &Flow, out: &mut impl Write) -> Result {
    let color = match Verdict::try_from(flow.verdict) {
        Ok(Verdict::Forwarded | Verdict::Redirected) => GREEN,
        Ok(Verdict::Dropped | Verdict::Error) => RED,
        Ok(Verdict::Audit | Verdict::Traced | Verdict::Translated) => YELLOW,
        Ok(Verdict::Unknown) | Err(_) => return out.write_str(word),
    };
    colored(options, color, out, |out| out.write_str(word))
}

/// The policies behind a verdict.
pub(super) fn deciding(flow: &Flow) -> &[Policy] {
    let (allowed, denied) = match flow.traffic_direction() {
        TrafficDirection::Ingress => (&flow.ingress_allowed_by, &flow.ingress_denied_by),
        TrafficDirection::Egress => (&flow.egress_allowed_by, &flow.egress_denied_by),
        TrafficDirection::Unknown => return &[],
    };
    match flow.verdict() {
        Verdict::Unknown => &[],
        // v1.19 looks at the allowing policies of an audited flow, v1.20 at the denying ones.
        Verdict::Audit if denied.is_empty() => allowed,
        Verdict::Dropped | Verdict::Error | Verdict::Audit => denied,
        _ => allowed,
    }
}

/// ` BY name (Kind), name (Kind)`.
pub(super) fn policies(flow: &Flow, out: &mut impl Write) -> Result {
    let list = deciding(flow);
    let mut separator = " BY ";
    for policy in list.iter().filter(|policy| !policy.name.is_empty() && !policy.kind.is_empty()) {
        out.write_str(separator)?;
        clean(&policy.name, out)?;
        out.write_str(" (")?;
        clean(&policy.kind, out)?;
        out.write_char(')')?;
        separator = ", ";
    }
    Ok(())
}

/// The Summary, with the IP trace id before and the authentication after it.
pub(super) fn summary(options: Options, flow: &Flow, out: &mut impl Write) -> Result {
    if let Some(trace) = flow.ip_trace_id.filter(|trace| trace.trace_id != 0) {
        write!(out, "IP Trace ID: {}; ", trace.trace_id)?;
    }
    #[expect(deprecated, reason = "it is the field that every Hubble fills and prints")]
    clean(&flow.summary, out)?;
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
