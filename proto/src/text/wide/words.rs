//! The type and the reason of a flow in words.

use super::{
    super::{
        Options,
        parts::{self, End},
        sanitize::clean,
        shown::{L7Record, Shown},
    },
    joined::path,
};
use crate::{
    facts::Facts,
    flow::{
        DropReason, Flow, Http, L7FlowType, Layer7, TraceReason, TrafficDirection, Verdict, layer7::Record,
    },
    names,
};
use std::fmt::{Result, Write};

/// What replaces parts of a type where the line is narrow.
const SHORT: [(&str, &str); 6] = [
    ("ESTABLISHED", "EST"),
    ("RELATED", "REL"),
    ("request", "req"),
    ("response", "res"),
    ("policy-verdict", "policy"),
    ("-xlate", ""),
];

/// `L4-NEW` and the like from the connection's state, `DROP`, `http-request`; else Hubble's name of the event.
pub(super) fn event_type(flow: &Flow, shown: &Shown<'_>, is_short: bool, out: &mut String) -> Result {
    let event = flow.event_type.unwrap_or_default();
    match (&shown.l7, event.r#type, flow.trace_reason()) {
        (Some(l7), ..) => {
            parts::l7_type(l7, out)?;
            // Hubble has no record of it.
            if l7.record == L7Record::None && Facts::of(flow).is_of_tls() {
                *out = out.replacen("l7", "tls", 1);
            }
        }
        (None, names::EVENT_DROP, TraceReason::Unknown) => out.write_str("DROP")?,
        (None, names::EVENT_TRACE | names::EVENT_DROP, reason) if reason != TraceReason::Unknown => {
            write!(out, "L4-{}", reason.as_str_name().replace('_', "-"))?;
        }
        (None, names::EVENT_POLICY_VERDICT, _) => out.write_str("policy-verdict")?,
        (None, names::EVENT_CAPTURE, _) => out.write_str("capture")?,
        _ => parts::event_type(shown, out)?,
    }
    if is_short {
        for (long, short) in SHORT {
            *out = out.replace(long, short);
        }
    }
    Ok(())
}

/// The first port that Linux gives to clients by itself (`ip_local_port_range`).
const EPHEMERAL: u32 = 32_768;

/// Whether this end is the client's, whose port says little. Where nobody tells, its port must look like one.
pub(crate) fn is_client(flow: &Flow, end: End) -> bool {
    match (flow.is_reply, end) {
        (Some(is_reply), End::Source) => !is_reply,
        (Some(is_reply), End::Destination) => is_reply,
        (None, End::Source) => End::Source.port(flow) >= EPHEMERAL.max(End::Destination.port(flow)),
        (None, End::Destination) => {
            End::Destination.port(flow) >= EPHEMERAL.max(End::Source.port(flow).saturating_add(1))
        }
    }
}

/// Why a packet was dropped, allowed or denied and where; then what the packet was. In short it says of
/// HTTP only what was asked.
pub(super) fn reason(
    options: Options,
    flow: &Flow,
    shown: &Shown<'_>,
    is_short: bool,
    out: &mut String,
) -> Result {
    let options = Options { colors: false, ..options };
    let event = flow.event_type.unwrap_or_default();
    let facts = Facts::of(flow);
    let mut summary = String::new();
    match flow.l7.as_ref().and_then(|l7| Some((l7, l7.record.as_ref()?))) {
        Some((l7, Record::Http(http))) if is_short => http_in_short(l7, http, &mut summary)?,
        _ => parts::summary(options, shown, &mut summary)?,
    }
    match event.r#type {
        // Says it by itself.
        names::EVENT_DROP if is_short && facts.kernel_reason == "NETFILTER_DROP" => {}
        names::EVENT_DROP if facts.is_by_firewall() => out.write_str("Firewall")?,
        // Hubble's word for whatever the kernel's rules, filters and programs refuse. Policies have no reason of the kernel.
        names::EVENT_DROP if !facts.kernel_reason.is_empty() && is_policys(event.sub_type) => {}
        names::EVENT_DROP => match names::drop_reason_text(event.sub_type) {
            Some(text) => out.write_str(text)?,
            None => write!(out, "reason {}", event.sub_type as u8)?,
        },
        names::EVENT_POLICY_VERDICT => {
            policy_verdict(options, flow, shown, out)?;
            return if summary.is_empty() { Ok(()) } else { write!(out, "; {summary}") };
        }
        names::EVENT_CAPTURE => parts::capture_point(shown, out)?,
        _ => {
            forwarded(options, shown, &facts, &summary, out)?;
            // In short it is only what was asked.
            return if is_short || options.policy_names { Ok(()) } else { refused(flow, out) };
        }
    }
    if !facts.kernel_reason.is_empty() {
        if !out.is_empty() {
            out.write_str(": ")?;
        }
        let start = out.len();
        clean(&facts.kernel_reason, out)?;
        // The summary says it again.
        if let Some(at) = summary.find(&format!("; {}", &out[start..])) {
            summary.truncate(at);
        }
    }
    match (facts.kernel_function(), flow.traffic_direction()) {
        ("", TrafficDirection::Ingress) => out.write_str(" at ingress")?,
        ("", TrafficDirection::Egress) => out.write_str(" at egress")?,
        ("", TrafficDirection::Unknown) => {}
        // Says it more exactly.
        (function, _) => {
            out.write_str(" in ")?;
            clean(function, out)?;
        }
    }
    if options.policy_names {
        parts::policies(shown, out)?;
    } else if !is_short {
        by(flow, out)?;
    }
    if facts.packets > 1 {
        write!(out, ", {} packets", facts.packets)?;
    }
    if summary.is_empty() { Ok(()) } else { write!(out, "; {summary}") }
}

/// Whether a drop's sub type is Hubble's for what a policy denies.
fn is_policys(sub_type: i32) -> bool {
    // As a byte, as Hubble reads it.
    sub_type as u8 == DropReason::PolicyDenied as i32 as u8
}

/// `GET /cart`, `200 GET /cart 4ms`.
fn http_in_short(l7: &Layer7, http: &Http, out: &mut String) -> Result {
    if http.code != 0 {
        write!(out, "{} ", http.code)?;
    }
    clean(&http.method, out)?;
    out.write_char(' ')?;
    clean(path(&http.url), out)?;
    if l7.r#type() == L7FlowType::Response {
        write!(out, " {}ms", l7.latency_ns / 1_000_000)?;
    }
    Ok(())
}

/// `Would be denied at egress: default deny by shop/web`; without a rule that matched it is the default.
fn policy_verdict(options: Options, flow: &Flow, shown: &Shown<'_>, out: &mut String) -> Result {
    let (word, denies) = match flow.verdict() {
        Verdict::Dropped | Verdict::Error => ("Denied", true),
        Verdict::Audit => ("Would be denied", true),
        _ => ("Allowed", false),
    };
    out.write_str(word)?;
    match flow.traffic_direction() {
        TrafficDirection::Ingress => out.write_str(" at ingress")?,
        TrafficDirection::Egress => out.write_str(" at egress")?,
        TrafficDirection::Unknown => {}
    }
    if denies && flow.policy_match_type == 0 {
        out.write_str(": default deny")?;
    }
    if options.policy_names { parts::policies(shown, out) } else { by(flow, out) }
}

/// ` by shop/web, default`: the policies that decided.
fn by(flow: &Flow, out: &mut String) -> Result {
    for (place, policy) in parts::deciding(flow).iter().enumerate() {
        out.write_str(if place == 0 { " by " } else { ", " })?;
        if !policy.namespace.is_empty() {
            clean(&policy.namespace, out)?;
            out.write_char('/')?;
        }
        clean(&policy.name, out)?;
    }
    Ok(())
}

/// `; refused by shop/web`, of a request. A packet's policies stand with its verdict.
fn refused(flow: &Flow, out: &mut String) -> Result {
    let word = match flow.verdict() {
        Verdict::Dropped => "; refused",
        Verdict::Audit => "; would be refused",
        _ => return Ok(()),
    };
    if flow.l7.is_none() || parts::deciding(flow).is_empty() {
        return Ok(());
    }
    out.write_str(word)?;
    by(flow, out)
}

/// What the packet was, and what went wrong with its connection so far.
fn forwarded(options: Options, flow: &Shown<'_>, facts: &Facts, summary: &str, out: &mut String) -> Result {
    if facts.connect_failed {
        out.write_str("Never answered; ")?;
    }
    out.write_str(summary)?;
    if facts.retransmits > 0 {
        write!(out, "; retransmits: {}", facts.retransmits)?;
    }
    if options.policy_names { parts::policies(flow, out) } else { Ok(()) }
}
