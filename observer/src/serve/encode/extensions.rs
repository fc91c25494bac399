//! What Hubble has no field for, as a `google.protobuf.Struct`: the one type for which its clients need no descriptor.
//!
//! | key | value |
//! |---|---|
//! | `packets`, `bytes` | numbers: so far in this direction (flow), or that this record stands for (drop) |
//! | `first_seen` | RFC 3339 |
//! | `kernel_drop_reason` | the kernel's own name; not where policies deny the packet |
//! | `kernel_location` | `symbol+0xoffset`; where there is none, `kernel_location_unknown` says why |
//! | `tunnel` | `GRE` or `IP in IP`, which the flow's own field has no name for |
//! | `frontend` | `ip:port` of the service address that the client called |
//! | `retransmits`, `resets` | numbers: segments sent again by local sockets, RST segments seen |
//! | `tls_version` | of a client's hello the highest version that it knows, of a server's the one that it chose: `TLS 1.3` |
//! | `tls_server_name`, `tls_alert` | whom the client asked for; why the server did not go on: `handshake_failure` |
//! | `opener_guessed`, `partial`, `fragment`, `connect_failed`, `sum`, `final` | `true` ([`Notes`] says what they mean) |
//!
//! Unknown and zero values are left out.

use super::{seconds_and_nanos, text};
use crate::flow::{Flow, Notes, TunnelKind};
use observer_proto::json::Calendar;

/// The type's name in a `google.protobuf.Any`.
pub(super) const TYPE_URL: &str = "type.googleapis.com/google.protobuf.Struct";

/// One of the two forms of a Struct.
pub(super) trait Entries {
    /// A number; 0 is left out.
    fn number(&mut self, key: &'static str, number: u64);
    /// `true`.
    fn yes(&mut self, key: &'static str);
    /// Any text.
    fn text(&mut self, key: &'static str, text: &str);
    /// A text of characters that need no escape anywhere, and of fewer than 100 bytes.
    fn plain(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>));
}

/// Whether there is anything to tell.
pub(super) fn has_any(flow: &Flow<'_>) -> bool {
    flow.packets != 0
        || flow.bytes != 0
        || flow.first_ns != 0
        || flow.frontend().is_some()
        || flow.drop.is_some_and(|site| !site.is_by_policies())
        || flow.notes != Notes::default()
        || flow.retransmits != 0
        || flow.resets != 0
        || flow.l7.is_some_and(|l7| l7.tls().is_some())
}

/// The entries with their keys sorted: so JSON has them, and so most libraries write a map.
#[inline]
pub(super) fn write(flow: &Flow<'_>, calendar: &mut Calendar, to: &mut impl Entries) {
    to.number("bytes", flow.bytes);
    note(flow, Notes::CONNECT_FAILED, "connect_failed", to);
    note(flow, Notes::FINAL, "final", to);
    if flow.first_ns != 0 {
        to.plain("first_seen", |out| {
            let (seconds, nanos) = seconds_and_nanos(flow.first_ns);
            // Nanoseconds in 64 bits reach from 1677 to 2262.
            let _ = calendar.write(seconds, nanos, out);
        });
    }
    note(flow, Notes::FRAGMENT, "fragment", to);
    if let Some((ip, port)) = flow.frontend() {
        to.plain("frontend", |out| text::socket(out, ip, port));
    }
    if let Some(site) = flow.drop.filter(|site| !site.is_by_policies()) {
        to.text("kernel_drop_reason", &site.kernel_reason);
        match &site.location {
            Ok(location) => to.text("kernel_location", location),
            Err(why) => to.text("kernel_location_unknown", why),
        }
    }
    note(flow, Notes::OPENER_GUESSED, "opener_guessed", to);
    to.number("packets", flow.packets);
    note(flow, Notes::PARTIAL, "partial", to);
    to.number("resets", flow.resets.into());
    to.number("retransmits", flow.retransmits.into());
    note(flow, Notes::SUM, "sum", to);
    if let Some(tls) = flow.l7.and_then(|l7| l7.tls()) {
        for (key, text) in [("tls_alert", tls.alert.as_deref()), ("tls_server_name", Some(&*tls.server_name))]
            .into_iter()
            .chain([("tls_version", tls.version)])
        {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                to.text(key, text);
            }
        }
    }
    match flow.tunnel.map(|tunnel| tunnel.kind) {
        Some(TunnelKind::Gre) => to.text("tunnel", "GRE"),
        Some(TunnelKind::IpInIp) => to.text("tunnel", "IP in IP"),
        _ => {}
    }
}

fn note(flow: &Flow<'_>, note: Notes, key: &'static str, to: &mut impl Entries) {
    if flow.notes.has(note) {
        to.yes(key);
    }
}
