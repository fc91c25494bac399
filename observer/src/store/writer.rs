//! The one writer of the store: puts flows into blocks, closes full segments, frees old ones.

use super::{
    Store, StoreConfig,
    ends::Ends,
    glance::{Glance, glance},
    parts::{Kept, Number, Numbers},
    segment::Segment,
    shared::{Filled, Shared},
};
use crate::flow::Flow;
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// The most flows that become readable together: what stays in the cache until then.
const BLOCK: usize = 512;

/// The most flows of a segment.
pub(super) const SEGMENT: usize = 4096;

/// What the store may hold, and how it is cut into segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The most flows.
    pub(super) flows: usize,
    /// The most flows of a segment.
    segment: usize,
    /// The most bytes of all segments.
    bytes: usize,
}

impl Shape {
    /// Of a store that frees nothing.
    pub(super) const UNBOUNDED: Self = Self { flows: usize::MAX, segment: SEGMENT, bytes: usize::MAX };

    pub(super) fn of(config: StoreConfig) -> Self {
        let flows = config.flows.max(2);
        // Eviction frees one segment. Each end is counted once a segment, so it should hold many flows.
        let segment = (flows / 16).clamp(1, SEGMENT);
        Self { flows: flows.next_multiple_of(segment), segment, bytes: config.bytes }
    }

    /// A segment with this many bytes is closed early, so that few large ones can't pass the limit.
    fn segment_bytes(self) -> usize {
        self.bytes / 8
    }
}

/// Flows and bytes of a segment.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    flows: usize,
    bytes: usize,
}

/// Appends flows; there is one for each store. Never waits for a reader.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
    shape: Shape,
    current: Arc<Segment>,
    /// Of the current segment, with what is not readable yet.
    size: Size,
    /// Of the older segments, oldest first, beside the store's list.
    older: VecDeque<Size>,
    total: Size,
    /// Of the older segments that have the current one's list of ends, freed ones included.
    listed: Size,
    /// Not readable yet.
    made: Vec<Kept>,
    /// Of the flows in `made`.
    glances: Vec<Glance>,
    /// What they bring.
    filled: Filled,
    shared: Shared,
    /// A flow became readable since the last wake-up.
    unannounced: bool,
    trimmed: Instant,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, shape: Shape, current: Arc<Segment>) -> Self {
        let filled = Filled::new(&current);
        let size = Size { flows: 0, bytes: Segment::FIXED_BYTES };
        Self {
            store,
            shape,
            current,
            size,
            older: VecDeque::new(),
            total: size,
            listed: Size::default(),
            made: Vec::new(),
            glances: Vec::new(),
            filled,
            shared: Shared::default(),
            unannounced: false,
            trimmed: Instant::now(),
        }
    }

    /// The store written to.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Ends and other parts of flows that were forgotten because there were too many, since the start.
    pub fn parts_forgotten(&self) -> u64 {
        self.shared.forgotten()
    }

    /// Appends a flow and returns its sequence number. It can be read at once; readers that wait are woken by
    /// [`Writer::publish`].
    pub fn push(&mut self, flow: &Flow<'_>) -> u64 {
        self.add(flow);
        self.commit();
        self.store.head() - 1
    }

    /// Appends a flow that can be read after [`Writer::publish`], if not before.
    #[inline]
    pub fn add(&mut self, flow: &Flow<'_>) {
        let is_full = self.made.len() == BLOCK
            || self.size.flows == self.shape.segment
            || self.size.bytes >= self.shape.segment_bytes()
            || self.filled.parts.len() + Numbers::MOST > Number::PARTS;
        if is_full {
            self.commit();
        }
        if self.made.capacity() == 0 {
            let room = BLOCK.min(self.shape.segment - self.size.flows);
            self.made.reserve_exact(room);
        }
        let (numbers, serials) = self.shared.number(flow, &mut self.filled, &self.store.namespaces);
        let bytes = size_of::<(Kept, Glance)>() + std::mem::take(&mut self.filled.bytes);
        self.size.flows += 1;
        self.size.bytes += bytes;
        self.total.flows += 1;
        self.total.bytes += bytes;
        self.glances.push(glance(flow, serials));
        self.made.push(Kept { record: *flow.record, numbers });
    }

    /// Makes all that was added readable, and wakes the readers that wait for it.
    pub fn publish(&mut self) {
        self.commit();
        if std::mem::take(&mut self.unannounced) {
            self.store.wake.notify_waiters();
        }
    }

    fn commit(&mut self) {
        if self.made.is_empty() {
            return;
        }
        self.evict();
        let made = std::mem::take(&mut self.made).into_boxed_slice();
        let base = self.store.head();
        let head = base + made.len() as u64;
        // Exactly as long as it is, and its own memory stays.
        let parts = self.filled.parts.drain(..).collect();
        let has_room = self.current.add(base, made, &self.glances, parts);
        self.glances.clear();
        self.filled.block += 1;
        self.store.head.store(head, Ordering::Release);
        self.unannounced = true;
        if !has_room || self.size.flows == self.shape.segment || self.size.bytes >= self.shape.segment_bytes()
        {
            self.begin_segment(head);
        }
        self.store.bytes.store(self.total.bytes as u64, Ordering::Relaxed);
    }

    /// Frees old segments until the rest is within the limits.
    fn evict(&mut self) {
        let mut evicted = 0;
        // Of the bytes a next segment may need some too.
        while self.total.flows > self.shape.flows
            || self.total.bytes + Segment::FIXED_BYTES > self.shape.bytes
        {
            let Some(Size { flows, bytes }) = self.older.pop_front() else { break };
            self.total.flows -= flows;
            self.total.bytes -= bytes;
            evicted += 1;
        }
        if evicted > 0 {
            let list = self.store.segments.load_full();
            self.store.segments.store(Arc::new(list[evicted..].to_vec()));
        }
    }

    fn begin_segment(&mut self, base: u64) {
        self.trim_namespaces();
        self.older.push_back(self.size);
        self.listed.flows += self.size.flows;
        self.listed.bytes += self.size.bytes;
        self.size = Size { flows: 0, bytes: Segment::FIXED_BYTES };
        self.total.bytes += Segment::FIXED_BYTES;
        let list = self.store.segments.load_full();
        let ends = self.ends(base);
        self.current = Arc::new(Segment::new(base, ends));
        self.filled.begin(&self.current);
        let longer = list.iter().chain([&self.current]).map(Arc::clone).collect();
        self.store.segments.store(Arc::new(longer));
    }

    /// For a segment from `base` on: the last one's list, or a new one where that has many. A list keeps its ends until the
    /// last of its segments is freed.
    fn ends(&mut self, base: u64) -> Arc<Ends> {
        let most = Ends::MOST_FLOWS.min(self.shape.flows / 2);
        if self.listed.flows < most && self.listed.bytes < self.shape.bytes / 4 {
            return Arc::clone(self.current.ends());
        }
        self.listed = Size::default();
        Arc::new(Ends::new(base))
    }

    fn trim_namespaces(&mut self) {
        let newest = self.current.newest();
        if self.trimmed.elapsed() >= Duration::from_mins(1) && newest != i64::MIN {
            self.shared.forget_namespaces_before_an_hour_of(newest, &self.store.namespaces);
            self.trimmed = Instant::now();
        }
    }
}
