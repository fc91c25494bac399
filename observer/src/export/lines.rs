//! Flows as lines: an ExportEvent each, in Hubble's JSON; or as records of OpenTelemetry's logs.

use super::{
    config::{Exporter, Sum, Target},
    counters::{Counters, add},
    cut, otlp,
};
use crate::{
    flow::Flow,
    serve::{
        LostEvents,
        encode::{Encoder, GRPC_HEAD, NodeInfo, proto_time},
        mask::Mask,
    },
};
use hashbrown::HashMap;
use observer_proto::{
    flow::{self as proto, LostEvent, LostEventSource, TrafficDirection},
    json::{self, MessageType, Writer},
    observer::{ExportEvent, export_event::ResponseTypes},
};
use prost::Message as _;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Bytes of a line with its newline are fewer: log shippers cut or pass over what is longer than 16 KiB.
pub(super) const LONGEST: usize = 16_000;
/// Groups of equal flows; when there are more, those that are there become lines before the interval is over.
const MOST_GROUPS: usize = 65_536;

/// Lines that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    /// So many of them are written, whole lines but where writing failed.
    pub(super) done: usize,
    /// Lines of one flow.
    pub(super) flows: u64,
    /// Lines of several.
    pub(super) sums: u64,
}

/// Makes lines.
pub(super) struct Lines {
    encoder: Encoder,
    mask: Option<Mask>,
    groups: Option<Groups>,
    writer: Writer,
    kind: MessageType,
    /// Records of OpenTelemetry's logs in place of JSON.
    are_records: bool,
    message: Vec<u8>,
    counters: Arc<Counters>,
}

/// Flows of which some fields are equal. A response with these fields alone stands for them.
struct Groups {
    fields: Mask,
    interval: Duration,
    /// When the oldest group was made.
    since: Option<Instant>,
    by_fields: HashMap<Vec<u8>, Group>,
}

struct Group {
    /// Unix time in nanoseconds of the first.
    first: i64,
    counts: proto::Aggregate,
}

impl Lines {
    /// Nothing where the API has no ExportEvent, which a test holds it has.
    pub(super) fn new(exporter: &Exporter, node: &NodeInfo, counters: Arc<Counters>) -> Option<Self> {
        let groups = exporter.sum.clone().map(|Sum { fields, interval }| Groups {
            fields,
            interval,
            since: None,
            by_fields: HashMap::new(),
        });
        Some(Self {
            encoder: Encoder::new(node),
            mask: exporter.mask.clone(),
            groups,
            writer: Writer::new(),
            kind: MessageType::named("observer.ExportEvent")?,
            are_records: matches!(exporter.to, Target::Otlp(_)),
            message: Vec::new(),
            counters,
        })
    }

    /// Adds a flow, or counts it where it is summed.
    #[inline]
    pub(super) fn flow(&mut self, out: &mut Pending, sequence: u64, flow: &Flow<'_>) {
        if self.groups.is_some() {
            return self.sum(out, sequence, flow);
        }
        out.flows += 1;
        if self.are_records {
            self.message.clear();
            self.encoder.response(&mut self.message, sequence, flow, self.mask.as_ref());
            let message = self.message.get(GRPC_HEAD..).unwrap_or_default();
            // It was encoded here, and so it can be decoded.
            return self.event(out, &ExportEvent::decode(message).unwrap_or_default());
        }
        let at = out.bytes.len();
        match &self.mask {
            None => self.encoder.json_line(&mut out.bytes, sequence, flow),
            Some(mask) => {
                self.message.clear();
                self.encoder.response(&mut self.message, sequence, flow, Some(mask));
                // What was encoded here has a JSON form.
                let message = self.message.get(GRPC_HEAD..).unwrap_or_default();
                let _ = self.writer.write(self.kind, message, &mut out.bytes);
            }
        }
        self.end_line(out, at);
    }

    /// Adds what is there as a message.
    fn event(&self, out: &mut Pending, event: &ExportEvent) {
        if !self.are_records {
            let at = out.bytes.len();
            out.bytes.extend_from_slice(json::line(event).unwrap_or_default().as_bytes());
            self.end_line(out, at);
        } else if let Some(mut record) = otlp::records::record(event) {
            if cut::cut_record(&mut record, LONGEST) {
                add(&self.counters.cut, 1);
            }
            otlp::append(&mut out.bytes, &record);
        }
    }

    fn sum(&mut self, out: &mut Pending, sequence: u64, flow: &Flow<'_>) {
        const INGRESS: u8 = TrafficDirection::Ingress as u8;
        const EGRESS: u8 = TrafficDirection::Egress as u8;
        let Some(groups) = &mut self.groups else { return };
        self.message.clear();
        self.encoder.response(&mut self.message, sequence, flow, Some(&groups.fields));
        let message = self.message.get(GRPC_HEAD..).unwrap_or_default();
        let group = groups
            .by_fields
            .entry_ref(message)
            .or_insert_with(|| Group { first: flow.time_ns, counts: proto::Aggregate::default() });
        *match flow.direction {
            INGRESS => &mut group.counts.ingress_flow_count,
            EGRESS => &mut group.counts.egress_flow_count,
            _ => &mut group.counts.unknown_direction_flow_count,
        } += 1;
        add(&self.counters.aggregated, 1);
        groups.since.get_or_insert_with(Instant::now);
        if groups.by_fields.len() >= MOST_GROUPS {
            self.end_groups(out);
        }
    }

    /// When groups become lines next.
    pub(super) fn due(&self) -> Option<Instant> {
        let groups = self.groups.as_ref()?;
        Some(groups.since? + groups.interval)
    }

    /// Makes lines of the groups.
    pub(super) fn end_groups(&mut self, out: &mut Pending) {
        let Some(groups) = &mut self.groups else { return };
        groups.since = None;
        for (message, group) in std::mem::take(&mut groups.by_fields) {
            // It was encoded here, and so it can be decoded.
            let mut event = ExportEvent::decode(&*message).unwrap_or_default();
            event.time = Some(proto_time(group.first));
            if let Some(ResponseTypes::Flow(flow)) = &mut event.response_types {
                (flow.time, flow.aggregate) = (event.time, Some(group.counts));
            }
            self.event(out, &event);
            out.sums += 1;
        }
    }

    /// Adds losses that are due, or all.
    pub(super) fn lost(&self, out: &mut Pending, lost: &mut LostEvents, all: bool) {
        lost.tell(all, |source, count, first, last| self.event(out, &self.loss(source, count, first, last)));
    }

    fn loss(&self, source: LostEventSource, count: u64, first: i64, last: i64) -> ExportEvent {
        ExportEvent {
            node_name: self.encoder.node_name().to_owned(),
            time: Some(proto_time(last)),
            response_types: Some(ResponseTypes::LostEvents(LostEvent {
                source: source.into(),
                num_events_lost: count,
                cpu: None,
                first: Some(proto_time(first)),
                last: Some(proto_time(last)),
            })),
        }
    }

    #[inline]
    fn end_line(&self, out: &mut Pending, at: usize) {
        if out.bytes.len() + 1 - at >= LONGEST {
            let cut = cut::cut(out.bytes.get(at..).unwrap_or_default(), LONGEST - 1);
            out.bytes.truncate(at);
            out.bytes.extend_from_slice(cut.as_bytes());
            add(&self.counters.cut, 1);
        }
        out.bytes.push(b'\n');
    }
}
