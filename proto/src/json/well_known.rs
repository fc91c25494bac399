//! The well-known types that have a JSON form of their own.

use super::{
    WriteError, Writer,
    calendar::fraction,
    escape,
    schema::{Form, MessageType, SCHEMA},
    wire::{Reader, Value},
};

/// 10,000 years, the bound of a Duration.
const DURATION_SECONDS: std::ops::RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl Writer {
    pub(super) fn well_known(
        &mut self,
        form: Form,
        bytes: &[u8],
        out: &mut Vec<u8>,
        depth: u32,
    ) -> Result<(), WriteError> {
        match form {
            Form::Timestamp => {
                let (seconds, nanos) = seconds_and_nanos(bytes)?;
                out.push(b'"');
                self.calendar.write(seconds, nanos, out)?;
                out.push(b'"');
                Ok(())
            }
            Form::Duration => {
                let (seconds, nanos) = seconds_and_nanos(bytes)?;
                duration(seconds, nanos, out)
            }
            Form::FieldMask => field_mask(bytes, out),
            Form::Any => self.any(bytes, out, depth),
            Form::Struct => self.object_of_values(bytes, out, depth),
            Form::Value => self.value(bytes, out, depth),
            Form::ListValue => self.list_of_values(bytes, out, depth),
            Form::Object | Form::Wrapper => Err(WriteError::Wire),
        }
    }

    /// The inner message's fields beside `@type`, or under `value` if it has a form of its own.
    fn any(&mut self, bytes: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WriteError> {
        let (mut url, mut inner): (&[u8], &[u8]) = (b"", b"");
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            match (number, value) {
                (1, Value::Bytes(text)) => url = text,
                (2, Value::Bytes(message)) => inner = message,
                _ => {}
            }
        }
        if url.is_empty() {
            if inner.is_empty() {
                out.extend_from_slice(b"{}");
                return Ok(());
            }
            return Err(WriteError::NoJson("google.protobuf.Any: missing type_url"));
        }
        let text = std::str::from_utf8(url).map_err(|_| WriteError::Utf8)?;
        let name = text.rsplit('/').next().unwrap_or(text);
        let kind = MessageType::named(name).ok_or_else(|| WriteError::UnknownAny(text.to_owned()))?;
        out.extend_from_slice(b"{\"@type\":");
        escape::string(url, out)?;
        let message = &SCHEMA.messages[kind.0];
        if message.form == Form::Object {
            if depth >= super::wire::MAX_DEPTH {
                return Err(WriteError::Depth);
            }
            self.fields(message, inner, out, depth + 1, false)?;
        } else {
            out.extend_from_slice(b",\"value\":");
            self.any_form(kind.0, inner, out, depth + 1)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// A Struct: keys sorted, the last of equal ones counts.
    fn object_of_values(&mut self, bytes: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WriteError> {
        let mut entries: Vec<(&[u8], &[u8])> = Vec::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            let (1, Value::Bytes(entry)) = (number, value) else { continue };
            let (mut key, mut held): (&[u8], &[u8]) = (b"", b"");
            let mut parts = Reader::new(entry);
            while let Some((number, value)) = parts.field()? {
                match (number, value) {
                    (1, Value::Bytes(text)) => key = text,
                    (2, Value::Bytes(message)) => held = message,
                    _ => {}
                }
            }
            entries.push((key, held));
        }
        entries.sort_by_key(|entry| entry.0);
        out.push(b'{');
        let mut first = true;
        for (at, (key, held)) in entries.iter().enumerate() {
            if entries.get(at + 1).is_some_and(|next| next.0 == *key) {
                continue;
            }
            if !first {
                out.push(b',');
            }
            first = false;
            escape::string(key, out)?;
            out.push(b':');
            self.nested(Form::Value, held, out, depth)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn list_of_values(&mut self, bytes: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WriteError> {
        out.push(b'[');
        let mut first = true;
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            let (1, Value::Bytes(held)) = (number, value) else { continue };
            if !first {
                out.push(b',');
            }
            first = false;
            self.nested(Form::Value, held, out, depth)?;
        }
        out.push(b']');
        Ok(())
    }

    fn value(&mut self, bytes: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WriteError> {
        let mut last = None;
        let mut reader = Reader::new(bytes);
        while let Some((number, value)) = reader.field()? {
            if matches!(
                (number, value),
                (1 | 4, Value::Varint(_)) | (2, Value::Fixed64(_)) | (3 | 5 | 6, Value::Bytes(_))
            ) {
                last = Some((number, value));
            }
        }
        match last {
            Some((1, _)) => out.extend_from_slice(b"null"),
            Some((2, Value::Fixed64(bits))) => {
                let number = f64::from_bits(bits);
                if !number.is_finite() {
                    return Err(WriteError::NoJson("google.protobuf.Value: NaN or infinite"));
                }
                escape::double(number, out);
            }
            Some((3, Value::Bytes(text))) => escape::string(text, out)?,
            Some((4, Value::Varint(bits))) => {
                out.extend_from_slice(if bits == 0 { b"false" } else { b"true" });
            }
            Some((5, Value::Bytes(held))) => self.nested(Form::Struct, held, out, depth)?,
            Some((6, Value::Bytes(held))) => self.nested(Form::ListValue, held, out, depth)?,
            _ => return Err(WriteError::NoJson("google.protobuf.Value: holds nothing")),
        }
        Ok(())
    }

    fn nested(&mut self, form: Form, bytes: &[u8], out: &mut Vec<u8>, depth: u32) -> Result<(), WriteError> {
        if depth >= super::wire::MAX_DEPTH {
            return Err(WriteError::Depth);
        }
        self.well_known(form, bytes, out, depth + 1)
    }
}

fn seconds_and_nanos(bytes: &[u8]) -> Result<(i64, i64), WriteError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Value::Varint(bits)) => seconds = bits as i64,
            (2, Value::Varint(bits)) => nanos = i64::from(bits as i32),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

fn duration(seconds: i64, nanos: i64, out: &mut Vec<u8>) -> Result<(), WriteError> {
    let signs_agree = seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0);
    if !DURATION_SECONDS.contains(&seconds) || nanos.abs() >= NANOS_PER_SECOND || !signs_agree {
        return Err(WriteError::NoJson("google.protobuf.Duration: out of range"));
    }
    out.push(b'"');
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    escape::unsigned(seconds.unsigned_abs(), out);
    fraction(nanos.unsigned_abs(), out);
    out.extend_from_slice(b"s\"");
    Ok(())
}

/// Paths in camelCase, joined by commas.
fn field_mask(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    let mut joined = Vec::new();
    let mut first = true;
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        let (1, Value::Bytes(path)) = (number, value) else { continue };
        if !first {
            joined.push(b',');
        }
        first = false;
        let mut upper = false;
        for &byte in path {
            // Only such a path comes back from camelCase as it was.
            if byte.is_ascii_uppercase() || (upper && !byte.is_ascii_lowercase()) {
                return Err(WriteError::NoJson("google.protobuf.FieldMask: a path has no camelCase form"));
            }
            if byte == b'_' {
                upper = true;
            } else {
                joined.push(if upper { byte.to_ascii_uppercase() } else { byte });
                upper = false;
            }
        }
        if upper {
            return Err(WriteError::NoJson("google.protobuf.FieldMask: a path has no camelCase form"));
        }
    }
    escape::string(&joined, out)
}
