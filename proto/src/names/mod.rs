//! The names that Hubble gives to numbers: drop reasons, event types, trace points, ICMP types, reserved identities.

mod drop_reasons;
mod icmp;

pub use icmp::{icmp_v4, icmp_v6};

use crate::flow::{DropReason, Verdict};

/// The text of a drop, by the `sub_type` of its event. Hubble looks at its lowest 8 bits only; `None` for a number
/// without a text, which prints as `250, 0`.
pub fn drop_reason_text(sub_type: i32) -> Option<&'static str> {
    let number = sub_type as u8;
    let at = drop_reasons::DROP_REASONS.binary_search_by_key(&number, |row| row.0).ok()?;
    Some(drop_reasons::DROP_REASONS[at].1)
}

/// The enum name of a drop reason, such as `POLICY_DENIED`; `None` for a number that the API does not have.
pub fn drop_reason_name(number: i32) -> Option<&'static str> {
    DropReason::try_from(number).ok().map(|reason| reason.as_str_name())
}

/// The enum name of a verdict, such as `FORWARDED`; `None` for a number that the API does not have.
pub fn verdict_name(number: i32) -> Option<&'static str> {
    Verdict::try_from(number).ok().map(|verdict| verdict.as_str_name())
}

/// `event_type.type` of a dropped packet.
pub const EVENT_DROP: i32 = 1;
/// `event_type.type` of a debug event, which is no flow.
pub const EVENT_DEBUG: i32 = 2;
/// `event_type.type` of a packet captured for debugging.
pub const EVENT_CAPTURE: i32 = 3;
/// `event_type.type` of a packet seen at a trace point.
pub const EVENT_TRACE: i32 = 4;
/// `event_type.type` of a policy verdict.
pub const EVENT_POLICY_VERDICT: i32 = 5;
/// `event_type.type` of an address translation at a socket.
pub const EVENT_TRACE_SOCK: i32 = 7;
/// `event_type.type` of a request or response of an application protocol.
pub const EVENT_L7: i32 = 129;
/// `event_type.type` of an event of the agent, which is no flow.
pub const EVENT_AGENT: i32 = 130;

/// Event types by the name that `observe --type` takes.
pub const EVENT_TYPES: &[(&str, i32)] = &[
    ("drop", EVENT_DROP),
    ("debug", EVENT_DEBUG),
    ("capture", EVENT_CAPTURE),
    ("trace", EVENT_TRACE),
    ("policy-verdict", EVENT_POLICY_VERDICT),
    ("trace-sock", EVENT_TRACE_SOCK),
    ("l7", EVENT_L7),
    ("agent", EVENT_AGENT),
];

/// The number of an event type's name; `None` for an unknown name.
pub fn event_type(name: &str) -> Option<i32> {
    by_name(EVENT_TYPES, name)
}

/// The name of an event type.
pub fn event_type_name(number: i32) -> Option<&'static str> {
    EVENT_TYPES.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// Trace points by name: `event_type.sub_type` of a trace event, where `to-endpoint` is 0.
/// The API's own `TraceObservationPoint` has the same numbers but 101 for `TO_ENDPOINT`.
pub const TRACE_POINTS: &[(&str, i32)] = &[
    ("to-endpoint", 0),
    ("to-proxy", 1),
    ("to-host", 2),
    ("to-stack", 3),
    ("to-overlay", 4),
    ("from-endpoint", 5),
    ("from-proxy", 6),
    ("from-host", 7),
    ("from-stack", 8),
    ("from-overlay", 9),
    ("from-network", 10),
    ("to-network", 11),
    ("from-crypto", 12),
    ("to-crypto", 13),
];

/// The `sub_type` of a trace point's name; `None` for an unknown name.
pub fn trace_point(name: &str) -> Option<i32> {
    by_name(TRACE_POINTS, name)
}

/// The name of a trace event's `sub_type`; `None` prints as the number.
pub fn trace_point_name(sub_type: i32) -> Option<&'static str> {
    by_number(TRACE_POINTS, sub_type)
}

/// Subtypes of agent events by name. These are the numbers of Cilium's monitor, not those of `AgentEventType`.
pub const AGENT_EVENTS: &[(&str, i32)] = &[
    ("unspecified", 0),
    ("message", 1),
    ("agent-started", 2),
    ("endpoint-regenerate-success", 3),
    ("endpoint-regenerate-failure", 4),
    ("policy-updated", 5),
    ("policy-deleted", 6),
    ("endpoint-created", 7),
    ("endpoint-deleted", 8),
    ("ipcache-upserted", 9),
    ("ipcache-deleted", 10),
    ("service-upserted", 11),
    ("service-deleted", 12),
];

/// The number of an agent event's name; `None` for an unknown name.
pub fn agent_event(name: &str) -> Option<i32> {
    by_name(AGENT_EVENTS, name)
}

/// Translation points of a socket event by number: `sock_xlate_point`, and `event_type.sub_type` since v1.20.
pub fn socket_point_name(number: i32) -> Option<&'static str> {
    match number {
        1 => Some("pre-xlate-fwd"),
        2 => Some("post-xlate-fwd"),
        3 => Some("pre-xlate-rev"),
        4 => Some("post-xlate-rev"),
        _ => None,
    }
}

/// What part of a policy a verdict matched, by `policy_match_type`.
pub fn policy_match_name(number: u32) -> &'static str {
    match number {
        0 => "none",
        1 => "L3-Only",
        2 => "L3-L4",
        3 => "L4-Only",
        4 => "all",
        5 => "L3-Proto",
        6 => "Proto-Only",
        _ => "unknown",
    }
}

/// Names of the reserved identities; the place is the number. 11 (overlay to encrypt) has none.
pub const RESERVED_IDENTITIES: &[&str] = &[
    "unknown",
    "host",
    "world",
    "unmanaged",
    "health",
    "init",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "world-ipv4",
    "world-ipv6",
];

/// The name of a reserved identity; `None` for every other number.
pub fn reserved_identity_name(identity: u32) -> Option<&'static str> {
    RESERVED_IDENTITIES.get(usize::try_from(identity).ok()?).copied()
}

/// The number of a reserved identity's name; `None` for an unknown name.
pub fn reserved_identity(name: &str) -> Option<u32> {
    RESERVED_IDENTITIES.iter().position(|known| *known == name).and_then(|at| u32::try_from(at).ok())
}

fn by_name(table: &[(&str, i32)], name: &str) -> Option<i32> {
    table.iter().find(|row| row.0 == name).map(|row| row.1)
}

fn by_number(table: &[(&'static str, i32)], number: i32) -> Option<&'static str> {
    table.iter().find(|row| row.1 == number).map(|row| row.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP_TABLE: &str = include_str!("../../../testdata/hubble-api/drop-reasons.tsv");

    #[test]
    fn drop_reasons_are_those_of_the_table() {
        let mut rows = 0;
        for line in DROP_TABLE.lines().skip(1) {
            let cells: Vec<&str> = line.split('\t').collect();
            let number: i32 = cells[0].parse().unwrap();
            assert_eq!(drop_reason_text(number), Some(cells[2]), "{line}");
            assert_eq!(drop_reason_name(number).unwrap_or("-"), cells[1], "{line}");
            rows += 1;
        }
        assert_eq!(rows, drop_reasons::DROP_REASONS.len());
        assert!(drop_reasons::DROP_REASONS.is_sorted_by_key(|row| row.0));
    }

    #[test]
    fn drop_reasons_count_modulo_256() {
        for (sub_type, text) in [
            (133, Some("Policy denied")),
            (389, Some("Policy denied")),
            (-123, Some("Policy denied")),
            (250, None),
            (1, None),
        ] {
            assert_eq!(drop_reason_text(sub_type), text, "{sub_type}");
        }
    }

    #[test]
    fn names_and_numbers_go_both_ways() {
        for (name, number) in TRACE_POINTS {
            assert_eq!(trace_point(name), Some(*number));
            assert_eq!(trace_point_name(*number), Some(*name));
        }
        assert_eq!(trace_point_name(14), None);
        assert_eq!(event_type("policy-verdict"), Some(5));
        assert_eq!(event_type("recorder"), None);
        for (number, name) in (0..).zip(RESERVED_IDENTITIES) {
            assert_eq!(reserved_identity(name), Some(number));
            assert_eq!(reserved_identity_name(number), Some(*name));
        }
        assert_eq!(reserved_identity_name(11), None);
    }
}
