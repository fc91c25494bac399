//! Policies in words.

use crate::{
    l7::{HttpRule, L7},
    model::{
        Block, GroupRef, ICMP, ICMPV6, Peers, PortClause, PortRule, Ports, Protocols, Reach, Rule, SCTP,
        Subject, TCP, Term, UDP,
    },
};
use std::fmt::Write as _;

/// The most entries of a rule that are told.
const MOST: usize = 50;
/// The most nets or requests that are told in one entry.
const MOST_WITHIN: usize = 5;

/// A protocol as people write it.
pub fn protocol(number: u8) -> String {
    match number {
        ICMP => "ICMP".into(),
        TCP => "TCP".into(),
        UDP => "UDP".into(),
        ICMPV6 => "ICMPv6".into(),
        SCTP => "SCTP".into(),
        other => format!("protocol {other}"),
    }
}

/// Whom a policy selects.
pub(crate) fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Pods(selector) if selector.0.is_empty() => "every pod".into(),
        Subject::Pods(selector) => format!("pods with {selector}"),
        Subject::Nodes(selector) if selector.0.is_empty() => "the node".into(),
        Subject::Nodes(selector) => format!("the node with {selector}"),
    }
}

/// The other ends that a rule is about.
pub(crate) fn peers(rule: &Rule) -> Vec<String> {
    match &rule.peers {
        Peers::Any => vec!["anybody".into()],
        Peers::Of(terms) if terms.is_empty() => vec!["nobody".into()],
        Peers::Of(terms) => bounded(terms.iter().map(term), MOST),
    }
}

fn term(term: &Term) -> String {
    match term {
        Term::Endpoints(selector) if selector.0.is_empty() => "every endpoint".into(),
        Term::Endpoints(selector) => selector.to_string(),
        Term::Block(Block { net, except, reach }) => {
            let outside = if *reach == Reach::World { " outside of the cluster" } else { "" };
            format!("{net}{}{outside}", but(except))
        }
        Term::Group(GroupRef::Name(name), except) => format!("CIDR group {name}{}", but(except)),
        Term::Group(GroupRef::Labels(selector), except) => {
            format!("CIDR groups with {selector}{}", but(except))
        }
        Term::Service(service) => {
            let namespace = service.namespace.as_deref().unwrap_or("any namespace");
            match &service.which {
                GroupRef::Name(name) => format!("pods of service {namespace}/{name}"),
                GroupRef::Labels(selector) => format!("pods of services in {namespace} with {selector}"),
            }
        }
        Term::Name(name) => format!("addresses of {} (toFQDNs)", name.0),
    }
}

fn but(except: &[ipnet::IpNet]) -> String {
    if except.is_empty() {
        return String::new();
    }
    format!(" but {}", bounded(except.iter().map(ToString::to_string), MOST_WITHIN).join(", "))
}

/// Protocols and ports of a rule, with requests.
pub(crate) fn ports(rule: &Rule) -> Vec<String> {
    match &rule.ports {
        None => vec!["every protocol and port".into()],
        Some(entries) if entries.iter().all(|entry| entry.ports.is_empty()) => vec!["no port".into()],
        Some(entries) => bounded(
            entries.iter().flat_map(|entry| {
                let requests = entry.l7.as_ref().map_or_else(String::new, |l7| format!(", {}", requests(l7)));
                entry.ports.iter().map(move |clause| format!("{}{requests}", port(clause)))
            }),
            MOST,
        ),
    }
}

/// One clause of ports.
pub(crate) fn port(clause: &PortClause) -> String {
    let icmp = matches!(clause.protocols, Protocols::One(ICMP | ICMPV6));
    let name = match clause.protocols {
        Protocols::WithPorts => "TCP, UDP, SCTP".into(),
        Protocols::One(number) => protocol(number),
    };
    match &clause.ports {
        Ports::All => name,
        Ports::Range(first, last) if icmp && first == last => format!("{name} type {first}"),
        Ports::Range(first, last) if first == last => format!("{first}/{name}"),
        Ports::Range(first, last) => format!("{first}-{last}/{name}"),
        Ports::Named(port) => format!("{port}/{name}"),
    }
}

/// The requests of an entry of ports.
pub(crate) fn entry_requests(entry: &PortRule) -> String {
    entry.l7.as_ref().map(requests).unwrap_or_default()
}

fn requests(l7: &L7) -> String {
    match l7 {
        L7::Http(rules) => bounded(rules.iter().map(http), MOST_WITHIN).join("; "),
        L7::Dns(names) => {
            let names = names.iter().map(|name| format!("DNS {name}"));
            bounded(names, MOST_WITHIN).join("; ")
        }
    }
}

fn http(rule: &HttpRule) -> String {
    let mut text = String::from("HTTP");
    for (name, pattern) in [("", &rule.method), ("", &rule.path), ("host ", &rule.host)] {
        if let Some(pattern) = pattern {
            // Writing to a String can't fail, here and below.
            let _ = write!(text, " {name}{pattern}");
        }
    }
    for (name, value) in &rule.headers {
        let _ = match value {
            Some(value) => write!(text, " {name}: {value}"),
            None => write!(text, " with {name}"),
        };
    }
    text
}

fn bounded(texts: impl Iterator<Item = String>, most: usize) -> Vec<String> {
    let mut texts = texts.peekable();
    let mut kept: Vec<String> = texts.by_ref().take(most).collect();
    let more = texts.count();
    if more > 0 {
        kept.push(format!("and {more} more"));
    }
    kept
}
