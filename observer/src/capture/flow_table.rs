//! The flow table as the sweep sees it: two maps, one of them with a shorter key.

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

pub(super) struct FlowTable {
    pub(super) short: HashMap<MapData, Raw<ShortKey>, Raw<ShortValue>>,
    pub(super) long: HashMap<MapData, Raw<FlowKey>, Raw<FlowValue>>,
    /// How many connections each may hold.
    pub(super) entries: usize,
    /// Whether a full one loses what was used least lately, and not what comes.
    pub(super) is_pushed_out: bool,
}

impl FlowTable {
    /// All connections, some perhaps twice: an entry that goes while it is the walk's place starts the walk anew, hence
    /// a bound.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Place, FlowValue)> {
        let bound = 2 * self.entries;
        let short = self.short.iter().filter_map(Result::ok).take(bound);
        let long = self.long.iter().filter_map(Result::ok).take(bound);
        short
            .map(|(Raw(key), Raw(value))| (Place::Short(key, value.ends), value.flow))
            .chain(long.map(|(Raw(key), Raw(value))| (Place::Long(key), value)))
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
