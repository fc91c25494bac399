//! What Hubble has no field for, as a `google.protobuf.Struct`: the one type for which its clients need no descriptor.
//!
//! | key | value |
//! |---|---|
//! | `packets`, `bytes` | numbers: so far in this direction (flow), or that this record stands for (drop) |
//! | `first_seen` | RFC 3339 |
//! | `kernel_drop_reason` | the kernel's own name |
//! | `kernel_location` | `symbol+0xoffset`; where there is none, `kernel_location_unknown` says why |
//! | `tunnel` | `GRE` or `IP in IP`, which the flow's own field has no name for |
//! | `frontend` | `ip:port` of the service address that the client called |
//! | `retransmits`, `resets` | numbers: segments sent again by local sockets, RST segments seen |
//! | `opener_guessed`, `partial`, `fragment`, `connect_failed`, `sum`, `final` | `true` ([`Notes`] says what they mean) |
//!
//! Unknown and zero values are left out.

use super::wire;
use crate::flow::{Flow, Notes, TunnelKind};
use std::{io::Write as _, net::SocketAddr};

/// Fields of `google.protobuf.Value`.
mod value {
    pub(super) const NUMBER: u32 = 2;
    pub(super) const STRING: u32 = 3;
    pub(super) const BOOL: u32 = 4;
}

/// Appends the field `extensions`. Keys stand sorted, as maps are written by most libraries.
pub(super) fn write(out: &mut Vec<u8>, flow: &Flow) {
    let known = flow.packets != 0
        || flow.bytes != 0
        || flow.first_ns != 0
        || flow.frontend_ip.is_some()
        || flow.drop.is_some()
        || flow.notes != Notes::default()
        || flow.retransmits != 0
        || flow.resets != 0;
    if !known {
        return;
    }
    wire::nested(out, 150_000, |out| {
        wire::text(out, 1, "type.googleapis.com/google.protobuf.Struct");
        wire::nested(out, 2, |out| entries(out, flow));
    });
}

fn entries(out: &mut Vec<u8>, flow: &Flow) {
    let note = |out: &mut Vec<u8>, key, note| {
        if flow.notes.has(note) {
            entry(out, key, |out| wire::number(out, value::BOOL, 1));
        }
    };
    number(out, "bytes", flow.bytes);
    note(out, "connect_failed", Notes::CONNECT_FAILED);
    note(out, "final", Notes::FINAL);
    if flow.first_ns != 0 {
        entry(out, "first_seen", |out| wire::nested(out, value::STRING, |out| rfc3339(out, flow.first_ns)));
    }
    note(out, "fragment", Notes::FRAGMENT);
    if let Some(ip) = flow.frontend_ip {
        entry(out, "frontend", |out| {
            wire::nested(out, value::STRING, |out| {
                // Writing to a Vec can't fail.
                let _ = write!(out, "{}", SocketAddr::new(ip, flow.frontend_port));
            });
        });
    }
    if let Some(site) = &flow.drop {
        string(out, "kernel_drop_reason", &site.kernel_reason);
        match &site.location {
            Ok(location) => string(out, "kernel_location", location),
            Err(why) => string(out, "kernel_location_unknown", why),
        }
    }
    note(out, "opener_guessed", Notes::OPENER_GUESSED);
    number(out, "packets", flow.packets);
    note(out, "partial", Notes::PARTIAL);
    number(out, "resets", flow.resets.into());
    number(out, "retransmits", flow.retransmits.into());
    note(out, "sum", Notes::SUM);
    match flow.tunnel.as_ref().map(|tunnel| tunnel.kind) {
        Some(TunnelKind::Gre) => string(out, "tunnel", "GRE"),
        Some(TunnelKind::IpInIp) => string(out, "tunnel", "IP in IP"),
        _ => {}
    }
}

/// One entry of a Struct's map; `value` writes the field of `google.protobuf.Value`.
fn entry(out: &mut Vec<u8>, key: &str, value: impl FnOnce(&mut Vec<u8>)) {
    wire::nested(out, 1, |out| {
        wire::bytes(out, 1, key.as_bytes());
        wire::nested(out, 2, value);
    });
}

fn string(out: &mut Vec<u8>, key: &str, text: &str) {
    entry(out, key, |out| wire::bytes(out, value::STRING, text.as_bytes()));
}

/// A JSON number: exact up to 2^53.
fn number(out: &mut Vec<u8>, key: &str, number: u64) {
    if number != 0 {
        entry(out, key, |out| wire::double(out, value::NUMBER, number as f64));
    }
}

fn rfc3339(out: &mut Vec<u8>, time_ns: i64) {
    if let Ok(time) = jiff::Timestamp::from_nanosecond(time_ns.into()) {
        // Writing to a Vec can't fail.
        let _ = write!(out, "{time}");
    }
}
