//! Metrics of the daemon itself: what is attached, counted and lost, and how full what has a bound is.

use super::page::Page;
use crate::export::{Board, Operation};
use observer_proto::{
    control::{CaptureStatusResponse, Server, hook::State},
    text::status::counter_kind,
};

/// What the capture's status tells.
pub(super) fn capture(page: &mut Page, status: &CaptureStatusResponse) {
    page.counter("observer_events_total", "Events by stage: made = delivered + lost; suppressed are others.");
    let is_waiting = |cause: &str| cause.starts_with("waiting");
    for counter in status.counters.iter().filter(|counter| !is_waiting(&counter.cause)) {
        let kind = counter_kind(counter.kind());
        page.sample(&[("stage", &counter.stage), ("kind", kind), ("cause", &counter.cause)], counter.value);
    }
    page.gauge("observer_events_waiting", "Events that wait within a stage now.");
    for counter in status.counters.iter().filter(|counter| is_waiting(&counter.cause)) {
        page.sample(&[("stage", &counter.stage)], counter.value);
    }
    page.gauge(
        "observer_hook_attached",
        "Whether this hook is attached: 0 where the kernel does not allow it.",
    );
    for hook in &status.hooks {
        page.sample(&[("hook", &hook.name)], u8::from(hook.state() == State::Attached));
    }
    page.gauge("observer_link_attached", "Whether the flow programs are on this link.");
    for link in &status.links {
        page.sample(&[("link", &link.name), ("kind", &link.kind)], u8::from(link.problem.is_empty()));
    }
    page.counter("observer_link_repairs_total", "Times that others had taken the programs off this link.");
    for link in &status.links {
        page.sample(&[("link", &link.name)], link.repairs);
    }
}

/// How the server does.
pub(super) fn server(page: &mut Page, server: &Server) {
    for (name, help, value) in [
        ("observer_connections", "Connections of clients now.", server.connections),
        ("observer_connections_limit", "Connections that there may be.", server.max_connections),
        ("observer_streams", "Streams of flows now.", server.streams),
        ("observer_streams_limit", "Streams that there may be.", server.max_streams),
    ] {
        page.gauge(name, help);
        page.sample(&[], value);
    }
    page.counter("observer_connections_refused_total", "Connections refused or cut off, by reason.");
    for refusal in &server.refused_connections {
        page.sample(&[("reason", &refusal.reason)], refusal.count);
    }
    page.counter("observer_requests_refused_total", "Requests answered by an error, by gRPC's code.");
    for refusal in &server.refused_requests {
        page.sample(&[("code", &refusal.reason)], refusal.count);
    }
    if let Some(tls) = &server.tls {
        page.gauge("observer_tls_expires_in_seconds", "Time until the certificate expires.");
        page.sample(&[], tls.expires_in_seconds);
        page.counter("observer_tls_reloads_total", "Times that changed files of TLS were taken, or refused.");
        page.sample(&[("result", "taken")], tls.reloads);
        page.sample(&[("result", "refused")], tls.failed_reloads);
    }
}

/// How exporters do; under Hubble's names what Hubble has.
pub(super) fn exports(page: &mut Page, board: &Board) {
    let exporters = board.exporters();
    if exporters.is_empty() && board.applied().is_none() {
        return;
    }
    page.gauge("hubble_dynamic_exporter_exporters_total", "Exporters configured.");
    let active = exporters.iter().filter(|(_, counts)| counts.active).count();
    page.sample(&[("status", "active")], active);
    page.sample(&[("status", "inactive")], exporters.len() - active);
    page.gauge("hubble_dynamic_exporter_up", "Whether the exporter has not come to its end.");
    for (name, counts) in &exporters {
        page.sample(&[("name", name)], u8::from(counts.active));
    }
    page.counter("hubble_dynamic_exporter_reconfigurations_total", "Changes of exporters.");
    for operation in Operation::ALL {
        page.sample(&[("op", operation.name())], board.operations(operation));
    }
    if let Some((hash, applied)) = board.applied() {
        page.gauge("hubble_dynamic_exporter_config_hash", "Checksum of the configuration in force.");
        page.sample(&[], hash);
        page.gauge("hubble_dynamic_exporter_config_last_applied", "When it was taken, Unix seconds.");
        page.sample(&[], applied);
    }
    page.gauge("observer_export_suspended", "Whether the exporter's disk takes nothing.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name)], u8::from(counts.suspended));
    }
    page.counter("observer_export_lines_total", "Lines written, of one flow and of several.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name), ("of", "flow")], counts.written);
        page.sample(&[("exporter", name), ("of", "aggregate")], counts.sums);
    }
    page.counter("observer_export_bytes_total", "Bytes written.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name)], counts.bytes);
    }
    page.counter("observer_export_failures_total", "Times that writing failed.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name)], counts.failures);
    }
    page.counter("observer_export_rotations_total", "Files that were full.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name)], counts.rotations);
    }
    page.counter("observer_export_lines_cut_total", "Lines made shorter, to be below the limit.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name)], counts.cut);
    }
}
