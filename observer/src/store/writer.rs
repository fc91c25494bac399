//! The one writer of the store: puts flows into slots, closes full segments, frees old ones.

use super::{Store, StoreConfig, segment::Segment, shared::Shared};
use crate::flow::Flow;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

/// How a capacity is cut into segments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Flows in a segment.
    pub(super) segment: usize,
    /// The most segments.
    pub(super) segments: usize,
    /// The most bytes of all segments.
    bytes: usize,
}

impl Shape {
    pub(super) fn of(config: StoreConfig) -> Self {
        let flows = config.flows.max(2);
        // Eviction frees one segment: an eighth of a small store, 1,024 flows of a large one.
        let segment = (flows / 8).clamp(1, 1024);
        Self { segment, segments: flows.div_ceil(segment).max(2), bytes: config.bytes }
    }

    /// A segment with this many bytes is closed early, so that few large ones can't pass the limit.
    fn segment_bytes(self) -> usize {
        self.bytes / 8
    }
}

/// Appends flows; there is one for each store. Never waits for a reader.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
    shape: Shape,
    current: Arc<Segment>,
    used: usize,
    current_bytes: usize,
    /// Bytes of each older segment, oldest first, beside the store's list.
    older_bytes: std::collections::VecDeque<usize>,
    shared: Shared,
    /// A flow was pushed since the last wake-up.
    unannounced: bool,
    trimmed: Instant,
}

impl Writer {
    pub(super) fn new(store: Arc<Store>, shape: Shape, current: Arc<Segment>) -> Self {
        Self {
            store,
            shape,
            current_bytes: current.fixed_bytes(),
            current,
            used: 0,
            older_bytes: std::collections::VecDeque::new(),
            shared: Shared::default(),
            unannounced: false,
            trimmed: Instant::now(),
        }
    }

    /// The store written to.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Appends a flow and returns its sequence number. It can be read at once; readers that wait are woken by
    /// [`Writer::publish`].
    pub fn push(&mut self, flow: Flow) -> u64 {
        self.push_made(|| flow);
        self.store.head() - 1
    }

    /// As [`Writer::push`], of a flow that is made where it will lie, which spares moving it there.
    pub fn push_made(&mut self, make: impl FnOnce() -> Flow) -> &Flow {
        if self.used == self.current.len()
            || self.current_bytes >= self.shape.segment_bytes() && self.used > 0
        {
            self.rotate();
        }
        let Self { store, current, used, current_bytes, shared, unannounced, .. } = self;
        let flow = current.fill(*used, make);
        let bytes = shared.add(flow, current.base(), &store.namespaces);
        if bytes > 0 {
            *current_bytes += bytes;
            store.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        *used += 1;
        store.head.store(current.base() + *used as u64, Ordering::Release);
        *unannounced = true;
        flow
    }

    /// Wakes the readers that wait, once for everything pushed since the last call.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.unannounced) {
            self.store.wake.notify_waiters();
        }
    }

    fn rotate(&mut self) {
        self.trim_namespaces();
        self.older_bytes.push_back(self.current_bytes);
        let mut total = self.older_bytes.iter().sum::<usize>();
        let mut evicted = 0;
        // The next segment may grow to its own limit before this is looked at again.
        let room = self.shape.bytes.saturating_sub(self.shape.segment_bytes() + self.current.fixed_bytes());
        while self.older_bytes.len() >= self.shape.segments || total > room && !self.older_bytes.is_empty() {
            total -= self.older_bytes.pop_front().unwrap_or(0);
            evicted += 1;
        }
        let list = self.store.segments.load_full();
        let mut kept: Vec<_> = list.iter().skip(evicted).map(Arc::clone).collect();
        drop(list);
        // First away with the old ones: the next then gets their memory, which is in the cache. Readers never find none.
        if !kept.is_empty() {
            self.store.segments.store(Arc::new(kept.clone()));
        }
        self.current = Arc::new(Segment::new(self.current.base() + self.used as u64, self.shape.segment));
        kept.push(Arc::clone(&self.current));
        self.store.segments.store(Arc::new(kept));
        self.used = 0;
        self.current_bytes = self.current.fixed_bytes();
        self.store.bytes.store((total + self.current_bytes) as u64, Ordering::Relaxed);
    }

    fn trim_namespaces(&mut self) {
        let newest = self.current.newest();
        if self.trimmed.elapsed() >= Duration::from_mins(1) && newest != i64::MIN {
            self.shared.forget_namespaces_before_an_hour_of(newest, &self.store.namespaces);
            self.trimmed = Instant::now();
        }
    }
}
