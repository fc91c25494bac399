//! The protobuf wire format, written by hand: a flow is built from pieces that are already encoded, without a tree.

/// Wire types of the protobuf encoding.
pub(super) const VARINT: u32 = 0;
const FIXED64: u32 = 1;
pub(super) const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

#[inline]
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn tag(out: &mut Vec<u8>, field: u32, wire_type: u32) {
    varint(out, u64::from(field << 3 | wire_type));
}

/// An integer, enum or bool; 0 is the default and is left out.
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(out, field, VARINT);
        varint(out, value);
    }
}

/// A double, also when it is 0.
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
pub(super) fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        bytes(out, field, value.as_bytes());
    }
}

/// A string or message that `write` appends; its length is put in front afterwards.
pub(super) fn nested(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, LENGTH);
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    if len < 0x80 {
        out[at] = len as u8;
        return;
    }
    // The length takes more than the byte kept for it.
    let more = len.ilog2() as usize / 7;
    out.resize(out.len() + more, 0);
    out.copy_within(at + 1..at + 1 + len, at + 1 + more);
    for (place, byte) in out[at..=at + more].iter_mut().enumerate() {
        let continues = if place < more { 0x80 } else { 0 };
        *byte = (len >> (7 * place)) as u8 & 0x7f | continues;
    }
}

/// Appends text that others format.
pub(super) struct Text<'a>(pub(super) &'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
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
    fn lengths_of_all_sizes_stand_in_front() {
        for len in [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152] {
            let content = vec![7; len];
            let (mut nested, mut plain) = (vec![1, 2], vec![1, 2]);
            super::nested(&mut nested, 100_000, |out| out.extend_from_slice(&content));
            bytes(&mut plain, 100_000, &content);
            assert!(nested == plain, "{len} bytes");
        }
    }
}
