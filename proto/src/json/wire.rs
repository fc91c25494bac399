//! Protobuf's wire format, read and written without building anything.

use super::WriteError;

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
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The next field's number and value; `None` at the end.
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, WriteError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        Ok(Some((number, self.value(number, wire_type)?)))
    }

    /// The next field's key, of a number and the form of its value; `None` at the end. What takes the value is for the caller
    /// to call: one that knows the key need not look at the form.
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn next_key(&mut self) -> Result<Option<u32>, WriteError> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint()?).map_err(|_| WriteError::Wire)?;
        if key >> 3 == 0 { Err(WriteError::Wire) } else { Ok(Some(key)) }
    }

    /// The value behind [`bytes_key`].
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn delimited(&mut self) -> Result<&'a [u8], WriteError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WriteError::Wire)?;
        self.take(length)
    }

    /// Passes over the value behind a key.
    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn pass(&mut self, key: u32) -> Result<(), WriteError> {
        self.value(key >> 3, (key & 7) as u8).map(drop)
    }

    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    fn key(&mut self) -> Result<(u32, u8), WriteError> {
        let key = self.next_key()?.ok_or(WriteError::Wire)?;
        Ok((key >> 3, (key & 7) as u8))
    }

    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    fn value(&mut self, number: u32, wire_type: u8) -> Result<Value<'a>, WriteError> {
        Ok(match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.fixed64()?),
            2 => Value::Bytes(self.delimited()?),
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            5 => Value::Fixed32(self.fixed32()?),
            _ => return Err(WriteError::Wire),
        })
    }

    /// Groups are skipped without recursion: the open ones are kept, up to the depth bound.
    fn skip_group(&mut self, number: u32) -> Result<(), WriteError> {
        let mut open = [0_u32; MAX_DEPTH as usize];
        let mut depth = 1;
        open[0] = number;
        while depth > 0 {
            let (number, wire_type) = self.key()?;
            match wire_type {
                3 => {
                    *open.get_mut(depth).ok_or(WriteError::Depth)? = number;
                    depth += 1;
                }
                4 => {
                    depth -= 1;
                    if open[depth] != number {
                        return Err(WriteError::Wire);
                    }
                }
                other => {
                    self.value(number, other)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, WriteError> {
        // Nearly all keys and lengths.
        match self.bytes.get(self.at..) {
            Some([low @ ..0x80, ..]) => {
                self.at += 1;
                Ok(u64::from(*low))
            }
            Some([low, high @ ..0x80, ..]) => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, WriteError> {
        // As `end` writes a length.
        if let Some(bytes) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<LENGTH>) {
            let bits = u32::from_le_bytes(*bytes);
            if bits & (MORE | 0x8000_0000) == MORE {
                self.at += LENGTH;
                let sevens =
                    bits & 0x7f | bits >> 1 & 0x3f80 | bits >> 2 & 0x1f_c000 | bits >> 3 & 0xfe0_0000;
                return Ok(sevens.into());
            }
        }
        let mut value = 0_u64;
        for shift in 0..10 {
            let byte = *self.bytes.get(self.at).ok_or(WriteError::Wire)?;
            self.at += 1;
            // The tenth byte holds the highest bit alone.
            if shift == 9 && byte > 1 {
                return Err(WriteError::Wire);
            }
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WriteError::Wire)
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, WriteError> {
        let bytes = self.take(4)?.try_into().map_err(|_| WriteError::Wire)?;
        Ok(u32::from_le_bytes(bytes))
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, WriteError> {
        let bytes = self.take(8)?.try_into().map_err(|_| WriteError::Wire)?;
        Ok(u64::from_le_bytes(bytes))
    }

    #[expect(clippy::inline_always, reason = "a call would take longer than what it does")]
    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], WriteError> {
        let end = self.at.checked_add(length).ok_or(WriteError::Wire)?;
        let taken = self.bytes.get(self.at..end).ok_or(WriteError::Wire)?;
        self.at = end;
        Ok(taken)
    }
}

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
