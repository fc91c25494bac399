//! Policies in the kernel's maps: two slots of tables, of which one is in force.
//!
//! The tables begin as maps of the object, which have types that tools can show. One that gets too small is replaced by a
//! larger one; that is possible at any time, since only the slot that is not in force is ever written.

use std::sync::{Arc, Mutex, PoisonError};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use hashbrown::HashMap;
use observer_ebpf::policy::{
    CutLine, EndpointLine, PolicyBackend, PolicyBackends, PolicyCut, PolicyEndpoint, PolicyFrontend,
    PolicyRow, PolicyRowKey, PolicyShapes, PolicySides, RowLine, decision, slot,
};

use super::error::CaptureError;
use super::generation::Generation;
use super::pod::Raw;
use super::slots::{Exact, InLines, List, Longest, Slots};

/// What one kind of table may hold, for the memory that it takes in the kernel: up to 100 bytes an entry, in two slots.
const MOST_ENDPOINTS: usize = 1 << 18;
const MOST_NETS: usize = 1 << 18;
const MOST_SUBJECTS: usize = 1 << 18;
const MOST_ROWS: usize = 1 << 20;
const MOST_CUT_LINES: usize = 1 << 20;
const MOST_FRONTENDS: usize = 1 << 17;
const MOST_BACKENDS: usize = 1 << 19;

/// A net of the world: how many bits of its address count, of 128, and the address, IPv4 mapped.
pub type PolicyNet = (u8, [u8; 16]);

/// All of a slot, as wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyTables {
    /// Who has an address.
    pub endpoints: HashMap<[u8; 16], PolicyEndpoint>,
    /// The peers of all other addresses. The longest net that has an address decides.
    pub nets: HashMap<PolicyNet, u32>,
    /// By subject.
    pub sides: Vec<PolicySides>,
    /// By table and peer.
    pub rows: HashMap<PolicyRowKey, PolicyRow>,
    /// Where the rows point.
    pub cuts: Vec<CutLine>,
    /// Services.
    pub frontends: HashMap<PolicyFrontend, PolicyBackends>,
    /// Where services point.
    pub backends: Vec<PolicyBackend>,
}

impl PolicyTables {
    /// Takes in the cuts of a row, which are in order and from 0 on.
    pub fn place_row(&mut self, cuts: &[PolicyCut]) -> PolicyRow {
        let begin = self.cuts.len();
        self.cuts.extend(CutLine::of_row(cuts));
        PolicyRow { begin: begin as u32, len: (self.cuts.len() - begin) as u32 }
    }
}

/// The maps that programs judge by.
pub struct PolicyMaps {
    endpoints: Slots<InLines<EndpointLine>>,
    nets: Slots<Longest>,
    /// Locked by nobody else, but it is also what waiting is done with.
    sides: Mutex<Slots<List<PolicySides>>>,
    rows: Slots<InLines<RowLine>>,
    shapes: Array<MapData, Raw<PolicyShapes>>,
    reads: Array<MapData, u32>,
    cuts: Slots<List<CutLine>>,
    frontends: Slots<Exact<PolicyFrontend, PolicyBackends>>,
    backends: Slots<List<PolicyBackend>>,
    generation: Arc<Generation>,
}

impl std::fmt::Debug for PolicyMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyMaps").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

impl PolicyMaps {
    /// Those of an object that was loaded by itself, for tests of its programs.
    pub fn of(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        let name = "GENERATION";
        let map = ebpf.take_map(name).ok_or(CaptureError::Map { name, error: "not in the object".into() })?;
        let map = Array::try_from(map).map_err(CaptureError::map(name))?;
        Self::take(ebpf, Arc::new(Generation::new(map)))
    }

    pub(super) fn take(ebpf: &mut Ebpf, generation: Arc<Generation>) -> Result<Self, CaptureError> {
        let mut map =
            |name| ebpf.take_map(name).ok_or(CaptureError::Map { name, error: "not in the object".into() });
        let name = "POLICY_SHAPES";
        let shapes = Array::try_from(map(name)?).map_err(CaptureError::map(name))?;
        let name = "POLICY_READS";
        let reads = Array::try_from(map(name)?).map_err(CaptureError::map(name))?;
        Ok(Self {
            endpoints: Slots::take(ebpf, ["POLICY_ENDPOINTS", "ENDPOINTS_0", "ENDPOINTS_1"], MOST_ENDPOINTS)?,
            nets: Slots::take(ebpf, ["POLICY_NETS", "NETS_0", "NETS_1"], MOST_NETS)?,
            sides: Mutex::new(Slots::take(ebpf, ["POLICY_SIDES", "SIDES_0", "SIDES_1"], MOST_SUBJECTS)?),
            rows: Slots::take(ebpf, ["POLICY_ROWS", "ROWS_0", "ROWS_1"], MOST_ROWS)?,
            shapes,
            reads,
            cuts: Slots::take(ebpf, ["POLICY_CUTS", "CUTS_0", "CUTS_1"], MOST_CUT_LINES)?,
            frontends: Slots::take(ebpf, ["POLICY_FRONTENDS", "FRONTENDS_0", "FRONTENDS_1"], MOST_FRONTENDS)?,
            backends: Slots::take(ebpf, ["POLICY_BACKENDS", "BACKENDS_0", "BACKENDS_1"], MOST_BACKENDS)?,
            generation,
        })
    }

    /// Writes what differs from what the slot holds. Only for the slot that is not in force, and after
    /// [`PolicyMaps::wait_for_programs`]. After an error the slot holds anything; what is in force is untouched.
    pub fn write(&mut self, slot: u32, wanted: &PolicyTables) -> Result<(), CaptureError> {
        self.nets.write(slot, &wanted.nets)?;
        let sides = self.sides.get_mut().unwrap_or_else(PoisonError::into_inner);
        sides.write(slot, &wanted.sides)?;
        self.rows.write(slot, &wanted.rows)?;
        // They are given the rows that the slot holds.
        self.endpoints.write_beside(slot, &wanted.endpoints, &self.rows, None)?;
        self.cuts.write(slot, &wanted.cuts)?;
        // Else nobody need ask of each connection whether it is read.
        let reads = wanted.cuts.iter().flat_map(CutLine::taken).any(|cut| cut.decision & decision::READ != 0);
        let written = self.reads.set(slot & 1, u32::from(reads), 0);
        written.map_err(CaptureError::map("POLICY_READS"))?;
        self.write_services(slot, wanted)
    }

    /// Likewise, where it can differ by these addresses only, and by services; never after an error.
    pub fn write_addresses(
        &mut self,
        slot: u32,
        wanted: &PolicyTables,
        addresses: &[[u8; 16]],
    ) -> Result<(), CaptureError> {
        self.endpoints.write_beside(slot, &wanted.endpoints, &self.rows, Some(addresses))?;
        self.write_services(slot, wanted)
    }

    fn write_services(&mut self, slot: u32, wanted: &PolicyTables) -> Result<(), CaptureError> {
        self.frontends.write(slot, &wanted.frontends)?;
        self.backends.write(slot, &wanted.backends)?;
        let shapes = PolicyShapes { endpoints: self.endpoints.shape(slot), rows: self.rows.shape(slot) };
        self.shapes.set(slot & 1, Raw(shapes), 0).map_err(CaptureError::map("POLICY_SHAPES"))
    }

    /// Puts the other slot in force, after all of its maps were written; returns the new generation. Programs that began
    /// before may still read the old one.
    pub fn flip(&mut self) -> Result<u32, CaptureError> {
        self.generation.flip()
    }

    /// Waits until no program reads what was in force before the last [`PolicyMaps::flip`].
    pub fn wait_for_programs(&self) -> Result<(), CaptureError> {
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        sides.wait_for_programs(slot(self.generation()) ^ 1)
    }

    /// The number that is in force; it changes with the local addresses too.
    pub fn generation(&self) -> u32 {
        self.generation.get()
    }
}
