//! All about the flow under the cursor.

use super::{fact, flows, heading};
use crate::{
    line::{Line, Role},
    state::State,
};
use observer_proto::{
    Facts,
    flow::{Endpoint, Flow, Policy, layer7::Record},
    names,
    text::{Options, cells::Cells, status::grouped},
    time::TimeFormat,
};
use std::fmt::Write as _;

/// A heading and facts, a line each.
pub(crate) fn lines(state: &State) -> Vec<Line> {
    let Some((row, flow)) = flows::selected(state) else {
        return vec![Line::of(Role::Muted, " no flow is selected")];
    };
    let cells = Cells::of(Options::default(), &flow);
    let facts = Facts::of(&flow);
    let (_, role) = flows::verdict(&cells.verdict);
    let mut time = String::new();
    // Writing to a string can't fail.
    let _ = TimeFormat::Rfc3339Nano.write(row.time.as_ref(), &mut time);
    let title = heading(format!(" {}", cells.verdict)).with(role, format!("  {}", cells.reason));
    let mut lines = vec![title, fact("seen", format!("{time} on {}{}", cells.node, place(&flow)))];
    let ip = flow.ip.clone().unwrap_or_default();
    let ends = [
        ("from", &flow.source, &cells.source, &ip.source),
        ("to", &flow.destination, &cells.destination, &ip.destination),
    ];
    for (name, end, named, address) in ends {
        let text = named.fitted(usize::MAX);
        let address =
            if named.name == *address || address.is_empty() { String::new() } else { format!("  {address}") };
        lines.push(fact(name, format!("{text}{address}{}", of_end(end.as_ref()))));
    }
    lines.extend(trace(state, &flow.uuid));
    if let Some(service) = flow.destination_service.as_ref().or(flow.source_service.as_ref()) {
        let frontend =
            if facts.frontend.is_empty() { String::new() } else { format!("  {}", facts.frontend) };
        lines.push(fact("service", format!("{}/{}{frontend}", service.namespace, service.name)));
    }
    lines.extend(reason(&flow, &facts));
    lines.extend(policies(&flow));
    lines.extend(l7(&flow, &facts));
    if facts.known {
        // Writing to a string can't fail, here and below.
        let mut text = format!("{} packets, {} bytes", grouped(facts.packets), grouped(facts.bytes));
        for (count, what) in [(facts.retransmits, "sent again"), (facts.resets, "resets")] {
            if count > 0 {
                let _ = write!(text, ", {} {what}", grouped(count));
            }
        }
        if facts.connect_failed {
            text += ", never answered";
        }
        if !facts.first_seen.is_empty() {
            let _ = write!(text, " since {}", facts.first_seen);
        }
        lines.push(fact("so far", text));
    }
    for (name, end) in [("from labels", &flow.source), ("to labels", &flow.destination)] {
        let labels = end.as_ref().map(|end| end.labels.join(" ")).filter(|labels| !labels.is_empty());
        lines.extend(labels.map(|labels| fact(name, labels)));
    }
    if !flow.uuid.is_empty() {
        lines.push(fact("uuid", flow.uuid));
    }
    lines
}

/// What policies say, where it was asked of this flow.
fn trace(state: &State, uuid: &str) -> Vec<Line> {
    match state.trace.as_ref().filter(|trace| trace.uuid == uuid).map(|trace| &trace.told) {
        None => Vec::new(),
        Some(None) => vec![Line::of(Role::Muted, "  the daemon is asked what policies say of it")],
        Some(Some(Ok(text))) => text.lines().map(|line| Line::plain(format!("  {line}"))).collect(),
        Some(Some(Err(why))) => {
            vec![Line::of(Role::Muted, format!("  what policies say of it is not known: {why}"))]
        }
    }
}

fn place(flow: &Flow) -> String {
    let point = flow.event_type.unwrap_or_default();
    let point = names::trace_point_name(point.sub_type).filter(|_| point.r#type == names::EVENT_TRACE);
    let interface = flow.interface.as_ref().map(|link| match (link.name.as_str(), link.index) {
        ("", index) => format!(" at interface {index}"),
        (name, index) => format!(" at {name} ({index})"),
    });
    let reply = match flow.is_reply {
        Some(true) => ", a reply",
        Some(false) => "",
        None => ", direction not known",
    };
    format!(
        "{}{}{reply}",
        point.map(|point| format!(" {point}")).unwrap_or_default(),
        interface.unwrap_or_default()
    )
}

fn of_end(end: Option<&Endpoint>) -> String {
    let Some(end) = end else { return String::new() };
    let workload = end.workloads.first().map(|own| format!("  {} {}", own.kind, own.name));
    let identity = match names::reserved_identity_name(end.identity) {
        Some(name) if end.identity > 0 => format!("  identity {name}"),
        _ if end.identity > 0 => format!("  identity {}", end.identity),
        _ => String::new(),
    };
    format!("{}{identity}", workload.unwrap_or_default())
}

fn reason(flow: &Flow, facts: &Facts) -> Option<Line> {
    let name = names::drop_reason_name(flow.drop_reason_desc).filter(|_| flow.drop_reason_desc > 0);
    let kernel = Some(facts.kernel_reason.as_str()).filter(|reason| !reason.is_empty());
    let place = Some(facts.kernel_location.as_str()).filter(|place| !place.is_empty());
    // Beside the kernel's word Hubble's is only the nearest that it has.
    let why = match (kernel, name) {
        (Some(kernel), Some(name)) => format!("{kernel} (for Hubble {name})"),
        (word, None) | (None, word) => word?.to_owned(),
    };
    let place = place.map(|place| format!(", in {place}")).unwrap_or_default();
    Some(fact("why", format!("{why}{place}")))
}

fn policies(flow: &Flow) -> Vec<Line> {
    let named = |policy: &Policy| match policy.namespace.as_str() {
        "" => format!("{} {}", policy.kind, policy.name),
        namespace => format!("{} {namespace}/{}", policy.kind, policy.name),
    };
    let lists = [
        ("in allowed", &flow.ingress_allowed_by),
        ("in denied", &flow.ingress_denied_by),
        ("out allowed", &flow.egress_allowed_by),
        ("out denied", &flow.egress_denied_by),
    ];
    let told = lists.into_iter().filter(|(_, list)| !list.is_empty());
    told.map(|(name, list)| fact(name, list.iter().map(named).collect::<Vec<_>>().join(", "))).collect()
}

fn l7(flow: &Flow, facts: &Facts) -> Option<Line> {
    let l7 = flow.l7.as_ref()?;
    let time = match l7.latency_ns {
        0 => String::new(),
        nanos => format!(" after {:.1} ms", nanos as f64 / 1e6),
    };
    match &l7.record {
        Some(Record::Http(http)) => {
            let code = if http.code > 0 { format!(" {}", http.code) } else { String::new() };
            Some(fact("http", format!("{} {}{code}{time}", http.method, http.url)))
        }
        Some(Record::Dns(dns)) => {
            let ips = dns.ips.join(" ");
            Some(fact("dns", format!("{} {} {ips}{time}", dns.qtypes.join(","), dns.query)))
        }
        _ if facts.is_of_tls() => {
            let Facts { tls_version, tls_server_name, tls_alert, .. } = facts;
            let said = [tls_version, tls_alert, tls_server_name].map(String::as_str);
            let said: Vec<_> = said.into_iter().filter(|text| !text.is_empty()).collect();
            Some(fact("tls", format!("{}{time}", said.join(" "))))
        }
        _ => None,
    }
}
