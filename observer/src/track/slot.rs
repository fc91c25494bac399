//! Where the table of connections keeps one of them: a line of the processor's cache, as a look-up waits for each.

use super::connection::Entry;
use crate::decode::{End, Tuple};
use std::num::NonZeroU64;

/// One connection. Most are not translated, and their answers' tuple says nothing that their own does not.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    original: Packed,
    /// Where something is translated.
    reply: Option<Box<Tuple>>,
    /// Kernel time when its end was learned.
    pub(super) ended_ns: Option<NonZeroU64>,
    /// The kernel's number for it.
    pub(super) id: u32,
    /// The dump, by its number, during or after which the kernel last told of it.
    pub(super) seen: u32,
}

const _: () = assert!(size_of::<Option<Slot>>() == 64);

impl Slot {
    pub(super) fn new(entry: &Entry, seen: u32) -> Self {
        let Entry { id, original, reply } = *entry;
        let reply = (reply != original.reversed()).then(|| Box::new(reply));
        Self { original: Packed::new(&original), reply, ended_ns: None, id, seen }
    }

    /// As the opener sends.
    #[inline]
    pub(super) fn original(&self) -> Tuple {
        self.original.tuple()
    }

    /// Nothing where nothing is translated.
    #[inline]
    pub(super) fn translated(&self) -> Option<Entry> {
        self.reply.as_ref().map(|reply| Entry { id: self.id, original: self.original(), reply: **reply })
    }

    pub(super) fn entry(&self) -> Entry {
        let original = self.original();
        self.translated().unwrap_or_else(|| Entry { id: self.id, original, reply: original.reversed() })
    }

    /// One of [`Entry::views`].
    #[inline]
    pub(super) fn view(&self, number: u32) -> Tuple {
        self.translated().map_or_else(|| self.original(), |entry| entry.view(number))
    }
}

/// A tuple without the space between its ends.
#[derive(Debug)]
struct Packed {
    source: [u64; 2],
    destination: [u64; 2],
    ports: [u16; 2],
    are_v6: [bool; 2],
    protocol: u8,
}

impl Packed {
    fn new(tuple: &Tuple) -> Self {
        let address = |end: End| {
            let [high, low, _] = end.words();
            [high, low]
        };
        let Tuple { source, destination, protocol } = *tuple;
        Self {
            source: address(source),
            destination: address(destination),
            ports: [source.port(), destination.port()],
            are_v6: [source.ip().is_ipv6(), destination.ip().is_ipv6()],
            protocol,
        }
    }

    #[inline]
    fn tuple(&self) -> Tuple {
        let end = |[high, low]: [u64; 2], port, is_v6| End::of_words(high, low, port, is_v6);
        Tuple {
            source: end(self.source, self.ports[0], self.are_v6[0]),
            destination: end(self.destination, self.ports[1], self.are_v6[1]),
            protocol: self.protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::IpAddr;

    fn tuples() -> impl Strategy<Value = Tuple> {
        let ends = (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| End::new(ip, port));
        let ends = proptest::array::uniform2(ends);
        (ends, any::<u8>()).prop_map(|([source, destination], protocol)| Tuple {
            source,
            destination,
            protocol,
        })
    }

    proptest! {
        #[test]
        fn an_entry_comes_out_as_it_went_in(original in tuples(), other in tuples(), plain in any::<bool>(), id: u32) {
            let entry = Entry { id, original, reply: if plain { original.reversed() } else { other } };
            let slot = Slot::new(&entry, 7);
            prop_assert_eq!(slot.entry(), entry);
            prop_assert_eq!(slot.translated().is_none(), entry.reply == original.reversed());
            for number in 0..3 {
                prop_assert_eq!(slot.view(number), entry.view(number));
            }
        }
    }
}
