//! Metrics of the daemon itself: what is attached, counted and lost, and how full what has a bound is.

use super::page::Page;
use crate::{
    export::{Board, Operation},
    serve::KernelUse,
};
use observer_proto::{
    control::{CaptureStatusResponse, History, KubernetesResource, Server, hook::State},
    text::status::counter_kind,
};
use std::time::Duration;

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

/// Flows on the disk, where they are kept.
pub(super) fn history(page: &mut Page, history: &History) {
    for (name, help, value) in [
        ("observer_history_flows", "Flows on the disk that can be read.", history.flows),
        ("observer_history_bytes", "Bytes that they take.", history.bytes),
        ("observer_history_bytes_limit", "Bytes that they may take.", history.max_bytes),
        ("observer_history_suspended", "Whether the disk takes nothing now.", history.suspended.into()),
    ] {
        page.gauge(name, help);
        page.sample(&[], value);
    }
    if let Some(oldest) = &history.oldest {
        page.gauge("observer_history_oldest_seconds", "Unix time of the oldest flow on the disk.");
        page.sample(&[], oldest.seconds);
    }
    for (name, help, value) in [
        ("observer_history_failures_total", "Times that writing failed.", history.failures),
        (
            "observer_history_recovered_total",
            "Flows of earlier runs found unfinished and kept.",
            history.recovered,
        ),
        ("observer_history_removed_total", "Flows removed, too many or too old.", history.removed),
        ("observer_history_torn_total", "Torn ends of files that are left out.", history.torn),
        ("observer_history_damaged_total", "Times that readers found something damaged.", history.damaged),
    ] {
        page.counter(name, help);
        page.sample(&[], value);
    }
}

/// What is followed in the Kubernetes API.
pub(super) fn kubernetes(page: &mut Page, resources: &[KubernetesResource]) {
    if resources.is_empty() {
        return;
    }
    page.gauge(
        "observer_kubernetes_state",
        "How the watch of a resource does: 1 for the state that it is in.",
    );
    for resource in resources {
        page.sample(&[("resource", &resource.name), ("state", &resource.state)], 1);
    }
    page.gauge("observer_kubernetes_age_seconds", "Time since the API server last said anything of it.");
    for resource in resources {
        page.sample(&[("resource", &resource.name)], resource.age_seconds);
    }
    page.gauge("observer_kubernetes_objects", "Objects that are known.");
    for resource in resources {
        page.sample(&[("resource", &resource.name)], resource.objects);
    }
    for (place, (name, help)) in [
        ("observer_kubernetes_failures_total", "Times that a watch broke."),
        ("observer_kubernetes_lists_total", "Times that all objects were told anew."),
        ("observer_kubernetes_malformed_total", "Objects that could not be read."),
    ]
    .into_iter()
    .enumerate()
    {
        page.counter(name, help);
        for resource in resources {
            let counts = [resource.failures, resource.lists, resource.malformed];
            page.sample(&[("resource", &resource.name)], counts[place]);
        }
    }
}

/// What the kernel keeps.
pub(super) fn kernel(page: &mut Page, state: &KernelUse) {
    for (fills, names, help) in [
        (
            &state.rings,
            ["observer_ring_used_bytes", "observer_ring_bytes"],
            ["Bytes in a ring that are not read yet.", "Bytes that a ring has."],
        ),
        (
            &state.tables,
            ["observer_map_entries", "observer_map_entries_limit"],
            ["Connections in a table, as of the last sweep.", "Connections that a table may have."],
        ),
    ] {
        // Nothing runs in a replay.
        if fills.is_empty() {
            continue;
        }
        for (place, (name, help)) in names.into_iter().zip(help).enumerate() {
            page.gauge(name, help);
            for fill in fills {
                page.sample(&[("name", &fill.name)], if place == 0 { fill.used } else { fill.room });
            }
        }
    }
    let seconds = |nanoseconds| Duration::from_nanos(nanoseconds).as_secs_f64();
    page.summary("observer_link_attach_seconds", "Time that it took to put the flow programs on a link.");
    page.written("_sum", "", seconds(state.attached.took_ns), None);
    page.written("_count", "", state.attached.count, None);
    page.gauge("observer_link_attach_seconds_max", "The longest of these times.");
    page.sample(&[], seconds(state.attached.longest_ns));
}

/// How old what is known of names is at least.
pub(super) fn names(page: &mut Page, confirmed: impl Iterator<Item = (&'static str, u64)>, now: u64) {
    page.gauge(
        "observer_names_age_seconds",
        "Time since a source of names was last seen to be what is in force; it grows where the source can't be read.",
    );
    for (source, at) in confirmed {
        let age = Duration::from_nanos(now.saturating_sub(at));
        page.sample(&[("source", source)], age.as_secs_f64());
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
    page.gauge("observer_export_suspended", "Whether the exporter's disk or Collector takes nothing.");
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
    page.counter("observer_export_flows_lost_total", "Flows that were not written, by cause.");
    for (name, counts) in &exporters {
        for (cause, count) in [
            ("overwritten", counts.overwritten),
            ("unwritten", counts.unwritten),
            ("refused", counts.refused),
        ] {
            page.sample(&[("exporter", name), ("cause", cause)], count);
        }
    }
    page.gauge("observer_export_flows_waiting", "Flows whose lines are not written yet.");
    for (name, counts) in &exporters {
        page.sample(&[("exporter", name)], counts.waiting);
    }
    page.counter("observer_export_failures_total", "Times that writing or sending failed.");
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
