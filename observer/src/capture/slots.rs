//! A kind of table in two slots: a map in a map for each, and what it holds.

use std::hash::Hash;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap as KernelHash, InnerMap, Map, MapData, MapError};
use aya::{Ebpf, EbpfLoader};
use hashbrown::{HashMap, HashSet};
use observer_ebpf::lines::{Line, Shape};
use observer_ebpf::policy::{EndpointLine, PolicyEndpoint, RowLine};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::error::{CaptureError, chain};
use super::lines::Lines;
use super::near::NearRows;
use super::object::JUDGING_OBJECT;
use super::pod::Raw;

/// What stands in a map as it is.
pub(super) trait Plain: Copy + FromBytes + IntoBytes + Immutable + PartialEq + 'static {}
impl<T: Copy + FromBytes + IntoBytes + Immutable + PartialEq + 'static> Plain for T {}

/// A kind of table.
pub(super) trait Kind {
    type Content;
    type Map: InnerMap + TryFrom<Map, Error = MapError>;
    /// What a map is known to hold.
    type Held;

    fn len(content: &Self::Content) -> usize;

    /// How many entries of a map so much needs.
    fn needed(len: usize) -> usize {
        len
    }

    /// What a new map of so many entries holds.
    fn nothing(entries: usize) -> Self::Held;

    /// Makes a map that holds `held` hold `wanted`. False where it has no room for it all the same; then it holds anything.
    fn turn(map: &mut Self::Map, held: &mut Self::Held, wanted: &Self::Content) -> Result<bool, MapError>;
}

/// By key.
pub(super) struct Exact<K, V>(std::marker::PhantomData<(K, V)>);

impl<K: Plain + Eq + Hash, V: Plain> Kind for Exact<K, V> {
    type Content = HashMap<K, V>;
    type Map = KernelHash<MapData, Raw<K>, Raw<V>>;
    type Held = Self::Content;

    fn len(content: &Self::Content) -> usize {
        content.len()
    }

    fn nothing(_: usize) -> Self::Held {
        HashMap::new()
    }

    fn turn(map: &mut Self::Map, held: &mut Self::Held, wanted: &Self::Content) -> Result<bool, MapError> {
        for key in held.keys().filter(|key| !wanted.contains_key(*key)) {
            map.remove(&Raw(*key))?;
        }
        for (key, value) in wanted.iter().filter(|(key, value)| held.get(*key) != Some(*value)) {
            map.insert(Raw(*key), Raw(*value), 0)?;
        }
        held.clone_from(wanted);
        Ok(true)
    }
}

/// By key, in lines of the cache.
pub(super) struct InLines<L>(std::marker::PhantomData<L>);

impl<L> Kind for InLines<L>
where
    L: Line + Plain,
    L::Key: Eq + Hash,
    L::Value: PartialEq,
{
    type Content = HashMap<L::Key, L::Value>;
    type Map = Array<MapData, Raw<L>>;
    type Held = Lines<L>;

    fn len(content: &Self::Content) -> usize {
        content.len()
    }

    fn needed(len: usize) -> usize {
        Lines::<L>::needed(len)
    }

    fn nothing(entries: usize) -> Self::Held {
        Lines::new(entries)
    }

    fn turn(map: &mut Self::Map, held: &mut Self::Held, wanted: &Self::Content) -> Result<bool, MapError> {
        bring(map, held, |key| wanted.contains_key(key), wanted.iter().map(|(key, value)| (*key, *value)))
    }
}

/// [`Kind::turn`] for a table of lines.
fn bring<L: Line<Value: PartialEq> + Plain>(
    map: &mut Array<MapData, Raw<L>>,
    held: &mut Lines<L>,
    is_wanted: impl Fn(&L::Key) -> bool,
    wanted: impl Iterator<Item = (L::Key, L::Value)>,
) -> Result<bool, MapError> {
    let gone: Vec<L::Key> = held.iter().map(|(key, _)| *key).filter(|key| !is_wanted(key)).collect();
    for key in &gone {
        held.remove(key);
    }
    for (key, value) in wanted {
        if held.get(&key) != Some(value) && held.put(key, value).is_err() {
            return Ok(false);
        }
    }
    write(map, held)
}

/// By address, the longest prefix that it has.
pub(super) struct Longest;

impl Kind for Longest {
    type Content = HashMap<(u8, [u8; 16]), u32>;
    type Map = LpmTrie<MapData, [u8; 16], u32>;
    type Held = Self::Content;

    fn len(content: &Self::Content) -> usize {
        content.len()
    }

    fn nothing(_: usize) -> Self::Held {
        HashMap::new()
    }

    fn turn(map: &mut Self::Map, held: &mut Self::Held, wanted: &Self::Content) -> Result<bool, MapError> {
        let key = |(bits, address): &(u8, [u8; 16])| Key::new(u32::from(*bits), *address);
        for net in held.keys().filter(|net| !wanted.contains_key(*net)) {
            map.remove(&key(net))?;
        }
        for (net, peer) in wanted.iter().filter(|(net, peer)| held.get(*net) != Some(*peer)) {
            map.insert(&key(net), peer, 0)?;
        }
        held.clone_from(wanted);
        Ok(true)
    }
}

/// By number. What is behind the end of what is wanted stays as it is, since nothing points there.
pub(super) struct List<V>(std::marker::PhantomData<V>);

impl<V: Plain> Kind for List<V> {
    type Content = Vec<V>;
    type Map = Array<MapData, Raw<V>>;
    type Held = Self::Content;

    fn len(content: &Self::Content) -> usize {
        content.len()
    }

    fn nothing(_: usize) -> Self::Held {
        Vec::new()
    }

    fn turn(map: &mut Self::Map, held: &mut Self::Held, wanted: &Self::Content) -> Result<bool, MapError> {
        for (index, value) in (0..).zip(wanted) {
            if held.get(index as usize) != Some(value) {
                map.set(index, Raw(*value), 0)?;
            }
        }
        held.clone_from(wanted);
        Ok(true)
    }
}

struct Slot<T: Kind> {
    name: &'static str,
    map: T::Map,
    entries: usize,
    /// `None` after an error: anything.
    held: Option<T::Held>,
}

pub(super) struct Slots<T: Kind> {
    name: &'static str,
    most: usize,
    outer: ArrayOfMaps<MapData, T::Map>,
    each: [Slot<T>; 2],
}

impl<T: Kind> Slots<T> {
    /// Takes the outer map of the first name, and puts those of the others into its slots.
    pub(super) fn take(
        ebpf: &mut Ebpf,
        [name, first, second]: [&'static str; 3],
        most: usize,
    ) -> Result<Self, CaptureError> {
        let mut slot = |name| -> Result<Slot<T>, CaptureError> {
            let map = take(ebpf, name)?;
            let entries = entries(&map).map_err(CaptureError::map(name))?;
            let map = T::Map::try_from(map).map_err(CaptureError::map(name))?;
            Ok(Slot { name, map, entries, held: Some(T::nothing(entries)) })
        };
        let each = [slot(first)?, slot(second)?];
        let mut outer = ArrayOfMaps::try_from(take(ebpf, name)?).map_err(CaptureError::map(name))?;
        for (number, slot) in (0..).zip(&each) {
            outer.set(number, &slot.map, 0).map_err(CaptureError::map(name))?;
        }
        Ok(Self { name, most, outer, each })
    }

    pub(super) fn write(&mut self, slot: u32, wanted: &T::Content) -> Result<(), CaptureError> {
        let whole = |map: &mut T::Map, held: &mut T::Held| T::turn(map, held, wanted);
        self.write_by(slot, T::len(wanted), whole, whole)
    }

    /// Makes a slot hold so many entries: by `turn`, which is as [`Kind::turn`], what the map that is there has room for, else by
    /// `whole` a new one.
    fn write_by(
        &mut self,
        slot: u32,
        len: usize,
        turn: impl FnOnce(&mut T::Map, &mut T::Held) -> Result<bool, MapError>,
        whole: impl Fn(&mut T::Map, &mut T::Held) -> Result<bool, MapError>,
    ) -> Result<(), CaptureError> {
        let number = slot & 1;
        let slot = &mut self.each[number as usize];
        if len > self.most {
            return Err(CaptureError::PolicyTable { name: self.name, wanted: len, most: self.most });
        }
        let needed = T::needed(len);
        if let Some(mut held) = slot.held.take().filter(|_| needed <= slot.entries)
            && turn(&mut slot.map, &mut held).map_err(CaptureError::map(self.name))?
        {
            slot.held = Some(held);
            return Ok(());
        }
        // A quarter of it for what comes, so that it isn't replaced each time.
        let least = (needed + needed / 4).next_power_of_two();
        let most = T::needed(self.most).next_power_of_two();
        let mut entries = least.max(slot.entries).min(most);
        loop {
            slot.map = T::Map::try_from(like(slot.name, entries)?).map_err(CaptureError::map(self.name))?;
            slot.entries = entries;
            self.outer.set(number, &slot.map, 0).map_err(CaptureError::map(self.name))?;
            let mut held = T::nothing(entries);
            if whole(&mut slot.map, &mut held).map_err(CaptureError::map(self.name))? {
                slot.held = Some(held);
                return Ok(());
            }
            if entries > most {
                let error = "its keys have no place, however many lines there are".to_owned();
                return Err(CaptureError::Map { name: self.name, error });
            }
            entries *= 2;
        }
    }

    /// The kernel returns from a change of such a map when no program runs that might have read what was there.
    pub(super) fn wait_for_programs(&mut self, slot: u32) -> Result<(), CaptureError> {
        let number = slot & 1;
        let map = &self.each[number as usize].map;
        self.outer.set(number, map, 0).map_err(CaptureError::map(self.name))
    }
}

impl<L> Slots<InLines<L>>
where
    L: Line + Plain,
    L::Key: Eq + Hash,
    L::Value: PartialEq,
{
    /// How the lines of a slot are found.
    pub(super) fn shape(&self, slot: u32) -> Shape {
        self.held(slot).map(Lines::shape).unwrap_or_default()
    }

    /// What a slot holds, if that is known.
    fn held(&self, slot: u32) -> Option<&Lines<L>> {
        self.each[(slot & 1) as usize].held.as_ref()
    }
}

impl Slots<InLines<EndpointLine>> {
    /// Writes endpoints, each with those of the rows that a slot holds that it has room for; what is wanted can differ from what
    /// the slot holds by the addresses of `only`, where there are any.
    pub(super) fn write_beside(
        &mut self,
        slot: u32,
        wanted: &HashMap<[u8; 16], PolicyEndpoint>,
        rows: &Slots<InLines<RowLine>>,
        only: Option<&[[u8; 16]]>,
    ) -> Result<(), CaptureError> {
        let Some(rows) = rows.held(slot) else {
            return Err(CaptureError::Map { name: rows.name, error: "not known".to_owned() });
        };
        let whole = |map: &mut _, held: &mut _| {
            let rows = NearRows::of(rows.iter());
            let placed = wanted.iter().map(|(address, endpoint)| (*address, rows.beside(*endpoint)));
            bring(map, held, |address| wanted.contains_key(address), placed)
        };
        let Some(only) = only else { return self.write_by(slot, wanted.len(), whole, whole) };
        let part = |map: &mut _, held: &mut Lines<_>| {
            let peers: HashSet<u32> =
                only.iter().filter_map(|key| wanted.get(key)).map(|one| one.peer).collect();
            let rows = NearRows::of(rows.iter().filter(|(key, _)| peers.contains(&key.peer)));
            for address in only {
                match wanted.get(address) {
                    Some(endpoint) if held.put(*address, rows.beside(*endpoint)).is_err() => {
                        return Ok(false);
                    }
                    Some(_) => {}
                    None => held.remove(address),
                }
            }
            write(map, held)
        };
        self.write_by(slot, wanted.len(), part, whole)
    }
}

/// Brings a map to what its copy has become.
fn write<L: Line + Plain>(map: &mut Array<MapData, Raw<L>>, held: &mut Lines<L>) -> Result<bool, MapError> {
    for (number, line) in held.take_changed() {
        map.set(number, Raw(*line), 0)?;
    }
    Ok(true)
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, CaptureError> {
    ebpf.take_map(name).ok_or(CaptureError::Map { name, error: "not in the object".into() })
}

/// A new map like that of the object, of another size. It is made with the object, for the types: tools show its entries by
/// them, and kernels from 5.15 to 6.2 let no map without types take the place of one with types.
fn like(name: &'static str, entries: usize) -> Result<Map, CaptureError> {
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    let mut loader = EbpfLoader::new();
    let large =
        [("FLOWS", 4096), ("PRIORITY", 4096), ("SHORT_FLOW_TABLE", 1), ("FLOW_TABLE", 1), ("OPENERS", 1)];
    for (large, least) in large {
        loader.map_max_entries(large, least);
    }
    let object = loader.map_max_entries(name, entries).load(JUDGING_OBJECT);
    let mut ebpf = object.map_err(|error| CaptureError::Map { name, error: chain(&error) })?;
    take(&mut ebpf, name)
}

fn entries(map: &Map) -> Result<usize, MapError> {
    let (Map::Array(map) | Map::HashMap(map) | Map::LpmTrie(map)) = map else {
        return Err(MapError::InvalidMapType { map_type: 0 });
    };
    Ok(map.info()?.max_entries() as usize)
}
