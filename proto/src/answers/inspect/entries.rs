//! What stands in the maps: addresses, connections, and what policies decide.

use super::{Table, ago, bytes, interface, moment, text_or_dash};
use crate::{
    answers::table::Column,
    control::{InspectResponse, InspectedDirection, InspectedEnd, InspectedFlow, InspectedRule},
    text::status::grouped,
};

pub(super) fn addresses(answer: &InspectResponse) -> Table {
    let is_judged = answer.ipcache.iter().any(|address| address.peer.is_some());
    let mut columns = vec![
        Column::name("ADDRESS"),
        Column::word("KIND").rank(2),
        Column::name("NAME"),
        Column::number("IDENTITY").rank(1),
    ];
    if is_judged {
        columns.extend([Column::number("SUBJECT").rank(4), Column::number("PEER").rank(3)]);
    }
    columns.extend([
        Column::word("SOURCE").rank(5),
        Column::word("SINCE").rank(6),
        Column::name("LABELS").rank(7),
    ]);
    let rows = answer.ipcache.iter().map(|address| {
        let number = |number: Option<u32>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let mut row = vec![
            address.net.clone(),
            address.kind.clone(),
            text_or_dash(&address.name),
            address.identity.to_string(),
        ];
        if is_judged {
            row.extend([number(address.subject), number(address.peer)]);
        }
        let since = moment(address.since.as_ref());
        row.extend([text_or_dash(&address.source), text_or_dash(&since), address.labels.join(" ")]);
        row
    });
    Table::new(&columns, rows)
}

pub(super) fn flows(answer: &InspectResponse) -> Table {
    let columns = [
        Column::name("INTERFACE"),
        Column::word("PROTO").rank(4),
        Column::name("OPENER"),
        Column::name("RESPONDER"),
        Column::word("TCP FLAGS").rank(5),
        Column::number("SENT"),
        Column::number("BYTES").rank(3),
        Column::number("BACK"),
        Column::number("BYTES").rank(2),
        Column::number("AGE").rank(6),
        Column::number("IDLE").rank(1),
        Column::word("MARKS").rank(7),
    ];
    let no_direction = InspectedDirection::default();
    let rows = answer.flows.iter().map(|flow| {
        let sent = flow.sent.as_ref().unwrap_or(&no_direction);
        let received = flow.received.as_ref().unwrap_or(&no_direction);
        let is_tcp = flow.protocol == 6;
        let flags = || format!("{}/{}", flags(sent.tcp_flags), flags(received.tcp_flags));
        vec![
            interface(flow.index, &flow.interface),
            flow.protocol_name.clone(),
            end(flow.opener.as_ref()),
            end(flow.responder.as_ref()),
            if is_tcp { flags() } else { "-".to_owned() },
            grouped(sent.packets),
            bytes(sent.bytes),
            grouped(received.packets),
            bytes(received.bytes),
            ago(flow.first_seen.as_ref(), answer.time.as_ref()),
            ago(flow.last_seen.as_ref(), answer.time.as_ref()),
            text_or_dash(&marks(flow).join(", ")),
        ]
    });
    Table::new(&columns, rows)
}

/// The name, and the address where the name stands for many.
fn end(end: Option<&InspectedEnd>) -> String {
    let Some(InspectedEnd { address, port, name, service, .. }) = end else { return "-".to_owned() };
    let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    let port = if *port == 0 { String::new() } else { format!(":{port}") };
    if !service.is_empty() {
        return format!("service {service}{port}");
    }
    match name.as_str() {
        "" => format!("{address}{port}"),
        pod if pod.contains('/') => format!("{pod}{port}"),
        reserved => format!("{reserved} {address}{port}"),
    }
}

/// tcpdump's letters; `-` where no packet came.
fn flags(flags: u32) -> String {
    const LETTERS: [(u32, char); 8] =
        [(1, 'S'), (4, 'A'), (3, 'P'), (5, 'U'), (6, 'E'), (7, 'W'), (0, 'F'), (2, 'R')];
    let set: String =
        LETTERS.iter().filter(|(bit, _)| flags & (1 << bit) != 0).map(|(_, letter)| letter).collect();
    text_or_dash(&set)
}

fn marks(flow: &InspectedFlow) -> Vec<String> {
    let direction = |which: &Option<InspectedDirection>| which.unwrap_or_default();
    let (sent, received) = (direction(&flow.sent), direction(&flow.received));
    let mut marks = Vec::new();
    let mut mark = |is_set: bool, text: &str| {
        if is_set {
            marks.push(text.to_owned());
        }
    };
    mark(sent.denied || received.denied, "DENIED");
    mark(flow.guessed, "opener guessed");
    mark(flow.forwarded, "forwarded");
    mark(flow.resets > 0, "reset");
    mark(!sent.told && !received.told, "told elsewhere");
    if flow.tunneled {
        marks.push(format!("tunneled, id {}", flow.vni));
    }
    marks
}

pub(super) fn rules(answer: &InspectResponse) -> Table {
    let columns = [
        Column::name("SUBJECT"),
        Column::word("DIRECTION"),
        Column::name("PEER"),
        Column::word("PORTS"),
        Column::word("DECISION"),
        Column::name("POLICIES").rank(1),
        Column::number("RULES").rank(2),
    ];
    let rows = answer.policy.iter().map(|rule| {
        let peer =
            rule.peer.map_or_else(|| "all others".to_owned(), |peer| format!("{peer}: {}", rule.peer_name));
        vec![
            format!("{}: {}", rule.subject, rule.subject_name),
            rule.direction.clone(),
            peer,
            ports(rule),
            decision(rule),
            text_or_dash(&rule.policies.join(", ")),
            rule.rules.to_string(),
        ]
    });
    Table::new(&columns, rows)
}

fn decision(rule: &InspectedRule) -> String {
    match (rule.denied, rule.audit_denied, rule.by_rule) {
        (true, _, true) => "DENY by rule",
        (true, _, false) => "DENY",
        (false, true, _) => "AUDIT",
        (false, false, _) if rule.requests => "REQUESTS",
        (false, false, _) if rule.audit_requests => "AUDIT requests",
        (false, false, _) => "allow",
    }
    .to_owned()
}

fn ports(rule: &InspectedRule) -> String {
    let protocol = match rule.protocol {
        None => return "all".to_owned(),
        Some(1) => "ICMPv4".to_owned(),
        Some(6) => "TCP".to_owned(),
        Some(17) => "UDP".to_owned(),
        Some(58) => "ICMPv6".to_owned(),
        Some(132) => "SCTP".to_owned(),
        Some(other) => format!("protocol {other}"),
    };
    if let Some(last) = rule.last_protocol {
        return format!("protocols {}-{last}", rule.protocol());
    }
    match (rule.first_port, rule.last_port) {
        (Some(first), Some(last)) if first == last => format!("{first}/{protocol}"),
        (Some(first), Some(last)) => format!("{first}-{last}/{protocol}"),
        _ => protocol,
    }
}
