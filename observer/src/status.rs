//! The capture's state as the control service shows it.

mod unlinked;

use crate::{
    capture::{CaptureStatus, Fill, HookStatus, LinkKind, LinkStatus, ProgramStatus, StatusHandle},
    drop_events,
    enrich::ipcache::IpCache,
    export::{Board, Counts},
    history::{self, History},
    pipeline::{BehindLinks, Counters},
    policy::Policies,
    serve::{CaptureInfo, KernelUse, encode::proto_time},
};
use observer_kubernetes::{Board as KubernetesBoard, ResourceStatus};
use observer_proto::control::{
    self as wire, CaptureStatusResponse, Counter, Hook, KubernetesResource, Link, counter::Kind, hook::State,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Reads what the threads count.
pub(crate) struct Status {
    /// What is attached and counted.
    pub(crate) capture: Box<dyn Fn() -> CaptureStatus + Send + Sync>,
    /// Whether the programs run; what they counted is not in a recording.
    pub(crate) is_live: bool,
    /// How full the rings are.
    pub(crate) rings: Box<dyn Fn() -> Vec<Fill> + Send + Sync>,
    pub(crate) pipeline: Arc<Counters>,
    pub(crate) names: Arc<IpCache>,
    /// Who stands behind the links.
    pub(crate) behind: Arc<BehindLinks>,
    /// By which connections are judged, where any are given.
    pub(crate) policies: Option<Arc<Policies>>,
    /// Flows on the disk, where they are kept.
    pub(crate) history: Option<Arc<History>>,
    /// What exporters tell of themselves.
    pub(crate) exports: Arc<Board>,
    /// Why there is no conntrack to listen to, where there is none.
    pub(crate) no_conntrack: Option<String>,
    /// How the watches of the Kubernetes API do, where it is followed.
    pub(crate) kubernetes: Option<Arc<KubernetesBoard>>,
    /// Events about drops, where they are written.
    pub(crate) drop_events: Option<Arc<drop_events::Counts>>,
    /// Where they are watched.
    pub(crate) links: Option<StatusHandle>,
    /// As `uname -r` prints it.
    pub(crate) kernel: String,
}

impl CaptureInfo for Status {
    fn capture_status(&self) -> CaptureStatusResponse {
        let status = (self.capture)();
        let mut hooks: Vec<Hook> = status.hooks.iter().map(hook).collect();
        hooks.push(Hook {
            name: "service addresses: nf_conntrack".to_owned(),
            state: if self.no_conntrack.is_none() { State::Attached } else { State::Unavailable } as i32,
            reason: self.no_conntrack.clone().unwrap_or_default(),
        });
        let mut counters = Vec::new();
        if self.is_live {
            for (name, program) in [
                ("flows ingress", &status.ingress),
                ("flows egress", &status.egress),
                ("drops", &status.drops),
            ] {
                program_counters(name, program, &mut counters);
            }
            facts_counters(&status.facts, &mut counters);
            if self.policies.is_some() {
                program_counters("denied packets", &status.denied, &mut counters);
                let reset = status.total(|counters| counters.reset);
                counters.push(counter(
                    "policy",
                    Kind::Suppressed,
                    "open connections reset, to be judged",
                    reset,
                ));
            }
            for (cause, value) in [
                ("connections evicted", status.evicted),
                ("packets without room, each judged by itself", status.without_room()),
            ] {
                counters.push(counter("flow table", Kind::Suppressed, cause, value));
            }
        } else {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            let lost = read(&self.pipeline.lost);
            let recorded = read(&self.pipeline.records).saturating_sub(read(&self.pipeline.swept));
            counters.push(counter("recording", Kind::Made, "records", recorded + lost));
            counters.push(counter("recording", Kind::Delivered, "pipeline", recorded));
            counters.push(counter("recording", Kind::Lost, "ring full", lost));
        }
        self.pipeline_counters(&mut counters);
        for (name, counts) in self.exports.exporters() {
            export_counters(&format!("export {name}"), &counts, &mut counters);
        }
        if let Some(counts) = &self.drop_events {
            event_counters(counts, &mut counters);
        }
        let history = self.history.as_ref().map(|history| history.counts());
        if let Some(counts) = &history {
            history_counters(counts, &mut counters);
        }
        CaptureStatusResponse {
            history: history.map(|counts| wire::History {
                flows: counts.flows,
                on_disk: counts.flows + counts.flushed,
                bytes: counts.bytes,
                max_bytes: counts.most_bytes,
                oldest: counts.oldest_ns.map(proto_time),
                suspended: counts.suspended,
                failures: counts.failures,
                recovered: counts.recovered,
                removed: counts.removed,
                torn: counts.torn,
                torn_bytes: counts.torn_bytes,
                damaged: counts.damaged,
                foreign_files: counts.foreign,
            }),
            kubernetes: self.kubernetes.iter().flat_map(|board| board.status()).map(resource).collect(),
            kernel: self.kernel.clone(),
            hooks,
            links: status.links.iter().map(|link| self.link(link)).collect(),
            counters,
            ..CaptureStatusResponse::default()
        }
    }

    fn unlinked(&self) -> Vec<wire::Unlinked> {
        let links = self.links.iter().map(StatusHandle::links);
        links.flat_map(|table| unlinked::pods(&table, &self.names, &self.behind)).collect()
    }

    fn kernel_use(&self) -> KernelUse {
        let status = (self.capture)();
        KernelUse { rings: (self.rings)(), tables: status.tables, attached: status.attached }
    }
}

impl Status {
    fn link(&self, status: &LinkStatus) -> Link {
        let link = &status.link;
        Link {
            index: link.ifindex,
            name: link.name.clone(),
            kind: match link.kind {
                LinkKind::Pod => "pod",
                LinkKind::Uplink => "uplink",
                LinkKind::Tunnel => "tunnel",
                LinkKind::Bridge => "bridge",
            }
            .to_owned(),
            endpoint: self.behind.name(link.ifindex),
            received_packets: status.ingress.packets,
            received_bytes: status.ingress.bytes,
            sent_packets: status.egress.packets,
            sent_bytes: status.egress.bytes,
            received_other_packets: status.ingress.not_ip + status.ingress.malformed,
            sent_other_packets: status.egress.not_ip + status.egress.malformed,
            other_programs: (link.chained[0] + link.chained[1]) as u32,
            problem: link.error.clone().unwrap_or_default(),
            repairs: link.repairs,
        }
    }

    fn pipeline_counters(&self, counters: &mut Vec<Counter>) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let pipeline = &self.pipeline;
        let to_tell = read(&pipeline.records).saturating_sub(read(&pipeline.told_elsewhere));
        let swept = read(&pipeline.swept);
        counters.push(counter("sweep", Kind::Made, "records", swept));
        counters.push(counter("sweep", Kind::Delivered, "pipeline", swept));
        for (kind, cause, value) in [
            (Kind::Made, "records to tell", to_tell),
            (Kind::Delivered, "flows", read(&pipeline.stored)),
            (Kind::Delivered, "payload, read for HTTP, DNS and TLS", read(&pipeline.payloads)),
            (Kind::Delivered, "facts, shown with their flows", read(&pipeline.facts)),
            (Kind::Delivered, "waiting for conntrack", read(&pipeline.waiting)),
            (Kind::Suppressed, "told at another point", read(&pipeline.told_elsewhere)),
            (Kind::Lost, "undecodable", read(&pipeline.undecodable)),
            (Kind::Lost, "facts without room", read(&pipeline.facts_lost)),
            (Kind::Suppressed, "conntrack overruns", read(&pipeline.conntrack_overruns)),
        ] {
            counters.push(counter("pipeline", kind, cause, value));
        }
        l7_counters(pipeline, counters);
        if let Some(policies) = &self.policies {
            policy_counters(policies, counters);
        }
        let collisions = self.names.identity_collisions();
        counters.push(counter("enrich", Kind::Suppressed, "identity collisions", collisions));
        let forgotten = read(&pipeline.parts_forgotten);
        counters.push(counter("store", Kind::Suppressed, "shared parts forgotten", forgotten));
    }
}

/// Where no payload is looked at there is nothing to tell of it.
fn l7_counters(pipeline: &Counters, counters: &mut Vec<Counter>) {
    if pipeline.payloads.load(Ordering::Relaxed) == 0 {
        return;
    }
    let said = pipeline.said.load(Ordering::Relaxed);
    for (kind, cause) in [(Kind::Made, "requests and responses"), (Kind::Delivered, "flows of them")] {
        counters.push(counter("l7", kind, cause, said));
    }
    for (cause, count) in pipeline.unsaid.read() {
        counters.push(counter("l7", Kind::Suppressed, cause, count));
    }
}

/// Verdicts are made here, beside the flows: of no record of the kernel's.
fn policy_counters(policies: &Policies, counters: &mut Vec<Counter>) {
    let count = &policies.counters;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let verdicts = read(&count.verdicts);
    let (told, lost) = (read(&count.requests_told), read(&count.requests_lost));
    if read(&count.proxied) + told + lost + read(&count.queries_turned_away) > 0 {
        for (kind, cause, value) in [
            (Kind::Made, "requests and responses", told + lost),
            (Kind::Delivered, "flows of them", told),
            (Kind::Lost, "without room on the way to the store", lost),
            (
                Kind::Suppressed,
                "connections: requests that can't be read, or in two ways",
                read(&count.proxied_refused),
            ),
            (Kind::Suppressed, "connections: the client took too long", read(&count.proxied_late)),
            (Kind::Suppressed, "DNS queries: too many at once, dropped", read(&count.queries_turned_away)),
            (Kind::Suppressed, "DNS answers: not held until policies had them", read(&count.answers_late)),
        ] {
            counters.push(counter("proxy", kind, cause, value));
        }
    }
    for (kind, cause, value) in [
        (Kind::Made, "verdicts", verdicts),
        (Kind::Delivered, "policy verdicts, beside the flows", verdicts),
        (Kind::Suppressed, "judged in mode observe", read(&count.observed)),
        (Kind::Suppressed, "not told: its policies are gone", read(&count.forgotten)),
        (Kind::Suppressed, "not judged: an end is not certain", read(&count.ends_unknown)),
        (Kind::Suppressed, "not judged: a service's backend is not known", read(&count.backend_unknown)),
        (
            Kind::Suppressed,
            "addresses without room in the kernel, judged as the world",
            read(&count.left_out),
        ),
        (Kind::Suppressed, "changes of names without room in the kernel", read(&count.names_refused)),
    ] {
        counters.push(counter("policy", kind, cause, value));
    }
}

/// Lost are flows that were overwritten before they were looked at, whether the filters let them pass or not.
fn export_counters(stage: &str, count: &Counts, counters: &mut Vec<Counter>) {
    let lost = count.overwritten + count.unwritten + count.refused;
    for (kind, cause, value) in [
        (Kind::Made, "flows to write", count.written + count.waiting + lost),
        (Kind::Delivered, "lines", count.written),
        (Kind::Delivered, "waiting to be written", count.waiting),
        (Kind::Suppressed, "left out by filters", count.filtered),
        (Kind::Suppressed, "aggregated", count.aggregated),
        (Kind::Lost, "overwritten before they were written", count.overwritten),
        (Kind::Lost, "not written at the end", count.unwritten),
        (Kind::Lost, "refused by the collector", count.refused),
    ] {
        counters.push(counter(stage, kind, cause, value));
    }
}

/// Drops by policies of which Kubernetes Events may tell.
fn event_counters(count: &drop_events::Counts, counters: &mut Vec<Counter>) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (told, failed) = (read(&count.told), read(&count.failed));
    for (kind, cause, value) in [
        (Kind::Made, "drops to tell", told + failed),
        (Kind::Delivered, "Events", told),
        (Kind::Lost, "not taken by the API server", failed),
        (Kind::Suppressed, "told lately, or others were", read(&count.suppressed)),
        (Kind::Suppressed, "flows overwritten before they were looked at", read(&count.overwritten)),
    ] {
        counters.push(counter("kubernetes events", kind, cause, value));
    }
}

/// Of this life; what earlier ones wrote stands in the state of the history.
fn history_counters(count: &history::Counts, counters: &mut Vec<Counter>) {
    let lost = count.overwritten + count.unwritten;
    for (kind, cause, value) in [
        (Kind::Made, "flows to keep", count.written + count.waiting + lost),
        (Kind::Delivered, "kept", count.written),
        (Kind::Delivered, "waiting to be written together", count.waiting),
        (Kind::Lost, "overwritten before they were kept", count.overwritten),
        (Kind::Lost, "not written at the end", count.unwritten),
    ] {
        counters.push(counter("history", kind, cause, value));
    }
}

fn resource(status: ResourceStatus) -> KubernetesResource {
    KubernetesResource {
        name: status.resource.name().to_owned(),
        state: status.state.name().to_owned(),
        objects: status.objects as u64,
        age_seconds: status.age.as_secs_f64(),
        error: status.error.unwrap_or_default(),
        failures: status.failures,
        lists: status.lists,
        malformed: status.malformed,
    }
}

fn hook(status: &HookStatus) -> Hook {
    let (state, reason) = match &status.error {
        None => (State::Attached, status.note.clone()),
        Some(error) => (State::Unavailable, error.clone()),
    };
    Hook { name: status.name.clone(), state: state as i32, reason }
}

fn program_counters(stage: &str, program: &ProgramStatus, counters: &mut Vec<Counter>) {
    let count = &program.counters;
    for (kind, cause, value) in [
        (Kind::Made, "records", count.made),
        (Kind::Delivered, "ring", count.submitted),
        (Kind::Lost, "ring full", count.ring_full),
        (Kind::Suppressed, "aggregation", count.aggregated),
        (Kind::Suppressed, "new-flow cap", count.new_flow_cap),
        (Kind::Suppressed, "payload cap", count.payload_cap),
        (Kind::Suppressed, "summed", count.summed),
        (Kind::Suppressed, "ignored reason or namespace", count.ignored),
    ] {
        if value > 0 || matches!(kind, Kind::Made | Kind::Delivered | Kind::Lost) {
            counters.push(counter(stage, kind, cause, value));
        }
    }
    recursion_counters(stage, program, counters);
}

/// They write no records: what they count of a connection the sweep tells.
fn facts_counters(program: &ProgramStatus, counters: &mut Vec<Counter>) {
    let (runs, table_full) = (program.counters.runs, program.counters.table_full);
    for (kind, cause, value) in [
        (Kind::Made, "segments sent again, and connects that failed", runs),
        (Kind::Delivered, "counted with their connections, for the sweep", runs.saturating_sub(table_full)),
        (Kind::Lost, "table full", table_full),
    ] {
        counters.push(counter("facts", kind, cause, value));
    }
    recursion_counters("facts", program, counters);
}

/// Never made by the program, and lost all the same: on both sides of the sum.
fn recursion_counters(stage: &str, program: &ProgramStatus, counters: &mut Vec<Counter>) {
    if program.recursion_misses > 0 {
        counters.push(counter(stage, Kind::Made, "recursion", program.recursion_misses));
        counters.push(counter(stage, Kind::Lost, "recursion", program.recursion_misses));
    }
}

fn counter(stage: &str, kind: Kind, cause: &str, value: u64) -> Counter {
    Counter { stage: stage.to_owned(), kind: kind as i32, cause: cause.to_owned(), value }
}
