//! Nodes, namespaces and peers for people.

use super::{
    sanitize::clean,
    status::uptime,
    table::{cell, columns},
};
use crate::{
    observer::{Namespace, Node},
    peer::ChangeNotification,
    relay::NodeState,
};
use std::fmt::{Result, Write};

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const NOT_AVAILABLE: &str = "N/A";

/// A row for each node, in the order given; `wide` with version, address and TLS.
pub fn nodes(nodes: &[Node], wide: bool, out: &mut impl Write) -> Result {
    let mut header = vec!["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"];
    if wide {
        header.extend(["VERSION", "ADDRESS", "TLS"]);
    }
    let mut rows = vec![header.into_iter().map(str::to_owned).collect()];
    rows.extend(nodes.iter().map(|node| row(node, wide)));
    columns(&rows, out)
}

fn row(node: &Node, wide: bool) -> Vec<String> {
    let state = match node.state() {
        NodeState::NodeConnected => "Connected",
        NodeState::NodeUnavailable => "Unavailable",
        NodeState::NodeGone => "Gone",
        NodeState::NodeError => "Error",
        NodeState::UnknownNodeState => "Unknown",
    };
    // Whole seconds, as they are shown, also go into the rate.
    let seconds = (node.uptime_ns.saturating_add(NANOS_PER_SECOND / 2)) / NANOS_PER_SECOND;
    let or_none = |shown: bool, text: String| if shown { text } else { NOT_AVAILABLE.to_owned() };
    let share = node.num_flows as f64 / node.max_flows as f64 * 100.0;
    let mut row = vec![
        cell(|out| clean(&node.name, out)),
        state.to_owned(),
        or_none(seconds > 0, uptime(seconds.saturating_mul(NANOS_PER_SECOND))),
        or_none(seconds > 0, format!("{:.2}", node.seen_flows as f64 / seconds as f64)),
        or_none(node.max_flows > 0, format!("{}/{} ({share:6.2}%)", node.num_flows, node.max_flows)),
    ];
    if wide {
        row.push(or_none(!node.version.is_empty(), cell(|out| clean(&node.version, out))));
        row.push(cell(|out| clean(&node.address, out)));
        let tls = node.tls.as_ref().map(|tls| if tls.enabled { "Enabled" } else { "Disabled" });
        row.push(tls.unwrap_or(NOT_AVAILABLE).to_owned());
    }
    row
}

/// A line for each namespace, in the order given; `wide` with the cluster.
pub fn namespaces(namespaces: &[Namespace], wide: bool, out: &mut impl Write) -> Result {
    let mut rows = vec![if wide {
        vec!["NAMESPACE".to_owned(), "CLUSTER".to_owned()]
    } else {
        vec!["NAMESPACE".to_owned()]
    }];
    rows.extend(namespaces.iter().map(|namespace| {
        let mut row = vec![cell(|out| clean(&namespace.namespace, out))];
        if wide && !namespace.cluster.is_empty() {
            row.push(cell(|out| clean(&namespace.cluster, out)));
        }
        row
    }));
    columns(&rows, out)
}

/// A peer that came, went or changed.
pub fn peer(change: &ChangeNotification, out: &mut impl Write) -> Result {
    let kind = crate::peer::ChangeNotificationType::try_from(change.r#type)
        .map_or_else(|_| change.r#type.to_string(), |kind| kind.as_str_name().to_owned());
    write!(out, "{kind:<12} ")?;
    clean(&change.address, out)?;
    out.write_char(' ')?;
    clean(&change.name, out)?;
    if let Some(tls) = &change.tls {
        out.write_str(" (TLS.ServerName: ")?;
        clean(&tls.server_name, out)?;
        out.write_char(')')?;
    }
    out.write_char('\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observer, peer};

    #[test]
    fn nodes_in_both_layouts() {
        let node = |name: &str, state: NodeState| Node {
            name: name.to_owned(),
            state: state as i32,
            ..Node::default()
        };
        let all = [
            Node {
                version: "1".into(),
                uptime_ns: 1_000_499_999_999,
                num_flows: 500,
                max_flows: 1000,
                seen_flows: 2000,
                address: "1.2.3.4".into(),
                tls: Some(observer::Tls { enabled: true, server_name: "x".into() }),
                ..node("foo", NodeState::NodeConnected)
            },
            node("bar", NodeState::NodeUnavailable),
            node("", NodeState::UnknownNodeState),
        ];
        let mut text = String::new();
        nodes(&all, false, &mut text).unwrap();
        let narrow = "NAME   STATUS        AGE      FLOWS/S   CURRENT/MAX-FLOWS\n\
                      foo    Connected     16m40s   2.00      500/1000 ( 50.00%)\n\
                      bar    Unavailable   N/A      N/A       N/A\n\
                      \x20      Unknown       N/A      N/A       N/A\n";
        assert_eq!(text, narrow);
        text.clear();
        nodes(&all[..2], true, &mut text).unwrap();
        let wide = "NAME   STATUS        AGE      FLOWS/S   CURRENT/MAX-FLOWS    VERSION   ADDRESS   TLS\n\
             foo    Connected     16m40s   2.00      500/1000 ( 50.00%)   1         1.2.3.4   Enabled\n\
             bar    Unavailable   N/A      N/A       N/A                  N/A                 N/A\n";
        assert_eq!(text, wide);
    }

    #[test]
    fn namespaces_and_peers() {
        let all = [("default", "shop"), ("", "a\u{1b}b")].map(|(cluster, namespace)| Namespace {
            cluster: cluster.to_owned(),
            namespace: namespace.to_owned(),
        });
        let mut text = String::new();
        namespaces(&all, false, &mut text).unwrap();
        namespaces(&all, true, &mut text).unwrap();
        assert_eq!(text, "NAMESPACE\nshop\na^[b\nNAMESPACE   CLUSTER\nshop        default\na^[b\n");
        text.clear();
        let mut change = ChangeNotification {
            name: "c/n1".into(),
            address: "1.2.3.4:4244".into(),
            r#type: peer::ChangeNotificationType::PeerAdded as i32,
            tls: None,
        };
        peer(&change, &mut text).unwrap();
        change.tls = Some(peer::Tls { server_name: "n1.x".into() });
        change.r#type = 9;
        peer(&change, &mut text).unwrap();
        assert_eq!(
            text,
            "PEER_ADDED   1.2.3.4:4244 c/n1\n9            1.2.3.4:4244 c/n1 (TLS.ServerName: n1.x)\n"
        );
    }
}
