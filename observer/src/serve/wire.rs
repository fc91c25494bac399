//! The protobuf wire format, written by hand: a flow is built from pieces that are already encoded, without a tree.

/// Wire types of the protobuf encoding.
pub(super) const VARINT: u32 = 0;
const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

#[inline]
pub(super) fn varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        return out.push(value as u8);
    }
    longer_varint(out, value);
}

/// Apart, so that the one byte that most take is written where it is.
fn longer_varint(out: &mut Vec<u8>, value: u64) {
    match value {
        // A byte after the other takes longer: each has to wait for the length that the one before it has left.
        0..0x100_0000_0000_0000 => {
            let bytes = (0..8).fold(0, |bytes, at| bytes | (value & 0x7f << (7 * at)) << at);
            let len = value.ilog2() / 7 + 1;
            let goes_on = 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1);
            first_bytes(out, (bytes | goes_on).to_le_bytes(), len as usize);
        }
        _ => long_varint(out, value),
    }
}

#[cold]
fn long_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The first `len` of some bytes: all are copied, for which no call is needed.
#[inline]
pub(super) fn first_bytes<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N], len: usize) {
    let end = out.len() + len;
    out.extend_from_slice(&bytes);
    out.truncate(end);
}

#[inline]
pub(super) fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    let key = field << 3 | wire_type;
    match key {
        0..0x80 => out.push(key as u8),
        // Known when this is compiled.
        0x80..0x4000 => out.extend_from_slice(&[key as u8 | 0x80, (key >> 7) as u8]),
        _ => longer_varint(out, key.into()),
    }
}

/// An integer, enum or bool; 0 is the default and is left out.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(out, field, VARINT);
        varint(out, value);
    }
}

/// A double, also when it is 0.
#[inline]
pub(super) fn double(out: &mut Vec<u8>, field: u32, value: f64) {
    tag(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A string, bytes or encoded message, also when it is empty.
#[inline]
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    tag(out, field, LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// A string; an empty one is the default and is left out.
#[inline]
pub(super) fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, field, value.as_bytes());
    }
}

/// A string or message that `write` appends, of mostly less than 128 bytes: its length is put in front afterwards.
#[inline]
pub(super) fn nested(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    length_in_front::<1>(out, field, write);
}

/// As [`nested`], of mostly 128 to 16,383 bytes.
#[inline]
pub(super) fn nested_long(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    length_in_front::<2>(out, field, write);
}

#[inline]
fn length_in_front<const KEPT: usize>(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH);
    let at = out.len();
    out.extend_from_slice(&[0; KEPT]);
    write(out);
    let len = out.len() - at - KEPT;
    let fits = len >> (7 * KEPT) == 0 && (KEPT == 1 || len >> (7 * (KEPT - 1)) > 0);
    if fits && let Some(front) = out.get_mut(at..).and_then(|kept| kept.first_chunk_mut::<KEPT>()) {
        put_length(front, len);
    } else {
        other_length(out, at, KEPT, len);
    }
}

fn put_length(front: &mut [u8], len: usize) {
    let last = front.len().saturating_sub(1);
    for (place, byte) in front.iter_mut().enumerate() {
        let continues = if place < last { 0x80 } else { 0 };
        *byte = (len >> (7 * place)) as u8 & 0x7f | continues;
    }
}

/// The length takes more or fewer bytes than were kept for it.
#[cold]
fn other_length(out: &mut Vec<u8>, at: usize, kept: usize, len: usize) {
    let needed = (len | 1).ilog2() as usize / 7 + 1;
    let end = out.len();
    if needed > kept {
        out.resize(end + needed - kept, 0);
    }
    out.copy_within(at + kept..end, at + needed);
    out.truncate(end + needed - kept);
    put_length(&mut out[at..at + needed], len);
}

/// One field of an encoded message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    /// Tag included.
    pub(super) raw: &'a [u8],
    /// What a length-delimited field holds.
    pub(super) content: Option<&'a [u8]>,
}

/// The fields of a message in the order in which they stand; ends at the first byte that is no field.
pub(super) fn fields(mut message: &[u8]) -> impl Iterator<Item = Field<'_>> {
    std::iter::from_fn(move || {
        let start = message;
        let (key, mut rest) = read_varint(start)?;
        let mut content = None;
        match key as u32 & 7 {
            VARINT => rest = read_varint(rest)?.1,
            FIXED64 => rest = rest.get(8..)?,
            FIXED32 => rest = rest.get(4..)?,
            LENGTH => {
                let (len, after) = read_varint(rest)?;
                let (inner, after) = after.split_at_checked(usize::try_from(len).ok()?)?;
                content = Some(inner);
                rest = after;
            }
            _ => return None,
        }
        message = rest;
        Some(Field { number: (key >> 3) as u32, raw: &start[..start.len() - rest.len()], content })
    })
}

fn read_varint(input: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in input.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &input[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_sizes_are_read_again() {
        let mut out = Vec::new();
        let edges = (0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit, u64::MAX >> bit]);
        for value in edges {
            out.clear();
            varint(&mut out, value);
            assert_eq!(out.len(), (value | 1).ilog2() as usize / 7 + 1, "{value:#x}");
            assert_eq!(read_varint(&out), Some((value, &[][..])), "{value:#x}");
        }
    }

    #[test]
    fn lengths_of_all_sizes_stand_in_front() {
        for len in [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152] {
            let content = vec![7; len];
            let (mut short, mut long, mut plain) = (vec![1, 2], vec![1, 2], vec![1, 2]);
            nested(&mut short, 100_000, |out| out.extend_from_slice(&content));
            nested_long(&mut long, 100_000, |out| out.extend_from_slice(&content));
            bytes(&mut plain, 100_000, &content);
            assert!(short == plain && long == plain, "{len} bytes");
        }
    }
}
