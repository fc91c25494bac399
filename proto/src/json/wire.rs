//! Protobuf's wire format, read and written without building anything.

use super::{WriteError, escape::HIGH};
use prost_types::Timestamp;

/// How deep messages may nest; the same bound as prost's.
pub(crate) const MAX_DEPTH: u32 = 100;

/// The value of one field as it stands on the wire.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    /// A group: proto3 has none, so it is always an unknown field.
    Group,
}

/// Reads fields one after the other.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    length: usize,
    /// What was not read yet.
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { length: bytes.len(), rest: bytes }
    }

    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { length: bytes.len(), rest: bytes.get(at..).unwrap_or_default() }
    }

    pub(crate) fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// The next field's number and value; `None` at the end.
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, WriteError> {
        match self.next_key()? {
            END => Ok(None),
            key => Ok(Some((key >> 3, self.value(key)?))),
        }
    }

    /// The next field's key, of a number and the form of its value; [`END`] at the end. What takes the value is for the caller
    /// to call: one that knows the key need not look at the form.
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn next_key(&mut self) -> Result<u32, WriteError> {
        match self.rest {
            [] => Ok(END),
            [key @ 8..0x80, rest @ ..] => {
                self.rest = rest;
                Ok((*key).into())
            }
            _ => {
                let key = u32::try_from(self.varint()?).map_err(|_| WriteError::Wire)?;
                if key >> 3 == 0 { Err(WriteError::Wire) } else { Ok(key) }
            }
        }
    }

    /// The value behind [`bytes_key`].
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn delimited(&mut self) -> Result<&'a [u8], WriteError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WriteError::Wire)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WriteError::Wire)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Passes over the value behind a key.
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn pass(&mut self, key: u32) -> Result<(), WriteError> {
        match key & 7 {
            2 => self.delimited().map(drop),
            0 => self.varint().map(drop),
            _ => {
                self.rest = behind_rare(self.rest, key)?;
                Ok(())
            }
        }
    }

    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    fn value(&mut self, key: u32) -> Result<Value<'a>, WriteError> {
        Ok(match key & 7 {
            2 => Value::Bytes(self.delimited()?),
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed64()?),
            3 => {
                self.rest = behind_group(self.rest, key >> 3)?;
                Value::Group
            }
            5 => Value::Fixed32(self.fixed32()?),
            _ => return Err(WriteError::Wire),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, WriteError> {
        // Nearly all keys and lengths.
        match self.rest {
            [low @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*low))
            }
            [low, high @ ..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            rest => {
                let (value, rest) = long_varint(rest)?;
                self.rest = rest;
                Ok(value)
            }
        }
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, WriteError> {
        self.fixed().map(u32::from_le_bytes)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, WriteError> {
        self.fixed().map(u64::from_le_bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WriteError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(WriteError::Wire)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// A varint, and what stands behind it. Not of the reader's own, which would have to be in memory for a call.
fn long_varint(bytes: &[u8]) -> Result<(u64, &[u8]), WriteError> {
    if let Some(word) = first_word(bytes) {
        let ends = !word & HIGH;
        if ends != 0 {
            // All bits up to the end, without those that say that more follow; then seven of each byte are put together.
            let bits = word & (ends ^ (ends - 1)) & !HIGH;
            let bits = bits & 0x007f_007f_007f_007f | (bits & 0x7f00_7f00_7f00_7f00) >> 1;
            let bits = bits & 0x0000_3fff_0000_3fff | (bits & 0x3fff_0000_3fff_0000) >> 2;
            let value = bits & 0x0fff_ffff | (bits & 0x0fff_ffff_0000_0000) >> 4;
            return Ok((value, &bytes[ends.trailing_zeros() as usize / 8 + 1..]));
        }
    }
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(LONGEST_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            // The tenth byte holds the highest bit alone.
            let fits = at < LONGEST_VARINT - 1 || *byte <= 1;
            return if fits { Ok((value, &bytes[at + 1..])) } else { Err(WriteError::Wire) };
        }
    }
    Err(WriteError::Wire)
}

/// The first eight bytes, or the only four to seven; what is missing is a varint's middle.
fn first_word(bytes: &[u8]) -> Option<u64> {
    match (bytes.first_chunk(), bytes.first_chunk(), bytes.last_chunk()) {
        (Some(word), ..) => Some(u64::from_le_bytes(*word)),
        (None, Some(first), Some(last)) => {
            // Both have the same bytes where they overlap.
            let behind = 8 * (bytes.len() as u32 - 4);
            let word = u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << behind;
            Some(word | HIGH << (behind + 32))
        }
        _ => None,
    }
}

/// What stands behind the value of a key that is neither a number's nor a text's.
#[cold]
fn behind_rare(bytes: &[u8], key: u32) -> Result<&[u8], WriteError> {
    let mut reader = Reader::new(bytes);
    reader.value(key)?;
    Ok(reader.rest)
}

/// What stands behind a group. Groups are skipped without recursion: the open ones are kept, up to the depth bound.
fn behind_group(bytes: &[u8], number: u32) -> Result<&[u8], WriteError> {
    let mut reader = Reader::new(bytes);
    let mut open = [0_u32; MAX_DEPTH as usize];
    let mut depth = 1;
    open[0] = number;
    while depth > 0 {
        let key = reader.next_key()?;
        match key & 7 {
            _ if key == END => return Err(WriteError::Wire),
            3 => {
                *open.get_mut(depth).ok_or(WriteError::Depth)? = key >> 3;
                depth += 1;
            }
            4 => {
                depth -= 1;
                if open[depth] != key >> 3 {
                    return Err(WriteError::Wire);
                }
            }
            _ => reader.pass(key)?,
        }
    }
    Ok(reader.rest)
}

/// Calls `each` with the number and the value of every field that is a varint.
#[inline]
pub(crate) fn varints(bytes: &[u8], mut each: impl FnMut(u32, u64)) -> Result<(), WriteError> {
    let mut reader = Reader::new(bytes);
    loop {
        let key = reader.next_key()?;
        match key & 7 {
            _ if key == END => return Ok(()),
            0 => each(key >> 3, reader.varint()?),
            _ => reader.pass(key)?,
        }
    }
}

/// Reads a `Timestamp` over what is known of it.
#[inline]
pub(crate) fn timestamp(bytes: &[u8], time: &mut Timestamp) -> Result<(), WriteError> {
    varints(bytes, |number, bits| match number {
        1 => time.seconds = bits as i64,
        2 => time.nanos = bits as i32,
        _ => {}
    })
}

/// What comes in place of a key at the end; no field has it.
pub(crate) const END: u32 = 0;

/// The key of a field whose value is a varint.
pub(crate) const fn varint_key(number: u32) -> u32 {
    number << 3
}

/// The key of a field whose value is a text, bytes or a message.
pub(crate) const fn bytes_key(number: u32) -> u32 {
    number << 3 | 2
}

/// The key of a field and a varint.
#[inline]
pub(crate) fn put_varint_field(number: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3, out);
    put_varint(value, out);
}

/// The key of a field and eight bytes.
pub(crate) fn put_fixed64(number: u32, bits: u64, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 1, out);
    out.extend_from_slice(&bits.to_le_bytes());
}

/// The key of a field, a length and the bytes.
#[inline]
pub(crate) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    // Then there is room for all of it, and nothing below has to look.
    out.reserve(bytes.len() + 2 * LONGEST_VARINT);
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Of 64 bits.
const LONGEST_VARINT: usize = 10;

#[inline]
fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes of a length that was not known before: a varint may be longer than it need be.
const LENGTH: usize = 4;
/// The bit that says that more follow, in all of them but the last.
const MORE: u32 = 0x0080_8080;

/// The key of a message and room for its length; the answer is for [`end`].
#[inline]
pub(crate) fn begin(number: u32, out: &mut Vec<u8>) -> usize {
    put_varint(u64::from(number) << 3 | 2, out);
    out.extend_from_slice(&[0; LENGTH]);
    out.len()
}

/// Sets the length of a message that began at `start`; nothing if it is longer than that can say.
#[inline]
pub(crate) fn end(start: usize, out: &mut [u8]) -> Option<()> {
    let length = u32::try_from(out.len() - start).ok().filter(|length| *length < 1 << (7 * LENGTH))?;
    let sevens =
        length & 0x7f | (length & 0x3f80) << 1 | (length & 0x1f_c000) << 2 | (length & 0xfe0_0000) << 3;
    out[start - LENGTH..start].copy_from_slice(&(sevens | MORE).to_le_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::encoding::encode_varint;

    #[test]
    fn varints_of_every_length_are_read_wherever_they_stand() {
        let values = (0..64).flat_map(|bit| [1_u64 << bit, u64::MAX >> bit, 0x5a5a_5a5a_5a5a_5a5a >> bit]);
        for value in values {
            let mut bytes = Vec::new();
            encode_varint(value, &mut bytes);
            for (behind, followed) in [(0, 0), (1, 0xff), (12, 0), (12, 0xff)] {
                let bytes = [&bytes[..], &vec![followed; behind]].concat();
                let mut reader = Reader::new(&bytes);
                assert_eq!((reader.varint(), reader.rest.len()), (Ok(value), behind), "{value:#x}");
            }
            bytes.pop();
            assert_eq!(Reader::new(&bytes).varint(), Err(WriteError::Wire), "{value:#x}");
        }
        // Longer than need be, and more than 64 bits.
        assert_eq!(Reader::new(&[0x85, 0x80, 0x80, 0]).varint(), Ok(5));
        for last in [2, 0x80] {
            assert_eq!(Reader::new(&[&[0xff; 9][..], &[last, 0]].concat()).varint(), Err(WriteError::Wire));
        }
    }
}
