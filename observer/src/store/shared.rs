//! The numbers of what flows have in common, with its bytes, counted once a segment, and the namespaces of the ends.

use super::{
    ends::Ends,
    namespaces::{HOUR_NS, Namespaces},
    parts::{Causes, Number, Numbers, Part},
    segment::Segment,
};
use crate::{
    endpoint::{Endpoint, Service, Text},
    flow::{DropSite, Flow, Link, Translated, Tunnel},
    policy_verdict::PolicyVerdict,
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

/// The block that is filled.
#[derive(Debug)]
pub(super) struct Filled {
    /// Segments are told apart by their first sequence number.
    pub(super) segment: u64,
    /// The segment's list of ends.
    pub(super) ends: Arc<Ends>,
    /// Which block of the segment.
    pub(super) block: usize,
    /// What no earlier block of the segment has.
    pub(super) parts: Vec<Part>,
    /// What the parts of the segment take, since this was last looked at.
    pub(super) bytes: usize,
}

impl Filled {
    pub(super) fn new(segment: &Segment) -> Self {
        let ends = Arc::clone(segment.ends());
        Self { segment: segment.base(), ends, block: 0, parts: Vec::new(), bytes: 0 }
    }

    /// From now on it is a next segment's first block.
    pub(super) fn begin(&mut self, segment: &Segment) {
        (self.segment, self.block) = (segment.base(), 0);
        self.ends = Arc::clone(segment.ends());
    }

    fn take(&mut self, part: Part, bytes: usize) -> Number {
        let number = Number::new(self.block, self.parts.len());
        self.parts.push(part);
        self.bytes += size_of::<Part>() + bytes;
        number
    }
}

/// The parts that were met, by the writer alone, by their addresses. While a segment is filled it holds its parts, so an
/// address is that of the same part until the next segment.
#[derive(Debug, Default)]
pub(super) struct Shared {
    ends: HashMap<usize, End>,
    others: HashMap<usize, Other>,
    /// Parts that were forgotten, because there were too many.
    forgotten: u64,
}

#[derive(Debug)]
struct End {
    /// The last segment that has it, and its number there.
    segment: u64,
    number: Number,
    bytes: u32,
    /// See [`Endpoint::serial`].
    serial: NonZeroU64,
    /// When a flow of its namespace was last seen.
    namespace: Option<Arc<AtomicI64>>,
}

impl End {
    fn new(endpoint: &Endpoint, namespaces: &Namespaces) -> Self {
        Self {
            segment: NONE,
            number: Number::NONE,
            bytes: u32::try_from(endpoint_bytes(endpoint)).unwrap_or(u32::MAX),
            serial: endpoint.serial(),
            namespace: namespaces.see(endpoint),
        }
    }
}

#[derive(Debug)]
struct Other {
    segment: u64,
    number: Number,
}

impl Shared {
    /// The numbers of the flow's parts, and the serial numbers of its ends.
    #[inline]
    pub(super) fn number(
        &mut self,
        flow: &Flow<'_>,
        filled: &mut Filled,
        namespaces: &Namespaces,
    ) -> (Numbers, [NonZeroU64; 2]) {
        let (source, source_serial) = self.end(flow.source, flow.time_ns, filled, namespaces);
        let (destination, destination_serial) = self.end(flow.destination, flow.time_ns, filled, namespaces);
        let numbers = Numbers {
            source,
            destination,
            source_service: self.other(flow.source_service, filled, Part::Service, service_bytes),
            destination_service: self.other(flow.destination_service, filled, Part::Service, service_bytes),
            link: self.other(flow.link, filled, Part::Link, |link| size_of::<Link>() + link.name.len()),
            around: match (flow.tunnel, flow.drop, flow.policy, flow.l7) {
                // Each record brings its own.
                (Some(tunnel), ..) => filled.take(Part::Tunnel(Arc::clone(tunnel)), size_of::<Tunnel>()),
                (None, Some(_), Some(verdict), None) => self.verdict(verdict, filled),
                _ => Number::NONE,
            },
            cause: match (flow.drop, flow.policy, flow.l7) {
                (None, None, None) => Number::NONE,
                (Some(_), None, None) => self.other(flow.drop, filled, Part::Drop, site_bytes),
                (Some(_), Some(_), None) if flow.tunnel.is_none() => {
                    self.other(flow.drop, filled, Part::Drop, site_bytes)
                }
                (None, Some(verdict), None) => self.verdict(verdict, filled),
                // Each is another one.
                (None, None, Some(l7)) => filled.take(Part::L7(Arc::clone(l7)), l7.bytes()),
                _ => several(flow, filled),
            },
            translated: self.other(flow.translated, filled, Part::Translated, translated_bytes),
        };
        (numbers, [source_serial, destination_serial])
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    #[inline]
    fn end(
        &mut self,
        endpoint: &Arc<Endpoint>,
        time_ns: i64,
        filled: &mut Filled,
        namespaces: &Namespaces,
    ) -> (Number, NonZeroU64) {
        let end = match self.ends.get(&Arc::as_ptr(endpoint).addr()) {
            Some(end) if end.segment == filled.segment => end,
            _ => self.meet(endpoint, filled, namespaces),
        };
        if let Some(last) = &end.namespace
            && last.load(Ordering::Relaxed) < time_ns
        {
            last.store(time_ns, Ordering::Relaxed);
        }
        (end.number, end.serial)
    }

    /// For the first flow of a segment that has it. The segment's list of ends gets it where that lacks it.
    #[inline(never)]
    fn meet(&mut self, endpoint: &Arc<Endpoint>, filled: &mut Filled, namespaces: &Namespaces) -> &End {
        if self.ends.len() >= MOST_ENDS {
            self.forgotten += self.ends.len() as u64;
            self.ends.clear();
        }
        let new = || End::new(endpoint, namespaces);
        let end = self.ends.entry(Arc::as_ptr(endpoint).addr()).or_insert_with(new);
        if end.serial != endpoint.serial() {
            *end = new();
        }
        if end.segment < filled.ends.first() || end.segment == NONE {
            filled.ends.push(endpoint);
        }
        end.segment = filled.segment;
        end.number = filled.take(Part::End(Arc::clone(endpoint)), end.bytes as usize);
        end
    }

    /// Apart: few flows are verdicts, and none where there are no policies.
    #[cold]
    fn verdict(&mut self, verdict: &Arc<PolicyVerdict>, filled: &mut Filled) -> Number {
        self.other(Some(verdict), filled, Part::Policy, PolicyVerdict::bytes)
    }

    #[inline]
    fn other<T>(
        &mut self,
        part: Option<&Arc<T>>,
        filled: &mut Filled,
        make: fn(Arc<T>) -> Part,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Number {
        let Some(part) = part else { return Number::NONE };
        let address = Arc::as_ptr(part).addr();
        if let Some(known) = self.others.get(&address)
            && known.segment == filled.segment
        {
            return known.number;
        }
        if self.others.len() >= MOST_OTHERS {
            self.forgotten += self.others.len() as u64;
            self.others.clear();
        }
        let number = filled.take(make(Arc::clone(part)), bytes(part));
        self.others.insert(address, Other { segment: filled.segment, number });
        number
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

#[cold]
fn several(flow: &Flow<'_>, filled: &mut Filled) -> Number {
    let causes = Causes { drop: flow.drop.cloned(), policy: flow.policy.cloned(), l7: flow.l7.cloned() };
    let bytes = size_of::<Causes>()
        + flow.drop.map_or(0, |site| site_bytes(site))
        + flow.policy.map_or(0, |policy| policy.bytes())
        + flow.l7.map_or(0, |l7| l7.bytes());
    filled.take(Part::Several(Arc::new(causes)), bytes)
}

fn service_bytes(service: &Service) -> usize {
    size_of::<Service>() + service.name.len() + service.namespace.len()
}

fn translated_bytes(translated: &Translated) -> usize {
    // The lists are shared by others too: counted for each, on the safe side.
    let lists = translated.source_names.iter().chain(&translated.destination_names);
    size_of::<Translated>()
        + lists.flat_map(|names| names.iter()).map(|name| size_of_val(name) + name.len()).sum::<usize>()
}

fn site_bytes(site: &DropSite) -> usize {
    size_of::<DropSite>() + site.kernel_reason.len() + site.location.as_ref().map_or(0, String::len)
}

/// What an endpoint takes on the heap, by and large: strings are counted by length, and three times, because the encoded
/// forms have them again. Labels are counted for each endpoint that shares them, which is on the safe side.
fn endpoint_bytes(endpoint: &Endpoint) -> usize {
    let labels: usize = endpoint.labels.iter().map(|label| 3 * label.len() + size_of::<Text>()).sum();
    let workloads: usize =
        endpoint.workloads.iter().map(|w| size_of_val(w) + 3 * (w.kind.len() + w.name.len())).sum();
    size_of::<Endpoint>()
        + labels
        + workloads
        + 3 * (endpoint.cluster.len() + endpoint.namespace.len() + endpoint.pod_name.len())
}
