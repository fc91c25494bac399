//! The tables as the kernel's maps hold them: by subject, direction, peer and a prefix of protocol and port.

use super::{Engine, PeerId, RuleSetId, SubjectId, rules::key, table::Row};
use crate::model::Direction;
use ipnet::IpNet;

/// One entry of the map that holds a table; of those that hold for a packet the longest prefix decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// `None`: every peer without entries of its own.
    pub peer: Option<PeerId>,
    /// IANA's number.
    pub protocol: u8,
    /// A port, or an ICMP type.
    pub port: u16,
    /// How many bits of protocol and port count: 0 none, 8 the protocol, 24 both.
    pub bits: u8,
    /// Verdicts and names.
    pub rules: RuleSetId,
}

const BITS: u8 = 24;

impl Engine {
    /// The entries for a subject; `None` where nothing is judged.
    pub fn entries(&self, subject: SubjectId, direction: Direction) -> Option<Vec<Entry>> {
        let table = self.table(subject, direction)?;
        let mut entries = Vec::new();
        for (peer, row) in table.rows() {
            prefixes(row, |first, bits, rules| {
                let (protocol, port) = ((first >> 16) as u8, first as u16);
                entries.push(Entry { peer: peer.map(PeerId), protocol, port, bits, rules });
            });
        }
        Some(entries)
    }

    /// The world's peers by net: the longest that has an address decides, and [`Engine::peer_at`] says the same.
    pub fn world_nets(&self) -> impl Iterator<Item = (IpNet, PeerId)> + '_ {
        self.addresses.nets().filter_map(|(net, group)| {
            let class = self.world[usize::from(matches!(net, IpNet::V6(_)))];
            self.peers.number(super::peers::Peer { class, group }).map(|number| (net, PeerId(number)))
        })
    }
}

/// Cuts a row into prefixes that do not overlap, but for the most usual set of rules, which is the shortest prefix.
fn prefixes(row: &Row, mut each: impl FnMut(u32, u8, RuleSetId)) {
    // What holds at the end of the order, for protocols nobody names, is what holds for most.
    let Some(usual) = row.last().and_then(|(_, decision)| decision.rules) else { return };
    each(0, 0, usual);
    let last = key(u8::MAX, u16::MAX);
    for (place, &(first, decision)) in row.iter().enumerate() {
        let Some(rules) = decision.rules.filter(|rules| *rules != usual) else { continue };
        let end = row.get(place + 1).map_or(last, |(next, _)| next - 1);
        let mut at = first;
        loop {
            // The largest aligned block that starts here and does not reach over the end.
            let mut size = if at == 0 { BITS } else { (at.trailing_zeros() as u8).min(BITS) };
            while u64::from(at) + (1 << size) - 1 > u64::from(end) {
                size -= 1;
            }
            each(at, BITS - size, rules);
            let next = u64::from(at) + (1 << size);
            if next > u64::from(end) {
                break;
            }
            at = next as u32;
        }
    }
}
