//! JSON to encoded protobuf by table, in one pass and without building messages. Accepted and refused is what Go's
//! protojson accepts and refuses, with which Hubble reads: names in both spellings, enums by name or number, a field
//! once only, `null` for a field that is not set.

mod cursor;
mod number;
mod well_known;

use super::{
    Mask,
    known::Known,
    schema::{Enum, Field, Form, Kind, Message, MessageType, SCHEMA, Spelling},
    wire::{self, MAX_DEPTH},
};
use cursor::Cursor;
use std::borrow::Cow;

/// Why a text is not the wanted message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (column {column})")]
pub struct ReadError {
    /// Where, in characters from 1.
    pub column: usize,
    what: String,
}

/// Reads one message from its JSON, such as one line of an export. What is not known is an error.
pub fn read<M: prost::Message + prost::Name + Default>(json: &str) -> Result<M, ReadError> {
    read_with(&mut Reader::strict(), json)
}

fn read_with<M: prost::Message + prost::Name + Default>(
    reader: &mut Reader,
    json: &str,
) -> Result<M, ReadError> {
    let error = |what: String| ReadError { column: 1, what };
    let name = M::full_name();
    let kind = MessageType::named(&name).ok_or_else(|| error(format!("{name} is no message of this API")))?;
    let mut encoded = Vec::new();
    reader.read(kind, json, &mut encoded)?;
    M::decode(encoded.as_slice()).map_err(|wrong| error(wrong.to_string()))
}

/// Reads as [`read`] does, as many messages as stand one after the other.
pub fn read_many<M: prost::Message + prost::Name + Default>(json: &str) -> Result<Vec<M>, ReadError> {
    let error = |what: String| ReadError { column: 1, what };
    let name = M::full_name();
    let kind = MessageType::named(&name).ok_or_else(|| error(format!("{name} is no message of this API")))?;
    let mut reader = Reader::strict();
    let mut cursor = Cursor::new(json.as_bytes(), true)?;
    let mut messages = Vec::new();
    while cursor.peek().is_some() {
        let mut encoded = Vec::new();
        cursor = reader.one(kind, cursor, &mut encoded)?.cursor;
        messages.push(M::decode(encoded.as_slice()).map_err(|wrong| error(wrong.to_string()))?);
    }
    Ok(messages)
}

/// Reads messages; keep one for a stream.
#[derive(Debug, Default)]
pub struct Reader {
    discard: bool,
    mask: Option<Mask>,
    dates: well_known::Dates,
    habits: Habits,
    ends: Ends,
    is_as_written: bool,
}

/// Ends that were read before, with what is kept of one.
#[derive(Debug, Default)]
struct Ends {
    known: Known,
    mask: Option<Mask>,
}

impl Ends {
    /// Whether an end of which this is to be kept may be found here: both ends of a flow, as a rule.
    fn are_for(&mut self, mask: Option<&Mask>) -> bool {
        if self.known.is_empty() {
            self.mask = mask.cloned();
        }
        self.mask.as_ref() == mask
    }
}

/// For each field of each message, and for their beginnings, the places of the fields that came next the last times: lines
/// of one writer have the same fields in the same order, mostly, so the next name is known before it is read.
#[derive(Debug, Default)]
struct Habits(Vec<[u16; 2]>);

impl Habits {
    fn note(&mut self, after: usize, place: usize) {
        let habit = &mut self.0[after];
        let place = place as u16;
        if habit[0] != place {
            *habit = [place, habit[0]];
        }
    }
}

impl Reader {
    /// For which an unknown field or name of an enum is an error.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Which passes over unknown fields, and leaves a field unset that has an unknown name of an enum, as Hubble does
    /// for files of a newer version.
    pub fn discarding() -> Self {
        Self { discard: true, ..Self::default() }
    }

    /// Leaves fields out, which are checked all the same.
    #[must_use]
    pub fn keeping(self, mask: Mask) -> Self {
        Self { mask: Some(mask), ..self }
    }

    /// Appends the message, encoded, though not in the shortest way; after an error `out` is as it was before. The answer
    /// is the column of the first thing that was passed over for being unknown.
    pub fn read(
        &mut self,
        kind: MessageType,
        json: &str,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, ReadError> {
        self.read_bytes(kind, json.as_bytes(), out)
    }

    /// As [`Self::read`], of bytes. Not UTF-8 is an error.
    pub fn read_bytes(
        &mut self,
        kind: MessageType,
        json: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, ReadError> {
        let before = out.len();
        self.is_as_written = false;
        let cursor = Cursor::new(json, self.mask.is_none())?;
        let read = self.one(kind, cursor, out).and_then(|mut parser| match parser.cursor.peek() {
            None => {
                let unknown = parser.unknown.map(|at| parser.cursor.error_at(at, "").column);
                Ok((unknown, parser.cursor.is_as_written))
            }
            Some(_) => Err(parser.cursor.error("something follows the message")),
        });
        self.is_as_written = matches!(read, Ok((None, true)));
        if read.is_err() {
            out.truncate(before);
        }
        Ok(read?.0)
    }

    /// Whether the text that was read last is known to be, letter for letter, what a [`super::Writer`] makes of the message:
    /// then nobody needs to write it. With [`Self::keeping`] that is not known.
    pub fn is_as_written(&self) -> bool {
        self.is_as_written
    }

    fn one<'a>(
        &mut self,
        kind: MessageType,
        cursor: Cursor<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Parser<'a, '_>, ReadError> {
        let Self { discard, mask, dates, habits, ends, .. } = self;
        habits.0.resize(SCHEMA.places, [0; 2]);
        let mut parser = Parser { cursor, discard: *discard, unknown: None, depth: 0, dates, habits, ends };
        parser.message(kind.0, mask.as_ref(), out)?;
        Ok(parser)
    }
}

/// The text of one message, half read.
struct Parser<'a, 'r> {
    cursor: Cursor<'a>,
    discard: bool,
    /// Where the first unknown thing stands.
    unknown: Option<usize>,
    depth: u32,
    dates: &'r mut well_known::Dates,
    habits: &'r mut Habits,
    ends: &'r mut Ends,
}

/// Which fields or oneofs were met, by place. No message has as many; a test holds that.
#[derive(Default)]
struct Seen(u64);

impl Seen {
    const MOST: usize = 64;

    /// Whether it is the first time.
    fn first(&mut self, place: usize) -> bool {
        let bit = 1_u64 << (place % Self::MOST);
        let first = self.0 & bit == 0;
        self.0 |= bit;
        first
    }
}

impl<'a> Parser<'a, '_> {
    /// A message of any form.
    fn message(&mut self, kind: usize, mask: Option<&Mask>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let message = &SCHEMA.messages[kind];
        match message.form {
            Form::Object => self.object(message, false, mask, out),
            form => self.well_known(form, message, out),
        }
    }

    /// A message that may have been read before.
    fn recurring(&mut self, kind: usize, mask: Option<&Mask>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if !self.ends.are_for(mask) {
            return self.message(kind, mask, out);
        }
        let place = match self.ends.known.at_the_begin_of(self.cursor.rest()) {
            Ok((length, made)) => {
                out.extend_from_slice(made);
                self.cursor.pass(length);
                return Ok(());
            }
            Err(place) => place,
        };
        let (text, start) = (self.cursor.rest(), out.len());
        self.message(kind, mask, out)?;
        // Only what is written in the one usual way, so that nothing is known of it but what is made of it.
        // Read again, it must have the same effect besides: none.
        if self.unknown.is_none() && (self.cursor.is_as_written || !self.cursor.tells_as_written) {
            let length = text.len() - self.cursor.rest().len();
            self.ends.known.keep(place, &text[..length], &out[start..]);
        }
        Ok(())
    }

    /// The fields of a message; within an Any there is also `@type`.
    fn object(
        &mut self,
        message: &'static Message,
        in_any: bool,
        mask: Option<&Mask>,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.cursor.expect(b'{')?;
        if self.cursor.take(b'}') {
            return Ok(());
        }
        let (mut fields, mut oneofs) = (Seen::default(), Seen::default());
        let mut next = 0;
        loop {
            if let Some((place, at)) = self.next_field(message, in_any, next)? {
                if place < next {
                    self.cursor.is_as_written = false;
                }
                next = place + 1;
                let field = &message.fields[place];
                if !fields.first(place) {
                    return Err(self
                        .cursor
                        .error_at(at, format!("field {:?} stands twice", text(field.name()))));
                }
                if self.cursor.peek() == Some(b'n') && !field.takes_null() && self.cursor.word(b"null") {
                    self.cursor.is_as_written = false;
                } else {
                    if let Some(oneof) = field.oneof
                        && !oneofs.first(oneof.into())
                    {
                        let name = text(field.name());
                        let what = format!("field {name:?} excludes one that stands before it");
                        return Err(self.cursor.error_at(at, what));
                    }
                    self.field(field, mask.map(|mask| mask.of(place)), out)?;
                }
            }
            if !self.cursor.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// The place of the field whose name is next, and where that stands; nothing for one that was passed over with its value.
    #[inline]
    fn next_field(
        &mut self,
        message: &'static Message,
        in_any: bool,
        next: usize,
    ) -> Result<Option<(usize, usize)>, ReadError> {
        let after = message.start + next;
        let at = self.cursor.position();
        for place in self.habits.0[after] {
            let place = usize::from(place);
            if message.fields.get(place).is_some_and(|field| self.cursor.key(field.key)) {
                return Ok(Some((place, at)));
            }
        }
        self.cursor.peek();
        let at = self.cursor.position();
        let name = self.cursor.name()?;
        if in_any && *name == *b"@type" {
            self.cursor.skip()?;
            return Ok(None);
        }
        let Some((place, spelling)) = message.place_by_name(&name, next) else {
            self.unknown(at, || format!("unknown field {:?}", text(&name)))?;
            self.cursor.skip()?;
            return Ok(None);
        };
        if spelling == Spelling::Other {
            self.cursor.is_as_written = false;
        }
        self.habits.note(after, place);
        Ok(Some((place, at)))
    }

    /// Something unknown: an error, or noted.
    fn unknown(&mut self, at: usize, what: impl FnOnce() -> String) -> Result<(), ReadError> {
        if !self.discard {
            return Err(self.cursor.error_at(at, what()));
        }
        self.unknown.get_or_insert(at);
        Ok(())
    }

    fn field(
        &mut self,
        field: &'static Field,
        mask: Option<&super::mask::Wanted>,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        use super::mask::Wanted;
        let (inner, is_wanted) = match mask {
            None | Some(Wanted::Whole) => (None, true),
            Some(Wanted::Part(mask)) => (Some(mask), true),
            Some(Wanted::Nothing) => (None, false),
        };
        let before = out.len();
        if field.repeated {
            self.cursor.expect(b'[')?;
            if self.cursor.take(b']') {
                // A writer leaves it out.
                self.cursor.is_as_written = false;
                return Ok(());
            }
            loop {
                if is_wanted || !self.passes_string(field) {
                    self.value(field, inner, out)?;
                }
                if !self.cursor.more(b']')? {
                    break;
                }
            }
        } else if is_wanted || !self.passes_string(field) {
            let is_default = self.value(field, inner, out)?;
            if is_default && !field.explicit {
                self.cursor.is_as_written = false;
            }
        }
        if !is_wanted {
            out.truncate(before);
        }
        Ok(())
    }

    /// Takes the value of a field that is not wanted, if it is a string without escapes.
    fn passes_string(&mut self, field: &Field) -> bool {
        field.kind == Kind::String && self.cursor.plain_string().is_some()
    }

    /// One value with its key before it; whether it is its kind's default. A message is none.
    #[expect(
        clippy::inline_always,
        reason = "a call would take longer than most of what is done before the next one"
    )]
    #[inline(always)]
    fn value(
        &mut self,
        field: &'static Field,
        mask: Option<&Mask>,
        out: &mut Vec<u8>,
    ) -> Result<bool, ReadError> {
        if let Kind::Message(kind) = field.kind {
            let recurs = SCHEMA.messages[kind].recurs;
            self.delimited(field.number, out, |parser, out| {
                if recurs { parser.recurring(kind, mask, out) } else { parser.message(kind, mask, out) }
            })?;
            return Ok(false);
        }
        self.scalar(field.number, field.kind, out)
    }

    /// A value that is no message, with its key; whether it is its kind's default.
    fn scalar(&mut self, number: u32, kind: Kind, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        self.cursor.peek();
        let at = self.cursor.position();
        let varint = match kind {
            Kind::String => {
                let text = self.cursor.string()?;
                wire::put_bytes(number, &text, out);
                return Ok(text.is_empty());
            }
            Kind::Bool => match (self.cursor.word(b"true"), self.cursor.word(b"false")) {
                (true, _) => 1,
                (_, true) => 0,
                _ => return Err(self.cursor.error_at(at, "neither true nor false")),
            },
            Kind::Enum(of) => match self.enum_value(&SCHEMA.enums[of])? {
                Some(number) => i64::from(number) as u64,
                None => return Ok(true),
            },
            Kind::Int32 | Kind::Uint32 => match (self.cursor.short_number(), kind) {
                (Some(short), _) => short.into(),
                (None, Kind::Int32) => self.signed(at, i64::from(i32::MIN)..=i64::from(i32::MAX))? as u64,
                (None, _) => self.unsigned(at, u64::from(u32::MAX))?,
            },
            Kind::Int64 => self.signed(at, i64::MIN..=i64::MAX)? as u64,
            Kind::Uint64 => self.unsigned(at, u64::MAX)?,
            Kind::Double => {
                let bits = match self.cursor.short_number() {
                    Some(short) => f64::from(short),
                    None => self.float(at)?,
                };
                let bits = bits.to_bits();
                wire::put_fixed64(number, bits, out);
                return Ok(bits == 0);
            }
            // This API has none of them; a test holds that.
            Kind::Float | Kind::Bytes | Kind::Message(_) => {
                return Err(self.cursor.error_at(at, "a kind of field that is not read"));
            }
        };
        wire::put_varint_field(number, varint, out);
        Ok(varint == 0)
    }

    /// A number or name; nothing for a name that is not known and may be passed over.
    fn enum_value(&mut self, of: &'static Enum) -> Result<Option<i32>, ReadError> {
        let next = self.cursor.peek();
        let at = self.cursor.position();
        if next == Some(b'"') {
            let name = self.cursor.string()?;
            let Some((number, spelling)) = of.number(&name) else {
                self.unknown(at, || format!("unknown name {:?}", text(&name)))?;
                return Ok(None);
            };
            self.cursor.is_as_written &= spelling == Spelling::Written;
            return Ok(Some(number));
        }
        // A writer has a name for most numbers.
        self.cursor.is_as_written = false;
        if of.is_null && self.cursor.word(b"null") {
            return Ok(Some(0));
        }
        let digits = self.cursor.number()?;
        let number = number::signed(digits).and_then(|number| i32::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.cursor.error_at(at, "no number of an enum"))
    }

    /// A number as it is written, also in a string; and its part that is one.
    fn digits(&mut self) -> Result<(Cow<'a, [u8]>, Option<usize>), ReadError> {
        if self.cursor.peek() == Some(b'"') {
            let text = self.cursor.string()?;
            let length = number::within(&text).map(<[u8]>::len);
            return Ok((text, length));
        }
        let digits = self.cursor.number()?;
        Ok((Cow::Borrowed(digits), Some(digits.len())))
    }

    fn signed(&mut self, at: usize, range: std::ops::RangeInclusive<i64>) -> Result<i64, ReadError> {
        let (written, length) = self.digits()?;
        // There may be an exponent, or something behind the number.
        self.cursor.is_as_written = false;
        let found = length.and_then(|length| number::signed(&written[..length]));
        found.filter(|number| range.contains(number)).ok_or_else(|| {
            let (written, from, to) = (text(&written), range.start(), range.end());
            self.cursor.error_at(at, format!("{written:?} is no number from {from} to {to}"))
        })
    }

    fn unsigned(&mut self, at: usize, most: u64) -> Result<u64, ReadError> {
        let is_text = self.cursor.peek() == Some(b'"');
        let (written, length) = self.digits()?;
        // As a writer has it: 64 bits as text. Elsewhere there may be an exponent, or something behind the number.
        let is_usual = is_text && most == u64::MAX && written.iter().all(u8::is_ascii_digit);
        self.cursor.is_as_written &= is_usual;
        let found = length.and_then(|length| number::unsigned(&written[..length]));
        found.filter(|number| *number <= most).ok_or_else(|| {
            self.cursor.error_at(at, format!("{:?} is no number from 0 to {most}", text(&written)))
        })
    }

    fn float(&mut self, at: usize) -> Result<f64, ReadError> {
        self.cursor.is_as_written = false;
        let is_text = self.cursor.peek() == Some(b'"');
        let (written, length) = self.digits()?;
        let found = match (&*written, is_text) {
            (b"NaN", true) => Some(f64::NAN),
            (b"Infinity", true) => Some(f64::INFINITY),
            (b"-Infinity", true) => Some(f64::NEG_INFINITY),
            _ => length.and_then(|length| number::float(&written[..length])),
        };
        found.ok_or_else(|| self.cursor.error_at(at, format!("{:?} is no number", text(&written))))
    }

    /// A message inside a message: the key, the length, and what `write` writes.
    fn delimited(
        &mut self,
        number: u32,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        self.depth += 1;
        // The decoder's own bound, and one less for the response that is put around a bare flow.
        if self.depth >= MAX_DEPTH {
            return Err(self.cursor.error(format!("nested more than {MAX_DEPTH} deep")));
        }
        let start = wire::begin(number, out);
        write(self, out)?;
        self.depth -= 1;
        wire::end(start, out).ok_or_else(|| self.cursor.error("a message longer than 256 MiB"))
    }
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests;
