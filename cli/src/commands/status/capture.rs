//! The capture's status as tables: hooks, links, where every event went, the store.

use crate::table::table;
use observer_proto::{
    control::{
        CaptureStatusResponse, Counter, History, KubernetesResource, Link, Refusal, Server, counter::Kind,
        hook::State,
    },
    text::status::{counter_kind, grouped},
};
use std::{cmp::Ordering, fmt::Write as _, iter};

pub(super) fn text(status: &CaptureStatusResponse) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = write!(out, "Node {}, observer {}, kernel {}", status.node_name, status.version, status.kernel);
    if let Some(started) = status.started.and_then(|t| jiff::Timestamp::new(t.seconds, 0).ok()) {
        let _ = write!(out, ", since {started}");
    }
    out.push_str("\n\n");

    let hooks = status.hooks.iter().map(|hook| {
        let state = match hook.state() {
            State::Attached => "attached",
            State::Unavailable => "UNAVAILABLE",
            State::Disabled => "disabled",
            State::Unknown => "unknown",
        };
        vec![hook.name.clone(), state.to_owned(), hook.reason.clone()]
    });
    table(&mut out, &["HOOK", "STATE", "REASON"], 0..0, hooks);

    let links = status.links.iter().map(link_row);
    let titles =
        ["LINK", "KIND", "ENDPOINT", "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "OTHER PROGRAMS"];
    table(&mut out, &titles, 3..8, links);
    let mut notes = status.links.iter().flat_map(link_notes).peekable();
    if notes.peek().is_some() {
        table(&mut out, &["LINK", "NOTE"], 0..0, notes);
    }

    let unlinked = status.unlinked.iter().map(|pod| {
        let by = if pod.link.is_empty() { "-" } else { &pod.link };
        vec![pod.endpoint.clone(), pod.kind.clone(), by.to_owned(), pod.note.clone()]
    });
    if !status.unlinked.is_empty() {
        table(&mut out, &["POD WITHOUT A LINK", "KIND", "BY", "NOTE"], 0..0, unlinked);
    }

    let rows =
        stages(&status.counters).into_iter().flat_map(|(stage, counters)| stage_rows(stage, &counters));
    table(&mut out, &["STAGE", "EVENTS", "COUNT", "CAUSE"], 2..3, rows);

    match &status.store {
        Some(store) => {
            let oldest = store.oldest.and_then(|t| jiff::Timestamp::new(t.seconds, 0).ok());
            let since = oldest.map_or_else(String::new, |t| format!(", oldest of {t}"));
            let _ = writeln!(
                out,
                "Store: {} of {} flows, {} bytes{since}",
                grouped(store.flows),
                grouped(store.capacity),
                grouped(store.bytes)
            );
        }
        None => out.push_str("Store: no answer\n"),
    }
    if let Some(history) = &status.history {
        history_text(&mut out, history);
    }
    if !status.kubernetes.is_empty() {
        out.push('\n');
        let titles = ["KUBERNETES", "STATE", "OBJECTS", "AGE", "NOTE"];
        table(&mut out, &titles, 2..4, status.kubernetes.iter().map(resource_row));
    }
    if let Some(server) = &status.server {
        server_text(&mut out, server);
    }
    out
}

/// What is wrong with a resource is told as long as it is; that it was is counted.
fn resource_row(resource: &KubernetesResource) -> Vec<String> {
    let is_well = matches!(resource.state.as_str(), "synced" | "absent");
    let mut notes = Vec::new();
    if !is_well && !resource.error.is_empty() {
        notes.push(resource.error.clone());
    }
    for (count, what) in [
        (resource.failures, "failures"),
        (resource.lists.saturating_sub(1), "lists after the first"),
        (resource.malformed, "objects that can't be read"),
    ] {
        if count > 0 {
            notes.push(format!("{} {what}", grouped(count)));
        }
    }
    let state = if is_well { resource.state.clone() } else { resource.state.to_uppercase() };
    let age = format!("{:.0} s", resource.age_seconds);
    vec![resource.name.clone(), state, grouped(resource.objects), age, notes.join("; ")]
}

/// How far back the flows on the disk reach, and what is not as it should be.
fn history_text(out: &mut String, history: &History) {
    let oldest = history.oldest.and_then(|t| jiff::Timestamp::new(t.seconds, 0).ok());
    let since = oldest.map_or_else(String::new, |t| format!(", oldest of {t}"));
    let [flows, bytes, most] = [history.flows, history.bytes, history.max_bytes].map(grouped);
    let _ = writeln!(out, "History: {flows} flows, {bytes} of {most} bytes{since}");
    if history.suspended {
        let failures = grouped(history.failures);
        let _ = writeln!(out, "History: SUSPENDED: the disk takes nothing; tried {failures} times");
    }
    for (count, what) in [
        (history.recovered, "flows of an earlier run found unfinished and kept"),
        (history.removed, "flows removed, too many or too old"),
        (history.torn, "torn ends of files left out"),
        (history.damaged, "times that readers found something damaged"),
        (history.foreign_files, "files of another version or origin left alone"),
    ] {
        if count > 0 {
            let _ = writeln!(out, "History: {} {what}", grouped(count));
        }
    }
}

/// How Hubble's API is served: what is taken, the certificate, and what was refused.
fn server_text(out: &mut String, server: &Server) {
    let [connections, most_connections, streams, most_streams] =
        [server.connections, server.max_connections, server.streams, server.max_streams].map(grouped);
    let _ = writeln!(
        out,
        "Server: {connections} of {most_connections} connections, {streams} of {most_streams} flow streams"
    );
    if let Some(tls) = &server.tls {
        let clients = if tls.client_certificates { "clients show a certificate" } else { "any client" };
        let end = tls.expires.and_then(|time| jiff::Timestamp::new(time.seconds, 0).ok());
        let end = end.map_or_else(String::new, |end| format!(" on {end}"));
        let days = grouped(tls.expires_in_seconds.unsigned_abs() / 86_400);
        let expiry = if tls.expires_in_seconds < 0 {
            format!("EXPIRED {days} days ago{end}")
        } else {
            format!("certificate expires in {days} days{end}")
        };
        let _ = writeln!(
            out,
            "TLS: {clients}; {expiry}; reloaded {} times, {} failed",
            grouped(tls.reloads),
            grouped(tls.failed_reloads)
        );
        if !tls.problem.is_empty() {
            let _ = writeln!(out, "TLS: NOT RELOADED: {}", tls.problem.escape_debug());
        }
    }
    let rows = |what: &'static str, refusals: &[Refusal]| -> Vec<Vec<String>> {
        let row = |refusal: &Refusal| vec![what.to_owned(), grouped(refusal.count), refusal.reason.clone()];
        refusals.iter().map(row).collect()
    };
    let refused =
        [rows("connections", &server.refused_connections), rows("requests", &server.refused_requests)]
            .concat();
    if !refused.is_empty() {
        out.push('\n');
        table(out, &["REFUSED", "COUNT", "REASON"], 1..2, refused.into_iter());
    }
}

/// What is not as it should be.
fn link_notes(link: &Link) -> Vec<Vec<String>> {
    let note = |text: String| vec![format!("{}: {}", link.index, link.name), text];
    let problem = (!link.problem.is_empty()).then(|| note(format!("NOT ATTACHED: {}", link.problem)));
    let repairs = (link.repairs > 0)
        .then(|| note(format!("programs found to be off it and put on again {} times", link.repairs)));
    problem.into_iter().chain(repairs).collect()
}

fn link_row(link: &Link) -> Vec<String> {
    let endpoint = if link.endpoint.is_empty() { "-" } else { &link.endpoint };
    [format!("{}: {}", link.index, link.name), link.kind.clone(), endpoint.to_owned()]
        .into_iter()
        .chain(
            [
                link.received_packets,
                link.received_bytes,
                link.sent_packets,
                link.sent_bytes,
                u64::from(link.other_programs),
            ]
            .map(grouped),
        )
        .collect()
}

/// Counters by stage, in the server's order.
fn stages(counters: &[Counter]) -> Vec<(&str, Vec<&Counter>)> {
    let mut stages: Vec<(&str, Vec<&Counter>)> = Vec::new();
    for counter in counters {
        match stages.iter_mut().find(|(stage, _)| *stage == counter.stage) {
            Some((_, list)) => list.push(counter),
            None => stages.push((&counter.stage, vec![counter])),
        }
    }
    stages
}

/// A stage's counters, and whether they add up: made = delivered + lost, to the unit.
fn stage_rows(stage: &str, counters: &[&Counter]) -> Vec<Vec<String>> {
    let sum = |kind| counters.iter().filter(|c| c.kind() == kind).map(|c| u128::from(c.value)).sum::<u128>();
    let (made, delivered, lost) = (sum(Kind::Made), sum(Kind::Delivered), sum(Kind::Lost));
    let check = match made.cmp(&(delivered + lost)) {
        Ordering::Equal => "made = delivered + lost".to_owned(),
        // Counters are read one after another, so events on their way show here.
        Ordering::Greater => {
            format!(
                "{} made but neither delivered nor lost (on their way, or a fault)",
                made - delivered - lost
            )
        }
        Ordering::Less => format!("FAULT: {} more delivered or lost than made", delivered + lost - made),
    };
    counters
        .iter()
        .map(|counter| {
            let kind = counter_kind(counter.kind());
            vec![stage.to_owned(), kind.to_owned(), grouped(counter.value), counter.cause.clone()]
        })
        .chain(iter::once(vec![stage.to_owned(), "sum".to_owned(), String::new(), check]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_proto::control::{Hook, Store, Tls, Unlinked};

    fn counter(stage: &str, kind: Kind, cause: &str, value: u64) -> Counter {
        Counter { stage: stage.to_owned(), kind: kind as i32, cause: cause.to_owned(), value }
    }

    fn kubernetes() -> Vec<KubernetesResource> {
        vec![
            KubernetesResource {
                name: "pods".to_owned(),
                state: "stale".to_owned(),
                objects: 25_000,
                age_seconds: 72.4,
                error: "connection refused".to_owned(),
                failures: 12,
                lists: 1,
                malformed: 0,
            },
            KubernetesResource {
                name: "nodes".to_owned(),
                state: "synced".to_owned(),
                objects: 3,
                age_seconds: 4.6,
                error: "401 Unauthorized".to_owned(),
                lists: 2,
                ..KubernetesResource::default()
            },
        ]
    }

    #[test]
    fn all_parts_show_and_sums_are_checked() {
        let status = CaptureStatusResponse {
            node_name: "n1".to_owned(),
            version: "0.1.0".to_owned(),
            kernel: "6.12.0".to_owned(),
            hooks: vec![
                Hook { name: "flows: tcx".to_owned(), state: State::Attached as i32, reason: String::new() },
                Hook {
                    name: "drops".to_owned(),
                    state: State::Unavailable as i32,
                    reason: "no BTF".to_owned(),
                },
            ],
            links: vec![
                Link {
                    index: 7,
                    name: "veth\x1b1".to_owned(),
                    kind: "pod".to_owned(),
                    endpoint: "shop/web-0".to_owned(),
                    received_packets: 12_000,
                    repairs: 2,
                    ..Link::default()
                },
                Link {
                    index: 8,
                    name: "eth0".to_owned(),
                    kind: "uplink".to_owned(),
                    problem: "tcx: no room".to_owned(),
                    ..Link::default()
                },
            ],
            counters: vec![
                counter("capture", Kind::Made, "flows", 1000),
                counter("capture", Kind::Delivered, "flows ring", 990),
                counter("store", Kind::Made, "", 5),
                counter("capture", Kind::Lost, "flows ring", 10),
                counter("capture", Kind::Suppressed, "aggregation", 70),
                counter("store", Kind::Delivered, "", 6),
            ],
            store: Some(Store { flows: 6, capacity: 4095, bytes: 1200, oldest: None }),
            history: Some(History {
                flows: 7_000_000,
                bytes: 250_000_000,
                max_bytes: 1 << 30,
                oldest: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
                suspended: true,
                failures: 3,
                torn: 1,
                ..History::default()
            }),
            kubernetes: Vec::new(),
            server: Some(Server {
                connections: 3,
                max_connections: 1024,
                streams: 2,
                max_streams: 1000,
                refused_connections: vec![Refusal { reason: "no TLS".to_owned(), count: 1200 }],
                refused_requests: vec![Refusal { reason: "ResourceExhausted".to_owned(), count: 7 }],
                tls: Some(Tls {
                    client_certificates: true,
                    expires: Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 }),
                    expires_in_seconds: 89 * 86_400 + 5,
                    reloads: 2,
                    failed_reloads: 1,
                    problem: "/tls.key: no private key in it".to_owned(),
                }),
            }),
            ..CaptureStatusResponse::default()
        };
        let expected = "\
Node n1, observer 0.1.0, kernel 6.12.0

HOOK        STATE        REASON
flows: tcx  attached
drops       UNAVAILABLE  no BTF

LINK            KIND    ENDPOINT    RX PACKETS  RX BYTES  TX PACKETS  TX BYTES  OTHER PROGRAMS
7: veth\\u{1b}1  pod     shop/web-0      12,000         0           0         0               0
8: eth0         uplink  -                    0         0           0         0               0

LINK            NOTE
7: veth\\u{1b}1  programs found to be off it and put on again 2 times
8: eth0         NOT ATTACHED: tcx: no room

STAGE    EVENTS      COUNT  CAUSE
capture  made        1,000  flows
capture  delivered     990  flows ring
capture  lost           10  flows ring
capture  suppressed     70  aggregation
capture  sum                made = delivered + lost
store    made            5
store    delivered       6
store    sum                FAULT: 1 more delivered or lost than made

Store: 6 of 4,095 flows, 1,200 bytes
History: 7,000,000 flows, 250,000,000 of 1,073,741,824 bytes, oldest of 2023-11-14T22:13:20Z
History: SUSPENDED: the disk takes nothing; tried 3 times
History: 1 torn ends of files left out
Server: 3 of 1,024 connections, 2 of 1,000 flow streams
TLS: clients show a certificate; certificate expires in 89 days on 2027-01-15T08:00:00Z; reloaded 2 times, 1 failed
TLS: NOT RELOADED: /tls.key: no private key in it

REFUSED      COUNT  REASON
connections  1,200  no TLS
requests         7  ResourceExhausted

";
        assert_eq!(text(&status), expected);
    }

    #[test]
    fn pods_without_links_show_with_what_becomes_of_them() {
        let pod = |name: &str, kind: &str, link: &str| Unlinked {
            endpoint: name.to_owned(),
            kind: kind.to_owned(),
            link: link.to_owned(),
            note: format!("of {kind}"),
        };
        let unlinked = vec![pod("odd/mac", "macvlan", "eth0"), pod("odd/agent\x1b", "host", "")];
        let text = text(&CaptureStatusResponse { unlinked, ..CaptureStatusResponse::default() });
        let expected = "
POD WITHOUT A LINK  KIND     BY    NOTE
odd/mac             macvlan  eth0  of macvlan
odd/agent\\u{1b}     host     -     of host
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_is_followed_shows_with_what_is_wrong() {
        let text =
            text(&CaptureStatusResponse { kubernetes: kubernetes(), ..CaptureStatusResponse::default() });
        let expected = "
KUBERNETES  STATE   OBJECTS   AGE  NOTE
pods        STALE    25,000  72 s  connection refused; 12 failures
nodes       synced        3   5 s  1 lists after the first
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn an_empty_answer_says_so() {
        let text = text(&CaptureStatusResponse::default());
        for part in ["HOOK: none", "LINK: none", "STAGE: none", "Store: no answer"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
