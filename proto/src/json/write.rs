//! Encoded protobuf to JSON by table.

use super::{
    calendar::Calendar,
    escape,
    known::Known,
    schema::{Field, Form, Kind, Message, MessageType, SCHEMA},
    wire::{MAX_DEPTH, Reader, Value},
};

/// Why a message has no JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The bytes are no protobuf message.
    #[error("not a protobuf message: broken wire format")]
    Wire,
    /// More than 100 messages inside each other.
    #[error("messages are nested more than {MAX_DEPTH} deep")]
    Depth,
    /// A string field holds something else.
    #[error("a string field holds bytes that are not UTF-8")]
    Utf8,
    /// A message above the 4 GiB that protobuf allows.
    #[error("the message is longer than 4 GiB")]
    TooLong,
    /// The type is not one of this crate's API.
    #[error("{0} is no message of this API")]
    UnknownType(String),
    /// An Any of a type that nobody here knows.
    #[error("google.protobuf.Any: unable to resolve {0:?}: not found")]
    UnknownAny(String),
    /// A well-known type holds what its JSON form can't say.
    #[error("{0}")]
    NoJson(&'static str),
}

/// Where a field's values stand in the encoded message.
#[derive(Clone, Copy, Default)]
struct Slot {
    first: u32,
    end: u32,
    count: u32,
}

/// Writes messages as JSON; keep one for a stream, it reuses its memory.
#[derive(Default)]
pub struct Writer {
    /// One slot for every field of each message being written, the outermost first.
    slots: Vec<Slot>,
    encoded: Vec<u8>,
    pub(super) calendar: Calendar,
    known: Known,
}

impl Writer {
    /// A writer with nothing remembered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the JSON of an encoded message, without a newline. After an error `out` is as it was before.
    pub fn write(&mut self, kind: MessageType, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
        u32::try_from(bytes.len()).map_err(|_| WriteError::TooLong)?;
        self.slots.clear();
        let before = out.len();
        let written = self.any_form(kind.0, bytes, out, 0);
        if written.is_err() {
            out.truncate(before);
        }
        written
    }

    /// Appends the JSON of a message. For a hot path, encode it and use [`Self::write`] with a kept [`MessageType`].
    pub fn message<M: prost::Message + prost::Name>(
        &mut self,
        message: &M,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let name = M::full_name();
        let kind = MessageType::named(&name).ok_or(WriteError::UnknownType(name))?;
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        let written = message
            .encode(&mut encoded)
            .map_err(|_| WriteError::TooLong)
            .and_then(|()| self.write(kind, &encoded, out));
        self.encoded = encoded;
        written
    }

    /// One message of any form.
    pub(super) fn any_form(
        &mut self,
        kind: usize,
        bytes: &[u8],
        out: &mut Vec<u8>,
        depth: u32,
    ) -> Result<(), WriteError> {
        if depth > MAX_DEPTH {
            return Err(WriteError::Depth);
        }
        let message = &SCHEMA.messages[kind];
        match message.form {
            Form::Object if message.recurs => self.recurring(message, bytes, out, depth),
            Form::Object => {
                out.push(b'{');
                self.fields(message, bytes, out, depth, true)?;
                out.push(b'}');
                Ok(())
            }
            Form::Wrapper => wrapper(message, bytes, out),
            form => self.well_known(form, bytes, out, depth),
        }
    }

    /// An object that may have been written before.
    fn recurring(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        out: &mut Vec<u8>,
        depth: u32,
    ) -> Result<(), WriteError> {
        let place = match self.known.of(bytes) {
            Ok(made) => {
                out.extend_from_slice(made);
                return Ok(());
            }
            Err(place) => place,
        };
        let start = out.len();
        out.push(b'{');
        self.fields(message, bytes, out, depth, true)?;
        out.push(b'}');
        self.known.keep(place, bytes, &out[start..]);
        Ok(())
    }

    /// `"name":value` of every field that is set, in the order of declaration.
    pub(super) fn fields(
        &mut self,
        message: &'static Message,
        bytes: &[u8],
        out: &mut Vec<u8>,
        depth: u32,
        mut first: bool,
    ) -> Result<(), WriteError> {
        let base = self.slots.len();
        self.slots.resize(base + message.fields.len(), Slot::default());
        index(message, bytes, &mut self.slots[base..])?;
        for (place, field) in message.fields.iter().enumerate() {
            let slot = self.slots[base + place];
            if slot.count == 0 {
                continue;
            }
            let before = out.len();
            if !first {
                out.push(b',');
            }
            out.extend_from_slice(field.key);
            let written = if field.repeated {
                self.repeated(field, bytes, slot, out, depth)?
            } else {
                self.singular(field, bytes, slot, out, depth)?
            };
            if written {
                first = false;
            } else {
                out.truncate(before);
            }
        }
        self.slots.truncate(base);
        Ok(())
    }

    /// Writes the value; `false` if it is a default that counts as unset.
    fn singular(
        &mut self,
        field: &Field,
        bytes: &[u8],
        slot: Slot,
        out: &mut Vec<u8>,
        depth: u32,
    ) -> Result<bool, WriteError> {
        if let Kind::Message(kind) = field.kind
            && slot.count > 1
        {
            // The parts of a message given in pieces, one after the other, are the encoding of their merger.
            let mut merged = Vec::new();
            occurrences(field.number, bytes, slot, |value| {
                if let Value::Bytes(part) = value {
                    merged.extend_from_slice(part);
                }
                Ok(())
            })?;
            self.any_form(kind, &merged, out, depth + 1)?;
            return Ok(true);
        }
        let mut reader = Reader::starting_at(bytes, slot.first as usize);
        let Some((_, value)) = reader.field()? else { return Ok(false) };
        match (field.kind, value) {
            (Kind::Message(kind), Value::Bytes(inner)) => self.any_form(kind, inner, out, depth + 1)?,
            (_, value) if !field.explicit && is_default(field.kind, value) => return Ok(false),
            (kind, value) => scalar(kind, value, out)?,
        }
        Ok(true)
    }

    /// Writes the list; `false` if it is empty.
    fn repeated(
        &mut self,
        field: &Field,
        bytes: &[u8],
        slot: Slot,
        out: &mut Vec<u8>,
        depth: u32,
    ) -> Result<bool, WriteError> {
        out.push(b'[');
        let mut any = false;
        occurrences(field.number, bytes, slot, |value| match (field.kind, value) {
            (Kind::Message(kind), Value::Bytes(inner)) => {
                comma(&mut any, out);
                self.any_form(kind, inner, out, depth + 1)
            }
            (kind @ (Kind::String | Kind::Bytes), value @ Value::Bytes(_)) => {
                comma(&mut any, out);
                scalar(kind, value, out)
            }
            (kind, Value::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    let value = match width(kind) {
                        Width::Varint => Value::Varint(reader.varint()?),
                        Width::Four => Value::Fixed32(reader.fixed32()?),
                        Width::Eight => Value::Fixed64(reader.fixed64()?),
                        Width::Length => return Err(WriteError::Wire),
                    };
                    comma(&mut any, out);
                    scalar(kind, value, out)?;
                }
                Ok(())
            }
            (kind, value) if fits(kind, false, value) => {
                comma(&mut any, out);
                scalar(kind, value, out)
            }
            _ => Ok(()),
        })?;
        out.push(b']');
        Ok(any)
    }
}

fn comma(any: &mut bool, out: &mut Vec<u8>) {
    if *any {
        out.push(b',');
    }
    *any = true;
}

/// One pass over a message: where each known field stands. The last member of a oneof wins.
fn index(message: &Message, bytes: &[u8], slots: &mut [Slot]) -> Result<(), WriteError> {
    let mut reader = Reader::new(bytes);
    loop {
        let start = reader.position();
        let Some((number, value)) = reader.field()? else { return Ok(()) };
        let Some(place) = message.place_of(number) else { continue };
        let field = &message.fields[place];
        if !fits(field.kind, field.repeated, value) {
            continue;
        }
        if let Some(oneof) = field.oneof {
            for &member in message.oneofs[usize::from(oneof)] {
                if usize::from(member) != place {
                    slots[usize::from(member)] = Slot::default();
                }
            }
        }
        let slot = &mut slots[place];
        // All positions fit: the whole message was held to 4 GiB.
        if slot.count == 0 || !(field.repeated || matches!(field.kind, Kind::Message(_))) {
            slot.first = start as u32;
        }
        slot.end = reader.position() as u32;
        slot.count += 1;
    }
}

/// Calls `each` with every value of a field.
fn occurrences<'a>(
    number: u32,
    bytes: &'a [u8],
    slot: Slot,
    mut each: impl FnMut(Value<'a>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut reader = Reader::starting_at(bytes, slot.first as usize);
    while reader.position() < slot.end as usize {
        let Some((found, value)) = reader.field()? else { break };
        if found == number {
            each(value)?;
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Width {
    Varint,
    Four,
    Eight,
    Length,
}

fn width(kind: Kind) -> Width {
    match kind {
        Kind::Double => Width::Eight,
        Kind::Float => Width::Four,
        Kind::String | Kind::Bytes | Kind::Message(_) => Width::Length,
        _ => Width::Varint,
    }
}

/// Whether a value stands in the form of its field; if not it is an unknown field, as it is for Go.
fn fits(kind: Kind, repeated: bool, value: Value<'_>) -> bool {
    match value {
        Value::Varint(_) => width(kind) == Width::Varint,
        Value::Fixed32(_) => width(kind) == Width::Four,
        Value::Fixed64(_) => width(kind) == Width::Eight,
        Value::Bytes(_) => repeated || width(kind) == Width::Length,
        Value::Group => false,
    }
}

/// The bits of a number as they stood on the wire.
fn bits(value: Value<'_>) -> u64 {
    match value {
        Value::Varint(bits) | Value::Fixed64(bits) => bits,
        Value::Fixed32(bits) => u64::from(bits),
        Value::Bytes(_) | Value::Group => 0,
    }
}

fn is_default(kind: Kind, value: Value<'_>) -> bool {
    match (kind, value) {
        (_, Value::Bytes(bytes)) => bytes.is_empty(),
        (Kind::Int32 | Kind::Uint32 | Kind::Enum(_), value) => bits(value) as u32 == 0,
        (_, value) => bits(value) == 0,
    }
}

/// One value that is no message.
fn scalar(kind: Kind, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), WriteError> {
    let raw = bits(value);
    match (kind, value) {
        (Kind::String, Value::Bytes(text)) => return escape::string(text, out),
        (Kind::Bytes, Value::Bytes(bytes)) => escape::base64(bytes, out),
        (Kind::Bool, _) => out.extend_from_slice(if raw == 0 { b"false" } else { b"true" }),
        (Kind::Int32, _) => escape::signed(i64::from(raw as i32), out),
        (Kind::Uint32, _) => escape::unsigned(u64::from(raw as u32), out),
        (Kind::Int64, _) => quoted(out, |out| escape::signed(raw as i64, out)),
        (Kind::Uint64, _) => quoted(out, |out| escape::unsigned(raw, out)),
        (Kind::Double, _) => escape::double(f64::from_bits(raw), out),
        (Kind::Float, _) => escape::float(f32::from_bits(raw as u32), out),
        (Kind::Enum(at), _) => {
            let number = raw as i32;
            let names = &SCHEMA.enums[at];
            if names.is_null {
                out.extend_from_slice(b"null");
            } else if let Some(name) = names.name(number) {
                quoted(out, |out| out.extend_from_slice(name.as_bytes()));
            } else {
                escape::signed(i64::from(number), out);
            }
        }
        (Kind::String | Kind::Bytes | Kind::Message(_), _) => return Err(WriteError::Wire),
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// A wrapper prints as its one value, the default too: that it is there is what it says.
fn wrapper(message: &Message, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    let Some(field) = message.fields.first() else { return Err(WriteError::Wire) };
    let mut last = match field.kind {
        Kind::String | Kind::Bytes => Value::Bytes(b""),
        _ => Value::Varint(0),
    };
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        if number == field.number && fits(field.kind, false, value) {
            last = value;
        }
    }
    scalar(field.kind, last, out)
}
