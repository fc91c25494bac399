//! The policies that are in force, as the kernel's maps hold them.

use std::io;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, Map, MapData, MapError};
use observer_ebpf::lines::{Line, Shape, find};
use observer_ebpf::policy::{
    CutLine, EndpointLine, PolicyCut, PolicyEndpoint, PolicyRow, PolicyRowKey, PolicyShapes, PolicySides,
    RowLine, slot,
};

use super::{Inspector, bpf, handle};
use crate::capture::error::CaptureError;
use crate::capture::lines::entries;
use crate::capture::pod::Raw;
use crate::capture::policy::PolicyNet;
use crate::capture::slots::Plain;

/// A table of lines as the kernel has it.
struct Table<L: Line + Plain> {
    shape: Shape,
    lines: Array<MapData, Raw<L>>,
}

impl<L: Line + Plain> Table<L> {
    fn get(&self, key: &L::Key) -> Option<L::Value> {
        find(self.shape, L::words(key), |line| self.lines.get(&line, 0).ok().map(|Raw(line)| line))
    }

    fn iter(&self) -> impl Iterator<Item = (L::Key, L::Value)> {
        let lines = self.lines.iter().filter_map(Result::ok);
        lines.flat_map(|Raw(line)| entries(&line).map(|(key, value)| (*key, value)).collect::<Vec<_>>())
    }
}

/// The slot that is in force. It is read while it may go out of force, so its generation is to be compared after.
pub struct PolicyInForce {
    /// The number that is in force.
    pub generation: u32,
    endpoints: Table<EndpointLine>,
    nets: LpmTrie<MapData, [u8; 16], u32>,
    sides: Array<MapData, Raw<PolicySides>>,
    rows: Table<RowLine>,
    cuts: Array<MapData, Raw<CutLine>>,
}

impl std::fmt::Debug for PolicyInForce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyInForce").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Inspector {
    /// The number by which the programs notice changes of policies and local addresses.
    pub fn generation(&self) -> Result<u32, CaptureError> {
        self.entry("GENERATION", 0)
    }

    fn entry<V: aya::Pod>(&self, name: &'static str, index: u32) -> Result<V, CaptureError> {
        let data = handle(self.map(name)?).map_err(CaptureError::system("a handle of a map"))?;
        let array: Array<_, V> = Array::try_from(Map::Array(data)).map_err(CaptureError::map(name))?;
        array.get(&index, 0).map_err(CaptureError::map(name))
    }

    /// Whether the programs judge.
    pub fn is_judging(&self) -> bool {
        self.handles.maps.iter().any(|map| map.name == "POLICY_ENDPOINTS")
    }

    /// What the programs judge by; nothing where they don't.
    pub fn policy(&self) -> Result<Option<PolicyInForce>, CaptureError> {
        if !self.is_judging() {
            return Ok(None);
        }
        let generation = self.generation()?;
        let slot = slot(generation);
        let Raw(shapes): Raw<PolicyShapes> = self.entry("POLICY_SHAPES", slot)?;
        Ok(Some(PolicyInForce {
            generation,
            endpoints: Table { shape: shapes.endpoints, lines: self.inner("POLICY_ENDPOINTS", slot)? },
            nets: self.inner("POLICY_NETS", slot)?,
            sides: self.inner("POLICY_SIDES", slot)?,
            rows: Table { shape: shapes.rows, lines: self.inner("POLICY_ROWS", slot)? },
            cuts: self.inner("POLICY_CUTS", slot)?,
        }))
    }

    /// The map that stands in a slot now.
    fn inner<M: TryFrom<Map, Error = MapError>>(
        &self,
        name: &'static str,
        slot: u32,
    ) -> Result<M, CaptureError> {
        let id = bpf::inner(self.map(name)?, slot).map_err(CaptureError::system("reading a map of maps"))?;
        let is_it = |data: &MapData| data.info().is_ok_and(|info| info.id() == id);
        // One that took the place of a smaller one is had by its number only.
        let data = match self.handles.maps.iter().find(|map| is_it(&map.data)) {
            Some(map) => handle(&map.data).map_err(CaptureError::system("a handle of a map"))?,
            None => MapData::from_id(id).map_err(|error| {
                let needs = "a larger map than at the start is shown to daemons with CAP_SYS_ADMIN alone";
                let error = io::Error::other(format!("{name}: {error}; {needs}"));
                CaptureError::System { what: "reading a map", error }
            })?,
        };
        let map = Map::from_map_data(data).map_err(CaptureError::map(name))?;
        M::try_from(map).map_err(CaptureError::map(name))
    }
}

impl PolicyInForce {
    /// Which of the two slots it is.
    pub fn slot(&self) -> u32 {
        slot(self.generation)
    }

    /// Who has an address that is an endpoint's.
    pub fn endpoint(&self, address: [u8; 16]) -> Option<PolicyEndpoint> {
        self.endpoints.get(&address).map(|placed| placed.alone())
    }

    /// The peer that all of a net is that is no endpoint's.
    pub fn net(&self, (bits, address): PolicyNet) -> Option<u32> {
        self.nets.get(&Key::new(bits.into(), address), 0).ok()
    }

    /// All addresses of endpoints.
    pub fn endpoints(&self) -> impl Iterator<Item = ([u8; 16], PolicyEndpoint)> {
        self.endpoints.iter().map(|(address, placed)| (address, placed.alone()))
    }

    /// All nets with the peers that they are.
    pub fn nets(&self) -> impl Iterator<Item = (PolicyNet, u32)> {
        self.nets.iter().filter_map(Result::ok).map(|(net, peer)| {
            // Of 128.
            ((net.prefix_len() as u8, net.data()), peer)
        })
    }

    /// The tables of a subject.
    pub fn sides(&self, subject: u32) -> Option<PolicySides> {
        self.sides.get(&subject, 0).map(|Raw(sides)| sides).ok()
    }

    /// All rows of all tables.
    pub fn rows(&self) -> impl Iterator<Item = (PolicyRowKey, PolicyRow)> {
        self.rows.iter()
    }

    /// The cuts of a row.
    pub fn cuts(&self, row: PolicyRow) -> Vec<PolicyCut> {
        let lines = row.begin..row.begin.saturating_add(row.len);
        let lines = lines.map_while(|line| self.cuts.get(&line, 0).ok());
        lines.flat_map(|Raw(line)| line.taken()).collect()
    }
}
