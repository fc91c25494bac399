//! Policies as the kernel's maps hold them, and what the flow programs say of them.
//!
//! There are two whole sets of maps, one in each *slot*; the number in `GENERATION` says by its lowest bit which of them is
//! in force. A program reads it once for each packet, so no packet is judged by half a set. Numbers of subjects, peers,
//! tables and rules are those of the engine that filled the slot.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::lines::{Line, Shape, Standing, Words};

/// Which slot a generation means.
#[must_use]
pub const fn slot(generation: u32) -> u32 {
    generation & 1
}

/// Who has an address. The key is the address, IPv4 mapped; of the world, nets with their prefix lengths are kept apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyEndpoint {
    /// The number of the peer.
    pub peer: u32,
    /// The number of the subject.
    pub subject: u32,
    /// [`endpoint_flags`].
    pub flags: u32,
}

/// Facts about an endpoint, as bits.
pub mod endpoint_flags {
    /// The node itself.
    pub const HOST: u32 = 1 << 0;
    /// A node of the cluster, this one included: the tunnels between two of them carry other people's packets.
    pub const NODE: u32 = 1 << 1;
    /// A pod of this node.
    pub const LOCAL: u32 = 1 << 2;
    /// In a table alone: all rows of its peer stand beside it, see [`super::PlacedEndpoint`].
    pub const ROWS: u32 = 1 << 3;
}

/// The tables of a subject, by direction: egress, ingress; [`NO_TABLE`] where nothing is judged.
pub type PolicySides = [u32; 2];

/// In [`PolicySides`].
pub const NO_TABLE: u32 = u32::MAX;

/// Index in [`PolicySides`].
pub mod side {
    /// What the subject sends.
    pub const EGRESS: usize = 0;
    /// What it is sent.
    pub const INGRESS: usize = 1;
}

/// A table's row for a peer, or for [`OTHERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyRowKey {
    /// The table.
    pub table: u32,
    /// The peer.
    pub peer: u32,
}

/// In [`PolicyRowKey::peer`]: every peer that has no row of its own.
pub const OTHERS: u32 = u32::MAX;

/// Where a row stands among the [`CutLine`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyRow {
    /// Its first line, whose first cut is from 0 on.
    pub begin: u32,
    /// How many they are, at least 1.
    pub len: u32,
}

/// An endpoint as its table has it: with the rows of its peer, if they are few. They would be found by the peer's number only
/// when the endpoint was read, and each is far from the caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PlacedEndpoint {
    /// The endpoint, with [`endpoint_flags::ROWS`] where `rows` are all.
    pub endpoint: PolicyEndpoint,
    /// The rows; unused ones have no lines.
    pub rows: [NearRow; NEAR_ROWS],
}

impl PlacedEndpoint {
    /// The endpoint by itself.
    #[must_use]
    pub const fn alone(&self) -> PolicyEndpoint {
        PolicyEndpoint { flags: self.endpoint.flags & !endpoint_flags::ROWS, ..self.endpoint }
    }
}

/// So many rows have room beside an endpoint.
pub const NEAR_ROWS: usize = 2;

/// A row of the peer that it stands beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct NearRow {
    /// The table.
    pub table: u32,
    /// Where the lines begin, and in the lowest [`NearRow::LEN_BITS`] how many they are.
    lines: u32,
}

impl NearRow {
    /// How many bits say the number of lines.
    const LEN_BITS: u32 = 11;

    /// Nothing where the numbers are too large, or there are no lines: that is an unused one.
    #[must_use]
    pub const fn new(table: u32, PolicyRow { begin, len }: PolicyRow) -> Option<Self> {
        if begin >> (u32::BITS - Self::LEN_BITS) != 0 || len >> Self::LEN_BITS != 0 || len == 0 {
            return None;
        }
        Some(Self { table, lines: begin << Self::LEN_BITS | len })
    }

    /// The row.
    #[inline]
    #[must_use]
    pub const fn row(&self) -> PolicyRow {
        PolicyRow { begin: self.lines >> Self::LEN_BITS, len: self.lines & ((1 << Self::LEN_BITS) - 1) }
    }
}

/// A line of the table of endpoints, which is two of the cache's: both are read at once, where one after the other would be
/// waited for twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(128))]
pub struct EndpointLine {
    /// Addresses.
    pub addresses: [[u8; 16]; 3],
    /// Who has them: [`PolicyEndpoint::peer`].
    pub peers: [u32; 3],
    /// How the line stands.
    pub standing: Standing,
    /// [`PlacedEndpoint::rows`].
    pub rows: [[NearRow; NEAR_ROWS]; 3],
    /// [`PolicyEndpoint::subject`].
    pub subjects: [u32; 3],
    /// [`PolicyEndpoint::flags`]; the last one is always 0.
    pub flags: [u8; 4],
}

impl Line for EndpointLine {
    type Key = [u8; 16];
    type Value = PlacedEndpoint;
    const ROOM: usize = 3;

    #[inline]
    fn words(address: &[u8; 16]) -> Words {
        zerocopy::transmute!(*address)
    }

    #[inline]
    fn key(&self, place: usize) -> &[u8; 16] {
        &self.addresses[place]
    }

    #[inline]
    fn words_at(&self, place: usize) -> Words {
        // Of an address by itself, of which nobody knows that it is aligned, each byte would be read alone.
        let words: &[Words; 8] = zerocopy::transmute_ref!(self);
        words[place]
    }

    #[inline]
    fn value(&self, place: usize) -> PlacedEndpoint {
        let (peer, subject, flags) = (self.peers[place], self.subjects[place], self.flags[place].into());
        PlacedEndpoint { endpoint: PolicyEndpoint { peer, subject, flags }, rows: self.rows[place] }
    }

    fn set(&mut self, place: usize, address: [u8; 16], placed: PlacedEndpoint) {
        let PlacedEndpoint { endpoint: PolicyEndpoint { peer, subject, flags }, rows } = placed;
        (self.addresses[place], self.rows[place]) = (address, rows);
        (self.peers[place], self.subjects[place], self.flags[place]) = (peer, subject, flags as u8);
    }

    #[inline]
    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }
}

/// A line of the table of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct RowLine {
    /// Tables and peers.
    pub keys: [PolicyRowKey; 3],
    /// Their rows.
    pub rows: [PolicyRow; 3],
    /// How the line stands.
    pub standing: Standing,
    /// Always 0.
    pub pad: [u32; 3],
}

impl Line for RowLine {
    type Key = PolicyRowKey;
    type Value = PolicyRow;
    const ROOM: usize = 3;

    #[inline]
    fn words(key: &PolicyRowKey) -> Words {
        [u64::from(key.table) | u64::from(key.peer) << 32, 0]
    }

    #[inline]
    fn key(&self, place: usize) -> &PolicyRowKey {
        &self.keys[place]
    }

    #[inline]
    fn words_at(&self, place: usize) -> Words {
        Self::words(&self.keys[place])
    }

    #[inline]
    fn value(&self, place: usize) -> PolicyRow {
        self.rows[place]
    }

    fn set(&mut self, place: usize, key: PolicyRowKey, row: PolicyRow) {
        (self.keys[place], self.rows[place]) = (key, row);
    }

    #[inline]
    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }
}

/// How the lines of a slot's tables are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyShapes {
    /// Of [`EndpointLine`]s.
    pub endpoints: Shape,
    /// Of [`RowLine`]s.
    pub rows: Shape,
}

/// From which protocol and port on which decision holds; the cuts of a row are in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyCut {
    /// See [`cut_key`].
    pub from: u32,
    /// See [`decision`].
    pub decision: u32,
}

/// Cuts of a row, in a line of the cache: most rows need no more. Those of the row's other lines come after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct CutLine {
    /// The cuts; behind the last one what no protocol comes up to.
    pub cuts: [PolicyCut; Self::ROOM],
}

impl CutLine {
    /// So many cuts have room in a line.
    pub const ROOM: usize = 8;
    const NONE: PolicyCut = PolicyCut { from: u32::MAX, decision: 0 };

    /// The lines of a row.
    pub fn of_row(cuts: &[PolicyCut]) -> impl Iterator<Item = Self> {
        cuts.chunks(Self::ROOM).map(|taken| {
            let mut cuts = [Self::NONE; Self::ROOM];
            cuts[..taken.len()].copy_from_slice(taken);
            Self { cuts }
        })
    }

    /// Those places that are taken.
    pub fn taken(&self) -> impl Iterator<Item = PolicyCut> + use<> {
        self.cuts.into_iter().take_while(|cut| *cut != Self::NONE)
    }
}

/// Protocol and port in one order. The port of ICMP is its type.
#[must_use]
pub const fn cut_key(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// A row has at most this many lines: two cuts for each port of the protocols that policies know have room in less.
pub const MOST_LINES: u32 = 1 << 17;

/// What is decided of a connection on one side: the number of a set of rules, and these bits; 0 where the side was not
/// judged.
pub mod decision {
    /// The number of the set of rules.
    pub const RULES: u32 = (1 << 24) - 1;
    /// The side was judged.
    pub const JUDGED: u32 = 1 << 31;
    /// By the enforced policies the connection is denied.
    pub const DENIED: u32 = 1 << 30;
    /// It is denied by a rule that says so, and not only because no rule allows it.
    pub const BY_RULE: u32 = 1 << 29;
    /// Who the subject is was not known; there is no set of rules. With [`DENIED`] it is refused for that.
    pub const UNKNOWN: u32 = 1 << 28;
    /// By the enforced policies it is allowed, but in it only those requests that a rule names.
    pub const REQUESTS: u32 = 1 << 26;
    /// Likewise by the audited and the enforced ones together.
    pub const AUDIT_REQUESTS: u32 = 1 << 27;
    /// Either of both: whose requests are judged.
    pub const READ: u32 = REQUESTS | AUDIT_REQUESTS;
    /// By all policies, the audited ones too, the connection is denied. The programs only weigh a service's backends by it.
    pub const AUDITED: u32 = 1 << 25;
}

/// A service's address and port. Ports are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyFrontend {
    /// The address.
    pub address: [u8; 16],
    /// The port.
    pub port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

/// Where the ready backends of a service stand: [`PolicyBackend`]s, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyBackends {
    /// The first.
    pub begin: u32,
    /// How many; of more than [`MOST_BACKENDS`] nothing is decided before one was chosen.
    pub len: u32,
}

/// So many backends are judged before one is chosen.
pub const MOST_BACKENDS: u32 = 32;

/// One of a service's backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct PolicyBackend {
    /// The address.
    pub address: [u8; 16],
    /// The port that the connection has there, in host order.
    pub port: u16,
    /// Always 0.
    pub pad: [u8; 2],
}

/// A connection that is older than the programs, as its opener's packets show it. Ports are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct OpenerKey {
    /// Who opened it.
    pub opener: [u8; 16],
    /// Who was called.
    pub responder: [u8; 16],
    /// The opener's port.
    pub opener_port: u16,
    /// The responder's port.
    pub responder_port: u16,
    /// IANA protocol number.
    pub protocol: u32,
}

/// What was decided of a connection on this link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Judged {
    /// By which generation.
    pub generation: u32,
    /// The [`decision`] on the opener's side.
    pub egress: u32,
    /// The [`decision`] on the other side.
    pub ingress: u32,
    /// [`judged_flags`].
    pub flags: u32,
}

impl Judged {
    /// Whether the programs refuse it.
    #[must_use]
    pub const fn is_denied(&self) -> bool {
        let egress = self.egress & decision::DENIED != 0 && self.flags & judged_flags::MIXED == 0;
        egress || self.ingress & decision::DENIED != 0
    }

    /// Whether policies say anything of it.
    #[must_use]
    pub const fn is_judged(&self) -> bool {
        self.egress | self.ingress != 0
    }

    /// [`POLICY_DENY`] or [`POLICY_DENIED`], by the side that denies it first.
    #[must_use]
    pub const fn drop_reason(&self) -> u32 {
        let egress = self.egress & decision::DENIED != 0 && self.flags & judged_flags::MIXED == 0;
        let decision = if egress { self.egress } else { self.ingress };
        if decision & decision::BY_RULE != 0 { POLICY_DENY } else { POLICY_DENIED }
    }
}

/// Facts about what was decided, as bits.
pub mod judged_flags {
    /// The destination is a service; what is said of the opener's side is said of one of its backends.
    pub const FRONTEND: u32 = 1 << 0;
    /// Of the service's backends some are allowed and some are not, or there are too many: it is decided where the packet
    /// comes out, and passes here, whatever is said of the opener's side.
    pub const MIXED: u32 = 1 << 1;
    /// Likewise by all policies, with [`super::decision::AUDITED`] in the place of [`super::decision::DENIED`].
    pub const AUDIT_MIXED: u32 = 1 << 2;
    /// Requests are judged in it: the proxy has it.
    pub const REDIRECTED: u32 = 1 << 3;
}

/// Set in [`crate::DropRecord::reason`] where our own programs dropped the packet; the rest is Cilium's number.
pub const POLICY_REASON: u32 = 1 << 31;
/// No rule allows it: Cilium's `POLICY_DENIED`.
pub const POLICY_DENIED: u32 = POLICY_REASON + 133;
/// A rule denies it: Cilium's `POLICY_DENY`.
pub const POLICY_DENY: u32 = POLICY_REASON + 181;

const _: () = assert!(size_of::<PolicyEndpoint>() == 12);
const _: () =
    assert!(size_of::<EndpointLine>() == 128 && size_of::<RowLine>() == 64 && size_of::<CutLine>() == 64);
const _: () = assert!(core::mem::offset_of!(EndpointLine, addresses) == 0);
const _: () = assert!(size_of::<PolicyFrontend>() == 20);
const _: () = assert!(size_of::<PolicyBackend>() == 20);
const _: () = assert!(size_of::<OpenerKey>() == 40);
const _: () = assert!(size_of::<Judged>() == 16);
