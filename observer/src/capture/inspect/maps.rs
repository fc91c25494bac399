//! What stands in the maps.

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use aya::maps::{HashMap, Map, MapData, MapType};
use observer_ebpf::{FlowKey, FlowValue};
use rustix::mm::ProtFlags;
use rustix::param::page_size;

use super::bpf::{self, Keys};
use super::{FdInfo, Inspector, LoadedMap, handle};
use crate::capture::counters::Fill;
use crate::capture::error::{CaptureError, chain};
use crate::capture::flow_table::FlowTable;
use crate::capture::pod::Raw;
use crate::capture::ring::Pages;

/// Keys of one map that are counted: a walk takes some 300 ns for each, and none of the programs' time.
const MOST_COUNTED: u64 = 262_144;
/// Keys after which others get their turn.
const YIELD: u64 = 64;

/// A map in the kernel.
#[derive(Clone, Debug)]
pub struct MapUse {
    /// Its number in the kernel.
    pub id: u32,
    /// In full; of one in a slot, the array's that it is in.
    pub name: String,
    /// Of policies: in which slot it is.
    pub slot: Option<u32>,
    /// As bpftool says it.
    pub kind: &'static str,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value, on one processor.
    pub value_bytes: u32,
    /// It has room for so many.
    pub max_entries: u32,
    /// How many there are; nothing of arrays and rings.
    pub entries: Option<u64>,
    /// Whether there may be more.
    pub cut: bool,
    /// Bytes that it holds.
    pub memlock: u64,
    /// Of its making.
    pub flags: u32,
    /// Whether the kernel knows its types.
    pub btf: bool,
}

/// A ring and what lies in it.
#[derive(Clone, Debug)]
pub struct RingUse {
    /// Its number in the kernel.
    pub id: u32,
    /// In full.
    pub name: String,
    /// Its size.
    pub bytes: u32,
    /// Written and not read yet.
    pub used: u64,
}

impl RingUse {
    /// How full it is.
    pub fn fill(&self) -> Fill {
        Fill { name: self.name.clone(), used: self.used, room: self.bytes.into() }
    }
}

/// An entry of the flow tables.
pub type TableEntry = (FlowKey, FlowValue);

impl Inspector {
    /// All maps, and how many there are besides that the kernel doesn't show. Entries are counted one by one: it takes a
    /// while.
    pub fn maps(&self) -> Result<(Vec<MapUse>, usize), CaptureError> {
        let mut maps: Vec<_> =
            self.handles.maps.iter().map(|map| describe(&map.name, &map.data)).collect::<Result<_, _>>()?;
        let mut hidden = 0;
        for (array, slot, id) in self.slots() {
            if let Some(map) = maps.iter_mut().find(|map| map.id == id) {
                (map.name, map.slot) = (array.to_owned(), Some(slot));
            } else if let Ok(data) = MapData::from_id(id) {
                maps.push(MapUse { slot: Some(slot), ..describe(array, &data)? });
            } else {
                hidden += 1;
            }
        }
        maps.sort_by(|a, b| (&a.name, a.slot).cmp(&(&b.name, b.slot)));
        Ok((maps, hidden))
    }

    /// Ids of the maps in arrays of maps, with the array's name and the place.
    fn slots(&self) -> impl Iterator<Item = (&str, u32, u32)> {
        let arrays = self.handles.maps.iter().filter_map(|map| {
            let info = map.data.info().ok()?;
            matches!(info.map_type(), Ok(MapType::ArrayOfMaps)).then_some((map, info.max_entries()))
        });
        arrays.flat_map(|(map, places)| {
            // A place may be empty.
            (0..places).filter_map(|place| Some((&*map.name, place, bpf::inner(&map.data, place).ok()?)))
        })
    }

    /// The rings.
    pub fn rings(&self) -> Result<Vec<RingUse>, CaptureError> {
        let mut rings = Vec::new();
        for LoadedMap { name, data } in &self.handles.maps {
            let info = data.info().map_err(read(name))?;
            if matches!(info.map_type(), Ok(MapType::RingBuf)) {
                let used = used(data, info.max_entries()).map_err(CaptureError::system("mapping a ring"))?;
                rings.push(RingUse { id: info.id(), name: name.clone(), bytes: info.max_entries(), used });
            }
        }
        rings.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(rings)
    }

    /// Gives the entries of the flow tables to `each`, in no order, until it wants no more. One that goes meanwhile may
    /// be left out, and one may come twice.
    pub fn flows(&self, each: &mut dyn FnMut(&TableEntry) -> bool) -> Result<(), CaptureError> {
        let short: HashMap<_, Raw<_>, Raw<_>> = self.table("SHORT_FLOW_TABLE")?;
        let long: HashMap<_, Raw<_>, Raw<_>> = self.table("FLOW_TABLE")?;
        let entries = self.map("FLOW_TABLE")?.info().map_err(read("FLOW_TABLE"))?.max_entries();
        let tables = FlowTable { short, long, entries: entries as usize, is_pushed_out: false };
        for (count, (place, value)) in (0..).zip(tables.iter()) {
            if count % YIELD == 0 {
                std::thread::yield_now();
            }
            if !each(&(place.key(), value)) {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn map(&self, name: &'static str) -> Result<&MapData, CaptureError> {
        let found = self.handles.maps.iter().find(|map| map.name == name);
        found.map(|map| &map.data).ok_or(CaptureError::Map { name, error: "not in the object".into() })
    }

    pub(super) fn table<K: aya::Pod, V: aya::Pod>(
        &self,
        name: &'static str,
    ) -> Result<HashMap<MapData, K, V>, CaptureError> {
        let data = handle(self.map(name)?).map_err(CaptureError::system("a handle of a map"))?;
        let map = Map::from_map_data(data).map_err(CaptureError::map(name))?;
        HashMap::try_from(map).map_err(CaptureError::map(name))
    }
}

fn describe(name: &str, data: &MapData) -> Result<MapUse, CaptureError> {
    let info = data.info().map_err(read(name))?;
    let kind = info.map_type().map_or("unknown", kind);
    let counted = matches!(kind, "hash" | "lru_hash" | "percpu_hash" | "lru_percpu_hash" | "lpm_trie");
    let (entries, cut) = if counted { count(data, info.max_entries()) } else { (0, false) };
    Ok(MapUse {
        id: info.id(),
        name: name.to_owned(),
        slot: None,
        kind,
        key_bytes: info.key_size(),
        value_bytes: info.value_size(),
        max_entries: info.max_entries(),
        entries: counted.then_some(entries),
        cut,
        memlock: FdInfo::of(data.fd().as_fd()).number("memlock").unwrap_or(0),
        flags: info.map_flags(),
        btf: bpf::has_btf(data.fd().as_fd()).unwrap_or(false),
    })
}

/// How many keys there are, and whether there may be more.
fn count(data: &MapData, room: u32) -> (u64, bool) {
    let Ok(keys) = Keys::of(data) else { return (0, true) };
    let most = MOST_COUNTED.min(room.into());
    let mut counted = 0;
    let mut first = None;
    for key in keys {
        // Its place went away, and the walk began anew.
        if first.as_ref() == Some(&key) || counted == most {
            return (counted, most < u64::from(room));
        }
        if counted % YIELD == 0 {
            std::thread::yield_now();
        }
        counted += 1;
        first.get_or_insert(key);
    }
    (counted, false)
}

/// Bytes between what the daemon has read and what the programs have written.
fn used(data: &MapData, bytes: u32) -> std::io::Result<u64> {
    let position = |page: usize| {
        let pages = Pages::map(data.fd().as_fd(), page * page_size(), page_size(), ProtFlags::READ)?;
        std::io::Result::Ok(pages.position().load(Ordering::Acquire))
    };
    // In this order the difference is never negative.
    let (read, written) = (position(0)?, position(1)?);
    Ok((written.wrapping_sub(read) as u64).min(bytes.into()))
}

fn read(name: &str) -> impl Fn(aya::maps::MapError) -> CaptureError {
    move |error| {
        let error = std::io::Error::other(format!("{name}: {}", chain(&error)));
        CaptureError::System { what: "reading a map", error }
    }
}

fn kind(kind: MapType) -> &'static str {
    match kind {
        MapType::Hash => "hash",
        MapType::Array => "array",
        MapType::PerCpuHash => "percpu_hash",
        MapType::PerCpuArray => "percpu_array",
        MapType::LruHash => "lru_hash",
        MapType::LruPerCpuHash => "lru_percpu_hash",
        MapType::LpmTrie => "lpm_trie",
        MapType::ArrayOfMaps => "array_of_maps",
        MapType::HashOfMaps => "hash_of_maps",
        MapType::RingBuf => "ringbuf",
        _ => "other",
    }
}
