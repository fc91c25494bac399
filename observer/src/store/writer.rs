//! The one writer of the store: puts flows into slots, closes full segments, frees old ones.

use super::{Store, StoreConfig, segment::Segment};
use crate::{
    endpoint::Endpoint,
    flow::{DropSite, Flow, Link},
};
use hashbrown::HashMap;
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
        let bytes = shared.add(flow);
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
        self.merge_namespaces();
        self.older_bytes.push_back(self.current_bytes);
        self.current = Arc::new(Segment::new(self.current.base() + self.used as u64, self.shape.segment));
        self.used = 0;
        self.current_bytes = self.current.fixed_bytes();
        self.shared.0.clear();

        let mut total = self.older_bytes.iter().sum::<usize>() + self.current_bytes;
        let mut evicted = 0;
        // The next segment may grow to its own limit before this is looked at again.
        let room = self.shape.bytes.saturating_sub(self.shape.segment_bytes());
        while self.older_bytes.len() >= self.shape.segments || total > room && !self.older_bytes.is_empty() {
            total -= self.older_bytes.pop_front().unwrap_or(0);
            evicted += 1;
        }
        let list = self.store.segments.load();
        let kept = list.iter().skip(evicted).chain([&self.current]).map(Arc::clone).collect();
        self.store.segments.store(Arc::new(kept));
        self.store.bytes.store(total as u64, Ordering::Relaxed);
    }

    fn merge_namespaces(&mut self) {
        let namespaces = &self.store.namespaces;
        let mut newest = i64::MIN;
        for (endpoint, last) in self.shared.0.values().flatten() {
            namespaces.see(endpoint, *last);
            newest = newest.max(*last);
        }
        if self.trimmed.elapsed() >= Duration::from_mins(1) && newest != i64::MIN {
            namespaces.forget_before_an_hour_of(newest);
            self.trimmed = Instant::now();
        }
    }
}

/// The shared parts of the current segment's flows by address; of an endpoint the time of its last flow.
#[derive(Debug, Default)]
struct Shared(HashMap<usize, Option<(Arc<Endpoint>, i64)>>);

impl Shared {
    /// Bytes of the parts that this flow is the first to have.
    fn add(&mut self, flow: &Flow) -> usize {
        let mut bytes = 0;
        for endpoint in [&flow.source, &flow.destination] {
            match self.0.entry(address(endpoint)) {
                hashbrown::hash_map::Entry::Occupied(mut known) => {
                    if let Some((_, last)) = known.get_mut() {
                        *last = flow.time_ns;
                    }
                }
                hashbrown::hash_map::Entry::Vacant(new) => {
                    bytes += endpoint_bytes(endpoint);
                    new.insert(Some((Arc::clone(endpoint), flow.time_ns)));
                }
            }
        }
        for service in [&flow.source_service, &flow.destination_service].into_iter().flatten() {
            if self.is_new(address(service)) {
                bytes += size_of_val(&**service) + service.name.len() + service.namespace.len();
            }
        }
        if let Some(link) = &flow.link
            && self.is_new(address(link))
        {
            bytes += size_of::<Link>() + link.name.len();
        }
        if let Some(site) = &flow.drop
            && self.is_new(address(site))
        {
            let location = site.location.as_ref().map_or(0, String::len);
            bytes += size_of::<DropSite>() + site.kernel_reason.len() + location;
        }
        bytes
    }

    fn is_new(&mut self, address: usize) -> bool {
        self.0.insert(address, None).is_none()
    }
}

fn address<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared).addr()
}

/// What an endpoint takes on the heap, by and large: strings are counted by length, and three times, because the encoded
/// forms have them again. Labels are counted for each endpoint that shares them, which is on the safe side.
fn endpoint_bytes(endpoint: &Endpoint) -> usize {
    let labels: usize = endpoint.labels.iter().map(|label| 3 * label.len() + size_of::<String>()).sum();
    let workloads: usize =
        endpoint.workloads.iter().map(|w| size_of_val(w) + 3 * (w.kind.len() + w.name.len())).sum();
    size_of::<Endpoint>()
        + labels
        + workloads
        + 3 * (endpoint.cluster.len() + endpoint.namespace.len() + endpoint.pod_name.len())
}
