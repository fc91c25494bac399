//! Frames: length, checksum, compressed inputs. A reader believes none of the three before it has seen the bytes.

use flate2::{Compression, bufread::DeflateDecoder, write::DeflateEncoder};
use std::io::{self, Read, Write as _};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian::U32};

/// What stands before the compressed inputs.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    /// Length of the compressed inputs.
    packed: U32,
    /// Their length before.
    plain: U32,
    /// CRC-32 of the two lengths and the compressed inputs.
    checksum: U32,
}

const HEADER: usize = size_of::<Header>();
/// The plain inputs of a frame. One input may be the names of a whole cluster: 100,000 pods are about 50 MB.
pub(super) const MOST_PLAIN: usize = 256 << 20;
/// DEFLATE makes nothing larger by more than this many bytes in a thousand, and a few.
const MOST_PACKED: usize = MOST_PLAIN + MOST_PLAIN / 1000 + 64;

/// Within a tenth of the default's size at six times its speed: 700,000 records a second on one core.
const LEVEL: u32 = 3;

/// Why a recording is played no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CutReason {
    /// The file ends within a frame.
    #[error("the file ends in the middle")]
    Torn,
    /// A checksum or a length is wrong.
    #[error("the bytes are not those that were written")]
    Damaged,
    /// A frame is whole, and its inputs can't be read.
    #[error("its content is not that of a recording")]
    Unreadable,
    /// The file ends between two frames, without [`super::Input::End`].
    #[error("the recorder did not end it")]
    NoEnd,
    /// There is something behind [`super::Input::End`].
    #[error("more follows behind its end")]
    BehindEnd,
    /// It can't be read from the disk any further.
    #[error("reading it failed ({0})")]
    Io(io::ErrorKind),
}

/// Where a recording is played no further, and why; all before it is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: cut at byte {at}")]
pub struct Cut {
    /// Place of the first byte that is not played.
    pub at: u64,
    /// Why.
    pub reason: CutReason,
}

/// A frame of these inputs.
pub(super) fn pack(plain: &[u8]) -> io::Result<Vec<u8>> {
    if plain.len() > MOST_PLAIN {
        let most = MOST_PLAIN >> 20;
        return Err(io::Error::other(format!(
            "the names alone are more than {most} MiB, the most of a frame"
        )));
    }
    let mut encoder = DeflateEncoder::new(vec![0; HEADER], Compression::new(LEVEL));
    encoder.write_all(plain)?;
    let mut frame = encoder.finish()?;
    let (space, body) = frame.split_at_mut(HEADER);
    let mut header = Header {
        packed: (body.len() as u32).into(),
        plain: (plain.len() as u32).into(),
        checksum: U32::ZERO,
    };
    header.checksum = checksum(&header, body).into();
    space.copy_from_slice(header.as_bytes());
    Ok(frame)
}

/// Reads one frame into `plain`; its length in the file, 0 at the end of the file.
pub(super) fn unpack(from: &mut impl Read, plain: &mut Vec<u8>) -> Result<usize, CutReason> {
    plain.clear();
    let mut bytes = Vec::with_capacity(HEADER);
    if read(from, HEADER, &mut bytes)? == 0 {
        return Ok(0);
    }
    let header = Header::read_from_bytes(&bytes).map_err(|_| CutReason::Torn)?;
    let (packed, length) = (header.packed.get() as usize, header.plain.get() as usize);
    if packed > MOST_PACKED || length > MOST_PLAIN {
        return Err(CutReason::Damaged);
    }
    let mut body = Vec::new();
    if read(from, packed, &mut body)? < packed {
        return Err(CutReason::Torn);
    }
    if checksum(&header, &body) != header.checksum.get() {
        return Err(CutReason::Damaged);
    }
    // One byte more than there should be tells a length that is wrong.
    let mut decoder = DeflateDecoder::new(&body[..]).take(length as u64 + 1);
    match decoder.read_to_end(plain) {
        Ok(got) if got == length => Ok(HEADER + packed),
        _ => Err(CutReason::Damaged),
    }
}

/// At most `length` bytes; the memory grows with what is there, not with what a length says.
fn read(from: &mut impl Read, length: usize, into: &mut Vec<u8>) -> Result<usize, CutReason> {
    from.take(length as u64).read_to_end(into).map_err(|error| CutReason::Io(error.kind()))
}

fn checksum(header: &Header, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header.packed.as_bytes());
    hasher.update(header.plain.as_bytes());
    hasher.update(body);
    hasher.finalize()
}
