//! What agent events, debug events and node states say, in every text layout.

use super::{
    Options,
    foreign::Out,
    sanitize::{clean, is_unsafe},
};
use crate::{
    flow::{
        AgentEvent, AgentEventType, DebugEvent, DebugEventType, Endpoint, EndpointRegenNotification,
        EndpointUpdateNotification, IpCacheNotification, LostEvent, LostEventSource,
        ServiceUpsertNotification, ServiceUpsertNotificationAddr, agent_event::Notification,
    },
    relay::{NodeState, NodeStatusEvent},
};
use std::fmt::Result;

/// Node names are cut at this many bytes; the first always prints.
const NODE_NAMES_LENGTH: usize = 50;

/// `2 nodes are unavailable: n2, n3` and the like.
pub(super) fn node_status(status: &NodeStatusEvent, out: &mut impl Out) -> Result {
    let count = status.node_names.len();
    match NodeState::try_from(status.state_change) {
        Ok(NodeState::NodeConnected) => write!(out, "Receiving flows from {count} nodes: ")?,
        Ok(NodeState::NodeUnavailable) => write!(out, "{count} nodes are unavailable: ")?,
        Ok(NodeState::NodeGone) => write!(out, "{count} nodes removed from cluster: ")?,
        Ok(NodeState::NodeError) => {
            out.write_str("Error ")?;
            quoted(&status.message, out)?;
            write!(out, " on {count} nodes: ")?;
        }
        Ok(NodeState::UnknownNodeState) | Err(_) => {
            write!(out, "unknown node status event {}: ", status.state_change)?;
        }
    }
    node_names(&status.node_names, out)
}

pub(super) fn node_names(names: &[String], out: &mut impl Out) -> Result {
    let mut length = 0;
    for (at, name) in names.iter().enumerate() {
        length += name.len() + ", ".len();
        if at > 0 && length > NODE_NAMES_LENGTH {
            return write!(out, " (and {} more)", names.len() - at);
        }
        if at > 0 {
            out.write_str(", ")?;
        }
        clean(name, out)?;
    }
    Ok(())
}

/// As Go's `%q` prints a string.
pub(super) fn quoted(text: &str, out: &mut impl Out) -> Result {
    out.write_char('"')?;
    for found in text.chars() {
        match found {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\u{7}' => out.write_str("\\a")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            '\u{b}' => out.write_str("\\v")?,
            '\0'..='\u{1f}' | '\u{7f}' => write!(out, "\\x{:02x}", u32::from(found))?,
            _ if !is_unsafe(found) => out.write_char(found)?,
            _ if u32::from(found) <= 0xffff => write!(out, "\\u{:04x}", u32::from(found))?,
            _ => write!(out, "\\U{:08x}", u32::from(found))?,
        }
    }
    out.write_char('"')
}

/// The name of an agent event's type.
pub(super) fn agent_type(event: &AgentEvent, out: &mut impl Out) -> Result {
    match AgentEventType::try_from(event.r#type) {
        Ok(kind) => out.write_str(kind.as_str_name()),
        Err(_) => write!(out, "{}", event.r#type),
    }
}

/// What an agent event says; `UNKNOWN` if it holds something else than its type promises.
#[expect(deprecated, reason = "older servers send service events")]
pub(super) fn agent(options: Options, event: &AgentEvent, out: &mut impl Out) -> Result {
    use AgentEventType as Type;
    let Some(notification) = &event.notification else { return out.write_str("UNKNOWN") };
    match (Type::try_from(event.r#type), notification) {
        (Ok(Type::AgentEventUnknown), Notification::Unknown(unknown)) => {
            out.write_str("type: ")?;
            clean(&unknown.r#type, out)?;
            out.write_str(", notification: ")?;
            clean(&unknown.notification, out)
        }
        (Ok(Type::AgentStarted), Notification::AgentStart(start)) => {
            out.write_str("start time: ")?;
            options.time.write(start.time.as_ref(), out)
        }
        (Ok(Type::PolicyUpdated | Type::PolicyDeleted), Notification::PolicyUpdate(policy)) => {
            labels("labels: ", &policy.labels, out)?;
            write!(out, ", revision: {}, count: {}", policy.revision, policy.rule_count)
        }
        (
            Ok(Type::EndpointRegenerateSuccess | Type::EndpointRegenerateFailure),
            Notification::EndpointRegenerate(endpoint),
        ) => regenerated(endpoint, out),
        (Ok(Type::EndpointCreated | Type::EndpointDeleted), Notification::EndpointUpdate(endpoint)) => {
            endpoint_update(endpoint, out)
        }
        (Ok(Type::IpcacheUpserted | Type::IpcacheDeleted), Notification::IpcacheUpdate(entry)) => {
            ipcache(entry, out)
        }
        (Ok(Type::ServiceUpserted), Notification::ServiceUpsert(service)) => service_upsert(service, out),
        (Ok(Type::ServiceDeleted), Notification::ServiceDelete(service)) => write!(out, "id: {}", service.id),
        _ => out.write_str("UNKNOWN"),
    }
}

fn labels(key: &str, labels: &[String], out: &mut impl Out) -> Result {
    write!(out, "{key}[")?;
    for (at, label) in labels.iter().enumerate() {
        if at > 0 {
            out.write_char(',')?;
        }
        clean(label, out)?;
    }
    out.write_char(']')
}

/// `, key: value`, left out when the value is empty.
fn optional(key: &str, value: &str, out: &mut impl Out) -> Result {
    if value.is_empty() {
        return Ok(());
    }
    write!(out, ", {key}: ")?;
    clean(value, out)
}

fn regenerated(endpoint: &EndpointRegenNotification, out: &mut impl Out) -> Result {
    write!(out, "id: {}", endpoint.id)?;
    labels(", labels: ", &endpoint.labels, out)?;
    optional("error", &endpoint.error, out)
}

fn endpoint_update(endpoint: &EndpointUpdateNotification, out: &mut impl Out) -> Result {
    write!(out, "id: {}", endpoint.id)?;
    optional("namespace", &endpoint.namespace, out)?;
    optional("pod name", &endpoint.pod_name, out)
}

/// The key number prints even when it is 0 (not encrypted).
fn ipcache(entry: &IpCacheNotification, out: &mut impl Out) -> Result {
    out.write_str("cidr: ")?;
    clean(&entry.cidr, out)?;
    write!(out, ", identity: {}", entry.identity)?;
    if let Some(old) = entry.old_identity {
        write!(out, ", old identity: {old}")?;
    }
    optional("host ip", &entry.host_ip, out)?;
    optional("old host ip", &entry.old_host_ip, out)?;
    write!(out, ", encrypt key: {}", entry.encrypt_key)
}

fn address(address: &ServiceUpsertNotificationAddr, out: &mut impl Out) -> Result {
    let brackets = address.ip.contains(':');
    if brackets {
        out.write_char('[')?;
    }
    clean(&address.ip, out)?;
    write!(out, "{}:{}", if brackets { "]" } else { "" }, address.port)
}

#[expect(deprecated, reason = "it is the field that servers with service events fill")]
fn service_upsert(service: &ServiceUpsertNotification, out: &mut impl Out) -> Result {
    write!(out, "id: {}", service.id)?;
    if let Some(frontend) = &service.frontend_address {
        out.write_str(", frontend: ")?;
        address(frontend, out)?;
    }
    if !service.backend_addresses.is_empty() {
        out.write_str(", backends: [")?;
        for (at, backend) in service.backend_addresses.iter().enumerate() {
            if at > 0 {
                out.write_char(',')?;
            }
            address(backend, out)?;
        }
        out.write_char(']')?;
    }
    optional("type", &service.r#type, out)?;
    optional("traffic policy", &service.traffic_policy, out)?;
    optional("namespace", &service.namespace, out)?;
    optional("name", &service.name, out)
}

/// `ns/pod (ID: 12)`, `reserved:host (ID: 1)`, `ID: 7` or `N/A`.
pub(super) fn debug_source(source: Option<&Endpoint>, out: &mut impl Out) -> Result {
    let Some(source) = source else { return out.write_str("N/A") };
    if !source.namespace.is_empty() && !source.pod_name.is_empty() {
        clean(&source.namespace, out)?;
        out.write_char('/')?;
        clean(&source.pod_name, out)?;
    } else if let [label] = source.labels.as_slice()
        && label.starts_with("reserved:")
    {
        clean(label, out)?;
    } else {
        return write!(out, "ID: {}", source.id);
    }
    write!(out, " (ID: {})", source.id)
}

/// The name of a debug event's type.
pub(super) fn debug_type(event: &DebugEvent, out: &mut impl Out) -> Result {
    match DebugEventType::try_from(event.r#type) {
        Ok(kind) => out.write_str(kind.as_str_name()),
        Err(_) => write!(out, "{}", event.r#type),
    }
}

/// The packet's mark, in hexadecimal.
pub(super) fn debug_mark(event: &DebugEvent, out: &mut impl Out) -> Result {
    match event.hash {
        Some(hash) => write!(out, "{hash:#x}"),
        None => out.write_str("N/A"),
    }
}

/// The processor's number, with two digits at least.
pub(super) fn debug_cpu(event: &DebugEvent, out: &mut impl Out) -> Result {
    match event.cpu {
        Some(cpu) => write!(out, "{cpu:02}"),
        None => out.write_str("N/A"),
    }
}

/// Where events were lost.
pub(super) fn lost_source(lost: &LostEvent, out: &mut impl Out) -> Result {
    match LostEventSource::try_from(lost.source) {
        Ok(source) => out.write_str(source.as_str_name()),
        Err(_) => write!(out, "{}", lost.source),
    }
}

/// `CPU(0) 12`, with the first and last time where one of them is known.
pub(super) fn lost_count(options: Options, lost: &LostEvent, dash: &str, out: &mut impl Out) -> Result {
    write!(out, "CPU({}){dash}{}", lost.cpu.unwrap_or_default(), lost.num_events_lost)?;
    lost_times(options, lost, out)
}

/// ` (first: <time>, last: <time>)` where one of them is known.
pub(super) fn lost_times(options: Options, lost: &LostEvent, out: &mut impl Out) -> Result {
    if lost.first.is_some() || lost.last.is_some() {
        out.write_str(" (first: ")?;
        options.time.write(lost.first.as_ref(), out)?;
        out.write_str(", last: ")?;
        options.time.write(lost.last.as_ref(), out)?;
        out.write_char(')')?;
    }
    Ok(())
}

/// The name of a node's new state.
pub(super) fn node_state(status: &NodeStatusEvent, out: &mut impl Out) -> Result {
    match NodeState::try_from(status.state_change) {
        Ok(state) => out.write_str(state.as_str_name()),
        Err(_) => write!(out, "{}", status.state_change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_nodes_are_cut() {
        let names = |count: usize| (0..count).map(|at| format!("node-{at:04}")).collect::<Vec<_>>();
        for (count, expected) in [
            (0, ""),
            (1, "node-0000"),
            (4, "node-0000, node-0001, node-0002, node-0003"),
            (6, "node-0000, node-0001, node-0002, node-0003 (and 2 more)"),
        ] {
            let mut text = String::new();
            node_names(&names(count), &mut text).unwrap();
            assert_eq!(text, expected);
        }
        let mut text = String::new();
        node_names(&["x".repeat(60), "y".into()], &mut text).unwrap();
        assert_eq!(text, format!("{} (and 1 more)", "x".repeat(60)));
    }

    #[test]
    fn messages_are_quoted() {
        let mut text = String::new();
        quoted("a\"b\\c\u{1}\n\u{1b}\u{2028}\u{e0001}é", &mut text).unwrap();
        assert_eq!(text, r#""a\"b\\c\x01\n\x1b\u2028\U000e0001é""#);
    }
}
