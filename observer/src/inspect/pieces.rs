//! What a row of a table says, protocol by protocol.

use observer_ebpf::policy::{PolicyCut, cut_key};

/// Behind the last port of the last protocol.
const END: u32 = cut_key(255, 65_535) + 1;
/// Ports of a protocol.
const PORTS: u32 = 1 << 16;

/// Protocols, or ports of one, of which the same holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The first protocol and the last; nothing for all that no other piece of the row names.
    pub(super) protocols: Option<(u8, u8)>,
    /// Of one protocol the first port and the last; nothing for all.
    pub(super) ports: Option<(u16, u16)>,
    /// As it stands in the map.
    pub(super) decision: u32,
}

/// The pieces of a row; that of most ports is the last one, as all the others.
pub(super) fn pieces(cuts: &[PolicyCut]) -> Vec<Piece> {
    let ends = cuts.iter().skip(1).map(|cut| cut.from).chain([END]);
    let spans: Vec<(u32, u32, u32)> =
        cuts.iter().zip(ends).map(|(cut, end)| (cut.from, end.min(END), cut.decision)).collect();
    let ports = |decision: u32| -> u32 {
        spans.iter().filter(|span| span.2 == decision).map(|(from, end, _)| end.saturating_sub(*from)).sum()
    };
    let Some(most) = spans.iter().map(|span| span.2).max_by_key(|decision| ports(*decision)) else {
        return Vec::new();
    };
    let mut pieces = Vec::new();
    for &(mut from, end, decision) in spans.iter().filter(|span| span.2 != most) {
        while from < end {
            let protocol = protocol(from);
            let (next, piece) = if from.is_multiple_of(PORTS) && end - from >= PORTS {
                let next = end - end % PORTS;
                (next, Piece { protocols: Some((protocol, self::protocol(next - 1))), ports: None, decision })
            } else {
                let next = end.min(from - from % PORTS + PORTS);
                let ports = Some(((from % PORTS) as u16, ((next - 1) % PORTS) as u16));
                (next, Piece { protocols: Some((protocol, protocol)), ports, decision })
            };
            pieces.push(piece);
            from = next;
        }
    }
    pieces.push(Piece { protocols: None, ports: None, decision: most });
    pieces
}

/// It stands in the third byte.
fn protocol(cut: u32) -> u8 {
    (cut >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cuts: &[(u32, u32)]) -> Vec<String> {
        let cuts: Vec<_> =
            cuts.iter().map(|(from, decision)| PolicyCut { from: *from, decision: *decision }).collect();
        let text = |piece: Piece| {
            let protocols =
                piece.protocols.map_or("rest".to_owned(), |(first, last)| format!("{first}-{last}"));
            let ports = piece.ports.map_or(String::new(), |(first, last)| format!(":{first}-{last}"));
            format!("{protocols}{ports}={}", piece.decision)
        };
        pieces(&cuts).into_iter().map(text).collect()
    }

    #[test]
    fn a_row_falls_into_protocols_and_ports() {
        let (tcp, udp) = (cut_key(6, 0), cut_key(17, 0));
        for (cuts, expected) in [
            (&[][..], &[][..]),
            (&[(0, 9)], &["rest=9"]),
            // One port.
            (&[(0, 1), (tcp + 80, 2), (tcp + 81, 1)], &["6-6:80-80=2", "rest=1"]),
            // From a port on to the end of the protocol after the next.
            (
                &[(0, 1), (tcp + 1000, 2), (cut_key(8, 10), 1)],
                &["6-6:1000-65535=2", "7-7=2", "8-8:0-9=2", "rest=1"],
            ),
            // Whole protocols, up to the very last.
            (&[(0, 1), (udp, 2)], &["0-16=1", "rest=2"]),
            (&[(0, 1), (udp, 2), (udp + PORTS, 1)], &["17-17=2", "rest=1"]),
            (&[(0, 1), (END - 1, 2)], &["255-255:65535-65535=2", "rest=1"]),
            // The same decision on both sides of another is the rest on both.
            (
                &[(0, 3), (udp + 53, 4), (udp + 54, 3), (cut_key(200, 0), 5)],
                &["17-17:53-53=4", "200-255=5", "rest=3"],
            ),
        ] {
            assert_eq!(shown(cuts), expected, "{cuts:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_port_of_every_protocol_is_in_one_piece(
            froms in proptest::collection::btree_set(1..END, 0..12),
            decisions in proptest::collection::vec(0u32..4, 13),
            asked in proptest::collection::vec(0..END, 50),
        ) {
            let froms = std::iter::once(0).chain(froms);
            let cuts: Vec<_> = froms.zip(decisions).map(|(from, decision)| PolicyCut { from, decision }).collect();
            let pieces = pieces(&cuts);
            for key in asked.into_iter().chain(cuts.iter().map(|cut| cut.from)) {
                let expected = cuts[cuts.partition_point(|cut| cut.from <= key) - 1].decision;
                let has = |piece: &&Piece| {
                    let (first, last) = piece.protocols.unwrap_or((0, 0));
                    let (low, high) = piece.ports.unwrap_or((0, u16::MAX));
                    piece.protocols.is_some() && (first..=last).contains(&protocol(key)) && (low..=high).contains(&(key as u16))
                };
                let found: Vec<_> = pieces.iter().filter(has).collect();
                proptest::prop_assert!(found.len() <= 1);
                let decided = found.first().copied().or(pieces.last()).unwrap().decision;
                proptest::prop_assert_eq!(decided, expected);
            }
        }
    }
}
