//! Who opened a connection, between whom it really is, and which of the records that tell of it is shown.

mod connection;
mod conntrack;
mod ctnetlink;
mod denied;
mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod judge;
mod netlink;
mod slot;

pub use connection::{Entry, Translation, Update};
pub use conntrack::{ConntrackTable, TableCounters, TableLimits};
pub use judge::{Addresses, Ends, Suppressed, TrackedDrop, TrackedFlow};
pub use netlink::{ConntrackSource, SourceCounters, SourceOptions, Unavailable};

use crate::decode::{Event, FactEvent, FlowEvent, FlowReason, Hook, Packet, Tuple};
use denied::DeniedSides;
use facts::Facts;
use observer_ebpf::{flow_flags, policy::Judged};

/// How old a record may be that waits for conntrack's word, nanoseconds. The kernel tells of a connection when its first
/// packet leaves the stack, microseconds after it came in.
const LONGEST_WAIT_NS: u64 = 2_000_000;
/// Records that may wait: what comes in 2 ms at two million records a second.
const MOST_WAITING: usize = 4096;

/// Records that are looked up together, and then taken: what stays in the fastest cache.
const TOGETHER: usize = 64;

/// What the stage hands on.
#[derive(Clone, Debug)]
pub enum Tracked<'a> {
    /// A flow.
    Flow(TrackedFlow<'a>),
    /// A drop.
    Drop(TrackedDrop<'a>),
}

/// What the kernel side decided of a connection, since policies say something of it.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'a> {
    /// What it decided.
    pub judged: &'a Judged,
    /// Whether it was told with an earlier packet, which was denied, too.
    pub again: bool,
}

impl Tracked<'_> {
    /// What the kernel side decided of the connection, where policies say anything of it.
    #[inline]
    pub fn decided(&self) -> Option<Decided<'_>> {
        let (judged, again) = match self {
            Self::Flow(flow) => (flow.event.judged.as_ref(), false),
            Self::Drop(drop) => (drop.event.denied.as_ref().map(|denied| &denied.judged), drop.again),
        };
        judged.map(|judged| Decided { judged, again })
    }
}

/// What the stage did so far. Records taken in = `flows` + `drops` + `facts` + `facts_turned_away` +
/// `facts_without_ends` + all that were suppressed + [`Tracker::waiting`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackCounters {
    /// Flows handed on.
    pub flows: u64,
    /// Drops handed on.
    pub drops: u64,
    /// Facts taken in.
    pub facts: u64,
    /// Facts for which there was no room.
    pub facts_turned_away: u64,
    /// Facts that name no connection.
    pub facts_without_ends: u64,
    /// See [`Suppressed::LocalDelivery`].
    pub local_delivery: u64,
    /// See [`Suppressed::TranslatedLocal`].
    pub translated_local: u64,
    /// See [`Suppressed::Masqueraded`].
    pub masqueraded: u64,
    /// See [`Suppressed::Forwarded`].
    pub forwarded: u64,
    /// See [`Suppressed::Carried`].
    pub carried: u64,
    /// Records whose addresses conntrack corrected.
    pub translated: u64,
    /// Records whose guessed opener conntrack knew.
    pub openers_known: u64,
    /// Flows handed on with a guessed opener.
    pub openers_guessed: u64,
    /// Times that a record began to wait for conntrack's word.
    pub waited: u64,
    /// Records that should have waited, but too many were waiting.
    pub wait_refused: u64,
}

impl TrackCounters {
    /// All records that are not told because another one tells of the packet.
    pub fn suppressed(&self) -> u64 {
        self.local_delivery + self.translated_local + self.masqueraded + self.forwarded + self.carried
    }
}

/// The stage.
#[derive(Debug, Default)]
pub struct Tracker {
    facts: Facts,
    denied: DeniedSides,
    /// In the order of kernel time.
    waiting: Vec<Event>,
    /// The first one waits for conntrack, the others for the first; else all came too late for the last batch.
    for_conntrack: bool,
    counters: TrackCounters,
}

impl Tracker {
    /// What was done so far.
    pub fn counters(&self) -> TrackCounters {
        self.counters
    }

    /// Records that wait for the next batch.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Kernel time of the first of them, nanoseconds.
    pub fn oldest_waiting_ns(&self) -> Option<u64> {
        self.waiting.first().map(Event::kernel_ns)
    }

    /// Whether they wait for conntrack's word; the next batch should then come within 2 ms.
    pub fn waits_for_conntrack(&self) -> bool {
        self.for_conntrack
    }

    /// Takes all of `events`, and hands on what is told to `tell`, in the order of kernel time.
    ///
    /// `conntrack` was drained after the events were read; without it services are known by their address only.
    /// `now_ns` is kernel time, up to which the events are complete; later ones wait for the next batch, which may bring
    /// what came before them. With `u64::MAX` nothing waits any longer.
    pub fn batch(
        &mut self,
        events: &mut Vec<Event>,
        conntrack: Option<&ConntrackTable>,
        now_ns: u64,
        addresses: &impl Addresses,
        tell: &mut impl FnMut(&Tracked<'_>),
    ) {
        if self.waiting.is_empty() {
            std::mem::swap(&mut self.waiting, events);
        } else {
            self.waiting.append(events);
        }
        // Two rings and several CPUs: often in order, else but for a few. Sorting takes memory for its time.
        let mut waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_sorted_by_key(Event::kernel_ns) {
            waiting.sort_by_key(Event::kernel_ns);
        }
        let complete = waiting.partition_point(|event| event.kernel_ns() <= now_ns);
        let complete = complete.max(waiting.len().saturating_sub(MOST_WAITING));
        self.for_conntrack = false;
        let mut taken = 0;
        while taken < complete && !self.for_conntrack {
            let together = &waiting[taken..complete.min(taken + TOGETHER)];
            let behind = waiting.len() - taken;
            let done = self.take_together(together, behind, conntrack, now_ns, addresses, tell);
            taken += done;
            self.for_conntrack = done < together.len();
        }
        waiting.drain(..taken);
        self.waiting = waiting;
    }

    /// How many of `events` were taken; the first of the others waits for conntrack. `behind` are they and all that wait
    /// behind them.
    fn take_together(
        &mut self,
        events: &[Event],
        behind: usize,
        conntrack: Option<&ConntrackTable>,
        now_ns: u64,
        addresses: &impl Addresses,
        tell: &mut impl FnMut(&Tracked<'_>),
    ) -> usize {
        let translations = translate(events, conntrack);
        for (taken, (event, translation)) in events.iter().zip(&translations).enumerate() {
            if translation.is_none()
                && let Some(table) = conntrack
                && may_be_translated_yet(event, table, now_ns, addresses)
            {
                if behind - taken <= MOST_WAITING {
                    self.counters.waited += 1;
                    return taken;
                }
                self.counters.wait_refused += 1;
            }
            self.take(event, translation.as_ref(), addresses, tell);
        }
        events.len()
    }

    fn take(
        &mut self,
        event: &Event,
        translation: Option<&Translation>,
        addresses: &impl Addresses,
        tell: &mut impl FnMut(&Tracked<'_>),
    ) {
        let changed = |t: &Translation| t.destination_translated() || t.source_translated();
        self.counters.translated += u64::from(translation.is_some_and(changed));
        match event {
            Event::Flow(event) => {
                let ends = Ends::new(event.packet.as_ref(), translation);
                if let Some(flow) = self.flow(event, &ends, translation, addresses) {
                    tell(&Tracked::Flow(flow));
                }
            }
            Event::Drop(event) => {
                self.counters.drops += 1;
                // Hubble has no `source_xlated` on a drop.
                let ends = Ends { source_xlated: None, ..Ends::new(event.packet.as_ref(), translation) };
                let mut dropped = judge::judge_drop(event, &ends, addresses);
                if event.site.is_by_policies() {
                    self.denied.follow(&mut dropped);
                }
                if let Some(packet) = &dropped.event.packet
                    && !self.facts.is_empty()
                {
                    let (retransmits, notes) = self.facts.of(&connection(packet, translation), None, false);
                    dropped.retransmits = retransmits;
                    dropped.notes.set(notes);
                }
                tell(&Tracked::Drop(dropped));
            }
            Event::Fact(event) => self.fact(event, translation),
        }
    }

    fn flow<'a>(
        &mut self,
        event: &'a FlowEvent,
        ends: &'a Ends,
        translation: Option<&Translation>,
        addresses: &impl Addresses,
    ) -> Option<TrackedFlow<'a>> {
        let counters = &mut self.counters;
        let guessed = event.flags.has(flow_flags::OPENER_GUESSED);
        counters.openers_known += u64::from(guessed && translation.is_some());
        let mut flow = match judge::judge_flow(event, ends, translation, addresses) {
            Ok(flow) => flow,
            Err(why) => {
                *match why {
                    Suppressed::LocalDelivery => &mut counters.local_delivery,
                    Suppressed::TranslatedLocal => &mut counters.translated_local,
                    Suppressed::Masqueraded => &mut counters.masqueraded,
                    Suppressed::Forwarded => &mut counters.forwarded,
                    Suppressed::Carried => &mut counters.carried,
                } += 1;
                return None;
            }
        };
        counters.flows += 1;
        counters.openers_guessed += u64::from(guessed && translation.is_none());
        if let Some(packet) = &flow.event.packet
            && !self.facts.is_empty()
        {
            let reason = flow.event.reason;
            let begun_ns = (reason == FlowReason::New).then_some(flow.event.first_ns);
            let is_final = reason == FlowReason::Sweep;
            let connection = connection(packet, translation);
            let (retransmits, notes) = self.facts.of(&connection, begun_ns, is_final);
            flow.retransmits = retransmits;
            flow.notes.set(notes);
        }
        Some(flow)
    }

    fn fact(&mut self, event: &FactEvent, translation: Option<&Translation>) {
        let Some(packet) = &event.packet else {
            self.counters.facts_without_ends += 1;
            return;
        };
        let before = self.facts.turned_away;
        self.facts.add(&connection(packet, translation), event);
        let turned_away = self.facts.turned_away - before;
        self.counters.facts_turned_away += turned_away;
        self.counters.facts += 1 - turned_away;
    }
}

/// The connection that a packet belongs to, the same for each way in which it is seen.
fn connection(packet: &Packet, translation: Option<&Translation>) -> Tuple {
    translation.map_or(packet.tuple, |known| Tuple {
        source: known.client,
        destination: known.backend,
        protocol: packet.tuple.protocol,
    })
}

/// What conntrack knows of each. Every step of a look-up waits for memory, but of several look-ups the same steps wait
/// together: so all take the first, then all the second.
fn translate(events: &[Event], conntrack: Option<&ConntrackTable>) -> [Option<Translation>; TOGETHER] {
    let mut translations = [None; TOGETHER];
    let Some(conntrack) = conntrack else { return translations };
    let mut hashes = [0; TOGETHER];
    for (event, hash) in events.iter().zip(&mut hashes) {
        *hash = tuple(event).map_or(0, |tuple| conntrack.hash(tuple));
    }
    let found = hashes.map(|hash| conntrack.find(hash));
    for ((event, found), translation) in events.iter().zip(found).zip(&mut translations) {
        let opened_ns = match event {
            Event::Flow(flow) if opens(flow) => Some(flow.kernel_ns),
            _ => None,
        };
        *translation =
            found.zip(tuple(event)).and_then(|(found, tuple)| conntrack.translation(found, tuple, opened_ns));
    }
    translations
}

/// Nothing where conntrack can't know the packet.
fn tuple(event: &Event) -> Option<&Tuple> {
    match event {
        // Its addresses are of another network.
        Event::Flow(FlowEvent { tunnel: Some(_), .. }) => None,
        _ => event.packet().map(|packet| &packet.tuple),
    }
}

/// Whether the record tells of the opener's first packet.
fn opens(flow: &FlowEvent) -> bool {
    judge::is_first(flow)
        && !flow.flags.has(flow_flags::REPLY | flow_flags::OPENER_GUESSED | flow_flags::RELATED)
}

/// Whether conntrack may have a word on this packet that it hasn't said yet.
fn may_be_translated_yet(
    event: &Event,
    conntrack: &ConntrackTable,
    now_ns: u64,
    addresses: &impl Addresses,
) -> bool {
    let Event::Flow(flow) = event else {
        // A dropped packet's connection is never told of, unless it was before.
        return false;
    };
    if flow.tunnel.is_some() {
        return false;
    }
    // What leaves the stack has passed conntrack's last hook, and its events were read after this record.
    let is_before_conntrack = flow.hook == Hook::Ingress && opens(flow);
    // At the end nothing is, whatever time a record bears.
    let is_young = now_ns != u64::MAX && now_ns.saturating_sub(flow.kernel_ns) < LONGEST_WAIT_NS;
    let may_be_service = flow.packet.is_some_and(|packet| {
        let to = packet.tuple.destination;
        is_tracked(&packet) && !to.ip().is_multicast() && !addresses.is_local_pod(&to)
    });
    // No connection ever: no rule in this namespace asks for conntrack.
    is_before_conntrack && is_young && may_be_service && conntrack.counters().added > 0
}

/// Whether conntrack has an entry for such packets.
fn is_tracked(packet: &Packet) -> bool {
    const ECHO_REQUEST: (u8, u8) = (1, 8);
    const ECHO_REQUEST_V6: (u8, u8) = (58, 128);
    match packet.tuple.protocol {
        6 | 17 | 132 => true,
        protocol => [ECHO_REQUEST, ECHO_REQUEST_V6].contains(&(protocol, packet.icmp_type)),
    }
}

#[cfg(test)]
mod tests;
