//! Reads the values of the flags that are more than text.

use super::{
    go::{self, quote},
    reasons::drop_reason_number,
};
use crate::{
    flow::{EventTypeFilter, HttpHeader, IpVersion, TcpFlags, TrafficDirection, Verdict, Workload},
    names,
};

/// FIN in bit 0, then in the order of the message's fields.
pub(super) fn tcp_flag_bits(f: &TcpFlags) -> u16 {
    [f.fin, f.syn, f.rst, f.psh, f.ack, f.urg, f.ece, f.cwr, f.ns]
        .into_iter()
        .enumerate()
        .fold(0, |bits, (at, set)| bits | u16::from(set) << at)
}

pub(super) fn tcp_flags(value: &str) -> Result<TcpFlags, String> {
    let mut flags = TcpFlags::default();
    for name in value.split(',') {
        let flag = match name.to_ascii_uppercase().as_str() {
            "FIN" => &mut flags.fin,
            "SYN" => &mut flags.syn,
            "RST" => &mut flags.rst,
            "PSH" => &mut flags.psh,
            "ACK" => &mut flags.ack,
            "URG" => &mut flags.urg,
            "ECE" => &mut flags.ece,
            "CWR" => &mut flags.cwr,
            "NS" => &mut flags.ns,
            _ => return Err(format!("unknown tcp flag: {name}")),
        };
        *flag = true;
    }
    Ok(flags)
}

/// Anything that is no version is "no IP", as in Hubble.
pub(super) fn ip_version(value: &str) -> i32 {
    match value.to_ascii_lowercase().as_str() {
        "4" | "v4" | "ipv4" | "ip4" => IpVersion::IPv4 as i32,
        "6" | "v6" | "ipv6" | "ip6" => IpVersion::IPv6 as i32,
        _ => IpVersion::IpNotUsed as i32,
    }
}

pub(super) fn verdict(value: &str) -> Result<i32, String> {
    Verdict::from_str_name(value).map(|v| v as i32).ok_or_else(|| format!("invalid --verdict value: {value}"))
}

pub(super) fn drop_reason(value: &str) -> Result<i32, String> {
    if value.is_empty() {
        return Err("empty --drop-reason-desc value".to_owned());
    }
    drop_reason_number(value).ok_or_else(|| format!("invalid --drop-reason-desc value: {value}"))
}

pub(super) fn direction(value: &str) -> Result<i32, String> {
    match value.to_ascii_lowercase().as_str() {
        "ingress" => Ok(TrafficDirection::Ingress as i32),
        "egress" => Ok(TrafficDirection::Egress as i32),
        _ => Err(format!("{value}: invalid traffic direction, expected ingress or egress")),
    }
}

pub(super) fn http_header(value: &str) -> Result<HttpHeader, String> {
    let (key, value) = value
        .split_once(':')
        .ok_or_else(|| format!("invalid http-header value {}, expected name:value", quote(value)))?;
    Ok(HttpHeader { key: key.to_owned(), value: value.to_owned() })
}

pub(super) fn ip_trace_id(value: &str) -> Result<u64, String> {
    match go::parse_uint(value, 64) {
        Ok(0) => Err("invalid --ip-trace-id value; must be greater than 0".to_owned()),
        Ok(id) => Ok(id),
        Err(why) => Err(format!("invalid --ip-trace-id value: {why}")),
    }
}

/// `name`, `Kind/name` or `Kind/`.
pub(super) fn workload(value: &str) -> Workload {
    let (kind, name) = value.split_once('/').unwrap_or(("", value));
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

/// A number, or a reserved identity's name; the one named `unknown` can only be asked for as 0, as in Hubble.
pub(super) fn identity(value: &str) -> Result<u32, String> {
    if let Some(number) = go::parse_literal(value) {
        return Ok(number);
    }
    names::reserved_identity(value).filter(|number| *number != 0).ok_or_else(|| {
        // Hubble lists identity 11, which has no name there, by its number.
        format!(
            "invalid security identity, expected one of [{} 11] or a numeric value",
            names::RESERVED_IDENTITIES[1..].join(" ")
        )
    })
}

/// `TYPE` or `TYPE:SUB`, each by name or number.
pub(super) fn event_type(value: &str) -> Result<EventTypeFilter, String> {
    let (name, sub) = match value.split_once(':') {
        Some((name, sub)) => (name, Some(sub)),
        None => (value, None),
    };
    let by_number = |text: &str, what: &str, names: &str| {
        // 32 bits, wrapping: 4294967295 is -1, as in Hubble.
        go::parse_uint(text, 32).map(|n| n as u32 as i32).map_err(|why| {
            format!("unable to parse {what} '{text}', not a known {names} name and unable to parse as numeric value: {why}")
        })
    };
    let kind = match names::event_type(name) {
        Some(number) => number,
        None => by_number(name, "type", "type")?,
    };
    let Some(sub) = sub else { return Ok(EventTypeFilter { r#type: kind, ..EventTypeFilter::default() }) };
    let known = match kind {
        names::EVENT_TRACE => names::trace_point(sub),
        names::EVENT_AGENT => names::agent_event(sub),
        _ => None,
    };
    let sub_type = match known {
        Some(number) => number,
        None => by_number(sub, "event sub-type", "sub-type")?,
    };
    Ok(EventTypeFilter { r#type: kind, match_sub_type: true, sub_type })
}
