//! The server's status as Hubble's command line shows it.

use crate::numbers::grouped;
use observer_proto::observer::ServerStatusResponse;
use std::fmt::Write as _;

pub(super) fn text(status: &ServerStatusResponse) -> String {
    let mut out = String::from("Current/Max Flows: ");
    let used = match status.max_flows {
        0 => String::new(),
        max => format!(" ({:.2}%)", status.num_flows as f64 / max as f64 * 100.0),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}/{}{used}", grouped(status.num_flows), grouped(status.max_flows));
    let rate = if status.flows_rate > 0.0 {
        format!("{:.2}", status.flows_rate)
    } else if status.uptime_ns > 0 {
        format!("{:.2}", status.seen_flows as f64 / (status.uptime_ns as f64 / 1e9))
    } else {
        "N/A".to_owned()
    };
    let _ = writeln!(out, "Flows/s: {rate}");
    // Only a relay counts nodes.
    if let Some(connected) = status.num_connected_nodes {
        let unavailable = status.num_unavailable_nodes.unwrap_or(0);
        let _ =
            writeln!(out, "Connected Nodes: {connected}/{}", u64::from(connected) + u64::from(unavailable));
    }
    if let Some(unavailable) = status.num_unavailable_nodes.filter(|n| *n > 0) {
        let _ = writeln!(out, "Unavailable Nodes: {unavailable}");
        let mut names: Vec<&str> = status.unavailable_nodes.iter().map(String::as_str).collect();
        names.sort_unstable();
        for name in &names {
            let _ = writeln!(out, "  - {}", name.escape_debug());
        }
        let more = (unavailable as usize).saturating_sub(names.len());
        if more > 0 && !names.is_empty() {
            let _ = writeln!(out, "  and {more} more...");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_shows_its_nodes() {
        let status = ServerStatusResponse {
            num_flows: 8190,
            max_flows: 8190,
            flows_rate: 37.125,
            num_connected_nodes: Some(2),
            num_unavailable_nodes: Some(1),
            unavailable_nodes: vec!["default/n3".to_owned()],
            ..ServerStatusResponse::default()
        };
        assert_eq!(
            text(&status),
            "Current/Max Flows: 8,190/8,190 (100.00%)\nFlows/s: 37.12\nConnected Nodes: 2/3\nUnavailable Nodes: 1\n  - default/n3\n"
        );
    }

    #[test]
    fn a_daemon_shows_its_rate_from_what_it_has() {
        let status = ServerStatusResponse {
            num_flows: 5,
            max_flows: 4095,
            seen_flows: 30,
            uptime_ns: 4_000_000_000,
            ..ServerStatusResponse::default()
        };
        assert_eq!(text(&status), "Current/Max Flows: 5/4,095 (0.12%)\nFlows/s: 7.50\n");
        assert_eq!(text(&ServerStatusResponse::default()), "Current/Max Flows: 0/0\nFlows/s: N/A\n");
    }
}
