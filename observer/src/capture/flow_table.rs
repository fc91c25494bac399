//! The flow table as the sweep sees it: two maps, one of them with a shorter key.

use std::collections::HashSet;

use aya::maps::{HashMap, MapData};
use observer_ebpf::{Ends, FlowKey, FlowValue, ShortKey, ShortValue};

use super::pod::Raw;

/// Where a connection stands. The same ends may stand in both: an IPv6 header may hold mapped IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Short(ShortKey, Ends),
    Long(FlowKey),
}

impl Place {
    /// What stands there, with the ports of its packets.
    pub(super) fn key(self) -> FlowKey {
        match self {
            Self::Short(key, ends) => key.between(ends),
            Self::Long(key) => key.with_ports(),
        }
    }
}

/// Connections whose short key another one has. As long as one is there the other one's entry stays: without it the next
/// packet would be the first of a new connection, which the sender of the other one could bring about.
#[derive(Debug, Default)]
pub(super) struct Twins(HashSet<ShortKey>);

impl Twins {
    /// Whether what stands there may go, of [`FlowTable::iter`]'s one after the other.
    pub(super) fn may_go(&mut self, place: &Place) -> bool {
        match place {
            Place::Long(key) => {
                self.0.extend(ShortKey::of_twin(key));
                true
            }
            Place::Short(key, _) => !self.0.contains(key),
        }
    }
}

pub(super) struct FlowTable {
    pub(super) short: HashMap<MapData, Raw<ShortKey>, Raw<ShortValue>>,
    pub(super) long: HashMap<MapData, Raw<FlowKey>, Raw<FlowValue>>,
    /// How many connections each may hold.
    pub(super) entries: usize,
    /// Whether a full one loses what was used least lately, and not what comes.
    pub(super) is_pushed_out: bool,
}

impl FlowTable {
    /// All connections, those without a short key first, some perhaps twice: an entry that goes while it is the walk's
    /// place starts the walk anew, hence a bound.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, FlowValue)> {
        let bound = 2 * self.entries;
        let short = self.short.iter().filter_map(Result::ok).take(bound);
        let long = self.long.iter().filter_map(Result::ok).take(bound);
        let short = short.map(|(Raw(key), Raw(value))| (Place::Short(key, value.ends), value.flow));
        long.map(|(Raw(key), Raw(value))| (Place::Long(key), value)).chain(short)
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        match place {
            Place::Short(key, ends) => {
                self.short.get(&Raw(*key), 0).is_ok_and(|Raw(value)| value.ends == *ends)
            }
            Place::Long(key) => self.long.get(&Raw(*key), 0).is_ok(),
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        // Evicted already is as good.
        let _ = match place {
            Place::Short(key, _) => self.short.remove(&Raw(*key)),
            Place::Long(key) => self.long.remove(&Raw(*key)),
        };
    }
}

#[cfg(test)]
mod tests {
    use observer_ebpf::parse::{TCP, UDP};

    use super::*;

    #[test]
    fn an_entry_stays_with_its_twin() {
        let long =
            FlowKey { local: [1; 16], remote: [2; 16], ifindex: 7, protocol: TCP, ..FlowKey::default() };
        let short = |key: &FlowKey| Place::Short(ShortKey::of_twin(key).unwrap(), Ends::default());
        let mut twins = Twins::default();
        assert!(twins.may_go(&Place::Long(long)));
        assert!(!twins.may_go(&short(&long)));
        assert!(twins.may_go(&short(&FlowKey { protocol: UDP, ..long })));
        assert!(twins.may_go(&short(&FlowKey { ifindex: 8, ..long })));
        assert!(Twins::default().may_go(&short(&long)));
    }
}
