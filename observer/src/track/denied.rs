//! Which side denies a connection: told with its first dropped packet, remembered for the further ones.

use super::TrackedDrop;
use crate::decode::Tuple;
use hashbrown::HashMap;
use observer_ebpf::policy::{Judged, decision, judged_flags};
use observer_proto::flow::TrafficDirection;

/// Connections whose denying side is remembered; when there are more all are forgotten, and the sums of those that are
/// told until then have the direction that their ends say.
const MOST_DENIED: usize = 4096;

/// So long a sender tries again that gets no answer: the sixth and last time after twice 63 s.
const TRIES_NS: u64 = 127_000_000_000;

/// By connection and link.
#[derive(Debug, Default)]
pub(super) struct DeniedSides(HashMap<(Tuple, u32), Last>);

/// The last that was told of a connection.
#[derive(Clone, Copy, Debug)]
struct Last {
    direction: TrafficDirection,
    generation: u32,
    kernel_ns: u64,
}

impl DeniedSides {
    /// Gives a drop by policies the direction of the side that denies it.
    pub(super) fn follow(&mut self, drop: &mut TrackedDrop<'_>) {
        let Some(packet) = &drop.event.packet else { return };
        let key = (packet.tuple, drop.event.ifindex);
        if let Some(denied) = &drop.event.denied {
            let Judged { generation, .. } = denied.judged;
            drop.direction = side(&denied.judged);
            if self.0.len() >= MOST_DENIED && !self.0.contains_key(&key) {
                self.0.clear();
            }
            let last = Last { direction: drop.direction, generation, kernel_ns: drop.event.kernel_ns };
            let before = self.0.insert(key, last);
            drop.again = before.is_some_and(|before| {
                (before.direction, before.generation) == (last.direction, generation)
                    && last.kernel_ns.saturating_sub(before.kernel_ns) < TRIES_NS
            });
        } else if let Some(last) = self.0.get(&key) {
            drop.direction = last.direction;
        }
    }
}

/// The side that denies it first. What is denied for some of a service's backends only passes at its source.
fn side(judged: &Judged) -> TrafficDirection {
    let at_source = judged.egress & decision::DENIED != 0 && judged.flags & judged_flags::MIXED == 0;
    if at_source { TrafficDirection::Egress } else { TrafficDirection::Ingress }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decode::{Denied, DropEvent, End, FlowFlags},
        flow::DropSite,
        track::{Ends, judge::judge_drop, tests::Lab, tests::drop_event},
    };
    use TrafficDirection::{Egress, Ingress};
    use observer_ebpf::flow_flags;
    use observer_proto::flow::TraceReason;
    use std::sync::Arc;

    const SECOND: u64 = 1_000_000_000;

    /// A drop by policies: at this second, by this generation, egress and ingress; of a sum nothing is decided.
    fn denied(port: u16, second: u64, decided: Option<(u32, [bool; 2])>) -> DropEvent {
        let end = |last, port| End::new([10, 0, 1, last].into(), port);
        let tuple = Tuple { source: end(1, port), destination: end(2, 80), protocol: 6 };
        let site = DropSite { kernel_reason: String::new(), hubble_reason: 133, location: Err("".into()) };
        let bits = |denies| decision::JUDGED | if denies { decision::DENIED } else { 0 };
        let denied = decided.map(|(generation, [egress, ingress])| Denied {
            judged: Judged { generation, egress: bits(egress), ingress: bits(ingress), flags: 0 },
            flags: FlowFlags(flow_flags::ETHERNET),
            macs: None,
        });
        DropEvent {
            site: Arc::new(site),
            denied,
            sum: denied.is_none(),
            ..drop_event(tuple, second * SECOND)
        }
    }

    #[test]
    fn the_side_that_denies_is_told_and_remembered() {
        let mut sides = DeniedSides::default();
        let mut told = |event: &DropEvent| {
            let ends = Ends::new(event.packet.as_ref(), None);
            let mut drop = judge_drop(event, &ends, &Lab);
            sides.follow(&mut drop);
            (drop.direction, drop.reason, drop.again)
        };
        let new = TraceReason::New;
        let at_destination = Some((4, [false, true]));
        assert_eq!(told(&denied(1, 1, Some((4, [true, true])))), (Egress, new, false));
        assert_eq!(told(&denied(2, 1, at_destination)), (Ingress, new, false));
        // Sent again; then the policies are others, then long nothing came.
        assert_eq!(told(&denied(2, 64, at_destination)), (Ingress, new, true));
        assert_eq!(told(&denied(2, 65, Some((5, [false, true])))), (Ingress, new, false));
        assert_eq!(told(&denied(2, 300, Some((5, [false, true])))), (Ingress, new, false));
        // Of sums only the first packet's side is known; the ends say that this one's source is a pod.
        assert_eq!(told(&denied(2, 301, None)), (Ingress, TraceReason::Unknown, false));
        assert_eq!(told(&denied(3, 301, None)).0, Egress);
        for port in 10..10 + MOST_DENIED as u16 {
            told(&denied(port, 302, at_destination));
        }
        assert!(sides.0.len() <= MOST_DENIED, "{}", sides.0.len());
    }
}
