//! What stands on the disk: a file begins with a [`FileHead`]; pieces follow, each behind a [`PieceHead`]. Nothing of a
//! piece is believed before its checksums were looked at.

use super::draft::Draft;
use std::{io, ops::Range};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout,
    little_endian::{I64, U16, U32, U64},
};

/// The layout of files: of heads, sections of pieces, and forms. A file of another is left alone.
pub(super) const VERSION: u16 = 1;
const MAGIC: [u8; 8] = *b"OBSVHIST";
const PIECE: [u8; 4] = *b"PIEC";

/// The most flows of a piece: what a reader has in memory at a time, and what is packed together.
pub(super) const MOST_FLOWS: usize = 8192;
/// The most bytes of a piece's content.
const MOST_PLAIN: usize = 64 << 20;
/// zstd's own default.
const LEVEL: i32 = 3;

/// The beginning of a file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FileHead {
    magic: [u8; 8],
    version: U16,
    zero: U16,
    /// CRC-32 of what follows.
    checksum: U32,
    /// By which its flows' ids are told from those of other histories.
    life: U64,
}

/// Why a file is none of this history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Foreign {
    /// Something else.
    #[error("is no file of a history")]
    Other,
    /// Of another observer.
    #[error("is of format {0}, and this observer reads format {VERSION}")]
    Version(u16),
    /// Its beginning is not what was written.
    #[error("has a damaged beginning")]
    Damaged,
}

impl FileHead {
    pub(super) const LEN: u64 = size_of::<Self>() as u64;

    pub(super) fn new(life: u64) -> Self {
        let life = U64::new(life);
        let checksum = crc32fast::hash(life.as_bytes()).into();
        Self { magic: MAGIC, version: VERSION.into(), zero: U16::ZERO, checksum, life }
    }

    /// Whether a head begins so.
    pub(super) fn is_begun(bytes: &[u8]) -> bool {
        let length = bytes.len().min(MAGIC.len());
        bytes.get(..length) == MAGIC.get(..length)
    }

    /// The history's number.
    pub(super) fn read(bytes: &[u8]) -> Result<u64, Foreign> {
        let (head, _) = Self::read_from_prefix(bytes).map_err(|_| Foreign::Other)?;
        match (head.magic, head.version.get()) {
            (MAGIC, VERSION) if head.checksum.get() == crc32fast::hash(head.life.as_bytes()) => {
                Ok(head.life.get())
            }
            (MAGIC, VERSION) => Err(Foreign::Damaged),
            (MAGIC, other) => Err(Foreign::Version(other)),
            _ => Err(Foreign::Other),
        }
    }
}

/// The beginning of a piece: enough to find it by time and sequence number without the rest.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PieceHead {
    magic: [u8; 4],
    /// Length of the packed content.
    packed: U32,
    /// Length of the content.
    plain: U32,
    flows: U32,
    base: U64,
    /// Earliest and latest time of a flow in it.
    first_ns: I64,
    last_ns: I64,
    /// CRC-32 of the packed content.
    content: U32,
    /// CRC-32 of all before.
    checksum: U32,
}

/// Where a piece is, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the packed content in its file.
    pub(super) at: u64,
    pub(super) packed: u32,
    plain: u32,
    content: u32,
    pub(super) flows: u32,
    pub(super) base: u64,
    pub(super) first_ns: i64,
    pub(super) last_ns: i64,
}

impl Place {
    /// Sequence number of the flow behind it.
    pub(super) fn end(&self) -> u64 {
        self.base + u64::from(self.flows)
    }

    /// Where the piece ends in its file.
    pub(super) fn behind(&self) -> u64 {
        self.at + u64::from(self.packed)
    }

    /// Whether this is its packed content.
    pub(super) fn is_of(&self, packed: &[u8]) -> bool {
        crc32fast::hash(packed) == self.content
    }

    /// Whether a flow of it may be within these times.
    pub(super) fn overlaps(&self, since: Option<i64>, until: Option<i64>) -> bool {
        since.is_none_or(|since| self.last_ns >= since) && until.is_none_or(|until| self.first_ns <= until)
    }
}

impl PieceHead {
    pub(super) const LEN: usize = size_of::<Self>();

    /// The piece that begins with these bytes, at this place of a file; nothing where none does.
    pub(super) fn read(bytes: &[u8], at: u64) -> Option<Place> {
        let (head, _) = Self::read_from_prefix(bytes).ok()?;
        let (covered, _) = head.as_bytes().split_at(Self::LEN - size_of::<U32>());
        let is_whole = head.magic == PIECE && head.checksum.get() == crc32fast::hash(covered);
        let flows = head.flows.get();
        let is_sane = (1..=MOST_FLOWS).contains(&(flows as usize))
            && head.plain.get() as usize <= MOST_PLAIN
            && head.base.get().checked_add(flows.into()).is_some();
        (is_whole && is_sane).then(|| Place {
            at: at + Self::LEN as u64,
            packed: head.packed.get(),
            plain: head.plain.get(),
            content: head.content.get(),
            flows,
            base: head.base.get(),
            first_ns: head.first_ns.get(),
            last_ns: head.last_ns.get(),
        })
    }
}

/// Packs flows of a draft; what stands on the disk of them.
pub(super) fn pack(draft: &Draft, range: Range<usize>) -> io::Result<Vec<u8>> {
    let plain = draft.encode(range.clone());
    if plain.len() > MOST_PLAIN {
        return Err(io::Error::other("more in some flows than a piece may have"));
    }
    let mut piece = vec![0; PieceHead::LEN];
    piece.extend(zstd::bulk::compress(&plain, LEVEL)?);
    let (space, packed) = piece.split_at_mut(PieceHead::LEN);
    let (first_ns, last_ns) = draft.times(range.clone());
    let mut head = PieceHead {
        magic: PIECE,
        packed: (packed.len() as u32).into(),
        plain: (plain.len() as u32).into(),
        flows: (range.len() as u32).into(),
        base: (draft.base() + range.start as u64).into(),
        first_ns: first_ns.into(),
        last_ns: last_ns.into(),
        content: crc32fast::hash(packed).into(),
        checksum: U32::ZERO,
    };
    let (covered, _) = head.as_bytes().split_at(PieceHead::LEN - size_of::<U32>());
    head.checksum = crc32fast::hash(covered).into();
    space.copy_from_slice(head.as_bytes());
    Ok(piece)
}

/// The content of a piece; nothing where it is not what was written.
pub(super) fn unpack(place: &Place, packed: &[u8]) -> Option<Vec<u8>> {
    if !place.is_of(packed) {
        return None;
    }
    let plain = zstd::bulk::decompress(packed, place.plain as usize).ok()?;
    (plain.len() == place.plain as usize).then_some(plain)
}
