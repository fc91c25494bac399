//! The state of a server for people.

use super::{sanitize::clean, table::columns};
use crate::control::counter::Kind;
use crate::observer::ServerStatusResponse;
use std::fmt::{Result, Write};

const NANOS_PER_SECOND: f64 = 1e9;

/// The line above a status: whom was asked and what it answered, such as `Ok`.
pub fn healthcheck(target: &str, state: &str, out: &mut impl Write) -> Result {
    out.write_str("Healthcheck (via ")?;
    clean(target, out)?;
    out.write_str("): ")?;
    clean(state, out)?;
    out.write_char('\n')
}

/// The default layout: some lines, those about nodes only from a relay.
pub fn compact(status: &ServerStatusResponse, out: &mut impl Write) -> Result {
    write!(out, "Current/Max Flows: {}/{}", grouped(status.num_flows), grouped(status.max_flows))?;
    if status.max_flows > 0 {
        write!(out, " ({:.2}%)", status.num_flows as f64 * 100.0 / status.max_flows as f64)?;
    }
    out.write_str("\nFlows/s: ")?;
    if status.flows_rate > 0.0 {
        write!(out, "{:.2}", status.flows_rate)?;
    } else if status.uptime_ns > 0 {
        // An older server tells no rate: the mean since its start.
        let seconds = status.uptime_ns as f64 / NANOS_PER_SECOND;
        write!(out, "{:.2}", status.seen_flows as f64 / seconds)?;
    } else {
        out.write_str("N/A")?;
    }
    out.write_char('\n')?;
    if let Some(connected) = status.num_connected_nodes {
        write!(out, "Connected Nodes: {connected}")?;
        if let Some(unavailable) = status.num_unavailable_nodes {
            write!(out, "/{}", u64::from(connected) + u64::from(unavailable))?;
        }
        out.write_char('\n')?;
    }
    let unavailable = status.num_unavailable_nodes.unwrap_or(0);
    if unavailable > 0 {
        writeln!(out, "Unavailable Nodes: {unavailable}")?;
        let mut names: Vec<&str> = status.unavailable_nodes.iter().map(String::as_str).collect();
        names.sort_unstable();
        for name in &names {
            out.write_str("  - ")?;
            clean(name, out)?;
            out.write_char('\n')?;
        }
        let left = usize::try_from(unavailable).unwrap_or(usize::MAX).saturating_sub(names.len());
        if left > 0 && !names.is_empty() {
            writeln!(out, "  - and {left} more...")?;
        }
    }
    Ok(())
}

/// One line for each property.
pub fn dict(status: &ServerStatusResponse, out: &mut impl Write) -> Result {
    for ((_, key), value) in KEYS.iter().zip(values(status)) {
        writeln!(out, "{key:>19}: {value}")?;
    }
    Ok(())
}

/// A header and one row.
pub fn table(status: &ServerStatusResponse, out: &mut impl Write) -> Result {
    let header = KEYS.iter().map(|(column, _)| (*column).to_owned()).collect();
    columns(&[header, values(status).into()], out)
}

/// The names of the properties in the table and in the dict.
const KEYS: [(&str, &str); 8] = [
    ("NUM FLOWS", "NUM FLOWS"),
    ("MAX FLOWS", "MAX FLOWS"),
    ("SEEN FLOWS", "SEEN FLOWS"),
    ("FLOWS PER SECOND", "FLOWS PER SECOND"),
    ("UPTIME", "UPTIME"),
    ("NUM CONNECTED NODES", "NUM CONNECTED NODES"),
    ("NUM UNAVAILABLE NODES", "NUM UNAVAIL. NODES"),
    ("VERSION", "VERSION"),
];

fn values(status: &ServerStatusResponse) -> [String; 8] {
    let or_none = |number: Option<u32>| number.map_or_else(|| "N/A".to_owned(), |one| grouped(one.into()));
    let mut version = String::new();
    // Writing to a string can't fail.
    let _ = clean(&status.version, &mut version);
    [
        grouped(status.num_flows),
        grouped(status.max_flows),
        grouped(status.seen_flows),
        if status.flows_rate > 0.0 { format!("{:.2}", status.flows_rate) } else { "N/A".to_owned() },
        uptime(status.uptime_ns),
        or_none(status.num_connected_nodes),
        or_none(status.num_unavailable_nodes),
        version,
    ]
}

/// `1h2m5s`, in whole seconds, as Go prints a duration.
pub(super) fn uptime(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many there are of what one of is called so: `1 flow`, `1,234 flows`.
pub fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// What a counter of the capture's status counts, in a word.
pub fn counter_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Made => "made",
        Kind::Delivered => "delivered",
        Kind::Lost => "lost",
        Kind::Suppressed => "suppressed",
        Kind::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands() {
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (123_456, "123,456"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn an_empty_status_and_a_cut_list_of_nodes() {
        let mut text = String::new();
        compact(&ServerStatusResponse::default(), &mut text).unwrap();
        assert_eq!(text, "Current/Max Flows: 0/0\nFlows/s: N/A\n");
        let status = ServerStatusResponse {
            num_connected_nodes: Some(1),
            num_unavailable_nodes: Some(4),
            unavailable_nodes: vec!["b".into(), "a".into()],
            ..ServerStatusResponse::default()
        };
        text.clear();
        compact(&status, &mut text).unwrap();
        assert!(
            text.ends_with("Connected Nodes: 1/5\nUnavailable Nodes: 4\n  - a\n  - b\n  - and 2 more...\n")
        );
    }
}
