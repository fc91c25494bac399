//! What many flows have in common: the bytes of each part, counted once a segment, and the namespaces of the ends.

use super::{
    namespaces::{HOUR_NS, Namespaces},
    segment::Segment,
};
use crate::{
    endpoint::Endpoint,
    flow::{DropSite, Flow, Link, Translated},
};
use hashbrown::HashMap;
use std::{
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

/// Ends that are remembered; those of the pods that a large node talks to. When there are more all are forgotten, which
/// counts some bytes twice.
const MOST_ENDS: usize = 65_536;
/// Services, links and places of drops likewise.
const MOST_OTHERS: usize = 65_536;
/// Of no segment.
const NONE: u64 = u64::MAX;

/// The parts that were met, by the writer alone. Segments are told apart by their first sequence number.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// By [`Endpoint::serial`].
    ends: HashMap<NonZeroU64, End>,
    /// By address, with the last segment. An address that is another part's by now makes a few bytes go uncounted.
    others: HashMap<usize, u64>,
    /// Parts that were forgotten, because there were too many.
    forgotten: u64,
}

#[derive(Debug)]
struct End {
    /// The last segment that has it.
    segment: u64,
    bytes: usize,
    /// When a flow of its namespace was last seen.
    namespace: Option<Arc<AtomicI64>>,
}

impl Shared {
    /// Bytes of the parts that no earlier flow of its segment has. The segment's list of ends gets those that it lacks.
    pub(super) fn add(&mut self, flow: &Flow, current: &Segment, namespaces: &Namespaces) -> usize {
        let (segment, ends) = (current.base(), current.ends());
        let mut bytes = 0;
        for endpoint in [&flow.source, &flow.destination] {
            let end = match self.ends.get_mut(&endpoint.serial()) {
                Some(end) => end,
                None => self.meet(endpoint, namespaces),
            };
            if end.segment != segment {
                if end.segment < ends.first() || end.segment == NONE {
                    ends.push(endpoint);
                }
                end.segment = segment;
                bytes += end.bytes;
            }
            if let Some(last) = &end.namespace
                && last.load(Ordering::Relaxed) < flow.time_ns
            {
                last.store(flow.time_ns, Ordering::Relaxed);
            }
        }
        for service in [&flow.source_service, &flow.destination_service].into_iter().flatten() {
            if self.is_new(service, segment) {
                bytes += size_of_val(&**service) + service.name.len() + service.namespace.len();
            }
        }
        if let Some(link) = &flow.link
            && self.is_new(link, segment)
        {
            bytes += size_of::<Link>() + link.name.len();
        }
        if let Some(translated) = &flow.translated
            && self.is_new(translated, segment)
        {
            bytes += size_of::<Translated>();
        }
        if let Some(site) = &flow.drop
            && self.is_new(site, segment)
        {
            let location = site.location.as_ref().map_or(0, String::len);
            bytes += size_of::<DropSite>() + site.kernel_reason.len() + location;
        }
        bytes
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    #[cold]
    fn meet(&mut self, endpoint: &Endpoint, namespaces: &Namespaces) -> &mut End {
        if self.ends.len() >= MOST_ENDS {
            self.forgotten += self.ends.len() as u64;
            self.ends.clear();
        }
        let end = End { segment: NONE, bytes: endpoint_bytes(endpoint), namespace: namespaces.see(endpoint) };
        self.ends.entry(endpoint.serial()).insert(end).into_mut()
    }

    fn is_new<T>(&mut self, part: &Arc<T>, segment: u64) -> bool {
        if self.others.len() >= MOST_OTHERS {
            self.forgotten += self.others.len() as u64;
            self.others.clear();
        }
        self.others.insert(Arc::as_ptr(part).addr(), segment) != Some(segment)
    }

    /// Forgets the namespaces that no flow was of for an hour.
    pub(super) fn forget_namespaces_before_an_hour_of(&mut self, now_ns: i64, namespaces: &Namespaces) {
        let from_ns = now_ns.saturating_sub(HOUR_NS);
        namespaces.forget_before(from_ns);
        // With them the ends whose namespace found no place: there may be one now.
        let is_kept = |last: &Arc<AtomicI64>| last.load(Ordering::Relaxed) >= from_ns;
        self.ends.retain(|_, end| end.namespace.as_ref().is_some_and(is_kept));
    }
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
