//! How long the flow table keeps a connection that is silent.

use std::time::Duration;

use observer_ebpf::parse::TCP;
use observer_ebpf::{DENIED, FlowValue, SEEN};

const ACK: u16 = 16;

/// Silence after which a connection is forgotten: mostly, and where the table is crowded.
struct Age(Duration, Duration);

/// One that ended: late segments still find it.
const ENDED: Age = Age(Duration::from_secs(10), Duration::from_secs(1));
/// Without an end of its own, as conntrack does for UDP streams.
const SILENT: Age = Age(Duration::from_mins(2), Duration::from_secs(20));
/// A TCP connection that both sides use. Forgotten, it is judged again as one that was met midway.
const ESTABLISHED: Age = Age(Duration::from_hours(6), Duration::from_mins(5));
/// One that isn't answered, or is denied: its next packet is judged as its first one was.
const REFUSED: Age = Age(Duration::from_mins(1), Duration::from_secs(5));

/// After how long the table forgets the connection. `is_pushed_out`: a full table loses the connection that was used least
/// lately, so those of TCP, which have an end of their own, may stay until then: `None`.
pub(super) fn forgotten_after(
    protocol: u8,
    value: &FlowValue,
    is_over: bool,
    is_pushed_out: bool,
    is_crowded: bool,
) -> Option<Duration> {
    let [a, b] = &value.directions;
    let age = if is_over {
        ENDED
    } else if is_pushed_out {
        if protocol == TCP {
            return None;
        }
        SILENT
    } else if (a.flags | b.flags) & DENIED != 0 || (protocol == TCP && a.seen & b.seen & ACK == 0) {
        REFUSED
    } else if protocol == TCP {
        ESTABLISHED
    } else if a.seen & b.seen & SEEN == 0 {
        REFUSED
    } else {
        SILENT
    };
    Some(if is_crowded { age.1 } else { age.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use observer_ebpf::FlowDirection;
    use observer_ebpf::parse::UDP;

    const SYN: u16 = 2;

    fn value(seen: [u16; 2], flags: u8) -> FlowValue {
        let directions = seen.map(|seen| FlowDirection { seen, flags, ..FlowDirection::default() });
        FlowValue { directions, ..FlowValue::default() }
    }

    #[test]
    fn a_table_that_pushes_out_keeps_what_has_an_end_of_its_own() {
        let open = value([SEEN | SYN | ACK, SEEN | SYN | ACK], 0);
        let after = |protocol, is_over| forgotten_after(protocol, &open, is_over, true, false);
        assert_eq!(after(TCP, false), None);
        assert_eq!(after(TCP, true), Some(Duration::from_secs(10)));
        assert_eq!(after(UDP, false), Some(Duration::from_mins(2)));
    }

    #[test]
    fn one_that_does_not_keeps_what_is_used_and_the_less_the_fuller_it_is() {
        let both = SEEN | ACK;
        for (protocol, seen, flags, calm, crowded) in [
            (TCP, [both, both], 0, 6 * 3600, 300),
            (TCP, [SEEN | SYN, 0], 0, 60, 5),
            (TCP, [SEEN | SYN, SEEN | SYN | ACK], 0, 60, 5),
            (TCP, [both, both], DENIED, 60, 5),
            (UDP, [SEEN, SEEN], 0, 120, 20),
            (UDP, [SEEN, 0], 0, 60, 5),
        ] {
            let value = value(seen, flags);
            let after = |is_crowded| forgotten_after(protocol, &value, false, false, is_crowded).unwrap();
            assert_eq!(after(false), Duration::from_secs(calm), "{protocol} {seen:?} {flags}");
            assert_eq!(after(true), Duration::from_secs(crowded), "{protocol} {seen:?} {flags}");
        }
    }
}
