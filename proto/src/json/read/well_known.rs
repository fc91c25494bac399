//! The well-known types that have a JSON form of their own.

use super::{
    super::{
        schema::{Form, Kind, Message, MessageType, SCHEMA},
        wire,
    },
    Cursor, Parser, ReadError, text,
};
use jiff::civil;
use std::borrow::Cow;

/// The years 1 to 9999, in seconds since 1970.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// 10,000 years, the bound of a Duration.
const DURATION_SECONDS: u64 = 315_576_000_000;

impl<'a> Parser<'a, '_> {
    pub(super) fn well_known(
        &mut self,
        form: Form,
        message: &'static Message,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.cursor.peek();
        let at = self.cursor.position();
        match form {
            Form::Timestamp => {
                let time = self.cursor.string()?;
                let moment = self.dates.moment(&time).ok_or_else(|| self.wrong(at, &time, "timestamp"))?;
                self.cursor.is_as_written &= moment.is_as_written;
                seconds_and_nanos(moment.seconds, moment.nanos, out);
                Ok(())
            }
            Form::Duration => {
                let span = self.cursor.string()?;
                self.cursor.is_as_written = false;
                let (seconds, nanos) = duration(&span).ok_or_else(|| self.wrong(at, &span, "duration"))?;
                seconds_and_nanos(seconds, nanos, out);
                Ok(())
            }
            Form::FieldMask => {
                let paths = self.cursor.string()?;
                self.cursor.is_as_written = false;
                field_mask(&text(&paths), out).ok_or_else(|| self.wrong(at, &paths, "list of fields"))
            }
            Form::Wrapper => match message.fields.first() {
                Some(field) => self.scalar(field.number, field.kind, out).map(|_| ()),
                None => Err(self.cursor.error("a wrapper around nothing")),
            },
            Form::Any => self.any(out),
            Form::Struct => self.fields_of_struct(out),
            Form::ListValue => self.values_of_list(out),
            Form::Value => self.json_value(out),
            Form::Object => Err(self.cursor.error("no well-known type")),
        }
    }

    fn wrong(&self, at: usize, found: &[u8], wanted: &str) -> ReadError {
        self.cursor.error_at(at, format!("{:?} is no {wanted}", text(found)))
    }

    /// Any value, as it is.
    fn json_value(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        match self.cursor.peek() {
            Some(b'n') if self.cursor.word(b"null") => wire::put_varint_field(1, 0, out),
            Some(b't') if self.cursor.word(b"true") => wire::put_varint_field(4, 1, out),
            Some(b'f') if self.cursor.word(b"false") => wire::put_varint_field(4, 0, out),
            Some(b'"') => wire::put_bytes(3, &self.cursor.string()?, out),
            Some(b'{') => return self.delimited(5, out, Self::fields_of_struct),
            Some(b'[') => return self.delimited(6, out, Self::values_of_list),
            _ => return self.scalar(2, Kind::Double, out).map(|_| ()),
        }
        Ok(())
    }

    fn fields_of_struct(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        self.cursor.expect(b'{')?;
        if self.cursor.take(b'}') {
            return Ok(());
        }
        let mut names: Vec<Cow<'a, [u8]>> = Vec::new();
        loop {
            let name = self.cursor.name()?;
            self.delimited(1, out, |parser, out| {
                wire::put_bytes(1, &name, out);
                parser.delimited(2, out, Self::json_value)
            })?;
            if names.last().is_some_and(|last| *last >= name) {
                self.cursor.is_as_written = false;
            }
            names.push(name);
            if !self.cursor.more(b'}')? {
                break;
            }
        }
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(twice) => Err(self.cursor.error(format!("key {:?} stands twice", text(&twice[0])))),
            None => Ok(()),
        }
    }

    fn values_of_list(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        self.cursor.expect(b'[')?;
        if self.cursor.take(b']') {
            return Ok(());
        }
        loop {
            self.delimited(1, out, Self::json_value)?;
            if !self.cursor.more(b']')? {
                return Ok(());
            }
        }
    }

    /// A message of the type that stands in it; where is not said.
    fn any(&mut self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        self.cursor.peek();
        let at = self.cursor.position();
        let url = match type_of_any(self.cursor.clone())? {
            Contents::Nothing => return self.cursor.skip(),
            Contents::Untyped => {
                self.unknown(at, || "an object without \"@type\"".to_owned())?;
                return self.cursor.skip();
            }
            Contents::Message(url, is_first) => {
                self.cursor.is_as_written &= is_first;
                url
            }
        };
        let name = url.rsplit(|byte| *byte == b'/').next().unwrap_or(&url);
        let kind = std::str::from_utf8(name).ok().and_then(MessageType::named);
        let kind =
            kind.ok_or_else(|| self.cursor.error_at(at, format!("unable to resolve {:?}", text(&url))))?;
        wire::put_bytes(1, &url, out);
        let message = &SCHEMA.messages[kind.0];
        self.delimited(2, out, |parser, out| match message.form {
            Form::Object => parser.object(message, true, None, out),
            form => parser.value_of_any(form, message, out),
        })
    }

    /// What has a form of its own stands under `value`.
    fn value_of_any(
        &mut self,
        form: Form,
        message: &'static Message,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        self.cursor.expect(b'{')?;
        let mut found = false;
        // There is `@type` at least.
        loop {
            self.cursor.peek();
            let at = self.cursor.position();
            match &*self.cursor.name()? {
                b"@type" => self.cursor.skip()?,
                b"value" if found => return Err(self.cursor.error_at(at, "field \"value\" stands twice")),
                b"value" => {
                    found = true;
                    self.well_known(form, message, out)?;
                }
                name => {
                    self.unknown(at, || format!("unknown field {:?}", text(name)))?;
                    self.cursor.skip()?;
                }
            }
            if !self.cursor.more(b'}')? {
                break;
            }
        }
        if found { Ok(()) } else { Err(self.cursor.error("no field \"value\"")) }
    }
}

enum Contents<'a> {
    Nothing,
    Untyped,
    /// With whether it stands before all else.
    Message(Cow<'a, [u8]>, bool),
}

/// Reads ahead for `@type`.
fn type_of_any(mut cursor: Cursor<'_>) -> Result<Contents<'_>, ReadError> {
    cursor.expect(b'{')?;
    if cursor.take(b'}') {
        return Ok(Contents::Nothing);
    }
    let (mut url, mut is_first, mut fields) = (None, false, 0);
    loop {
        fields += 1;
        cursor.peek();
        let at = cursor.position();
        if *cursor.name()? == *b"@type" {
            let found = cursor.string()?;
            is_first = fields == 1;
            if found.is_empty() || url.replace(found).is_some() {
                return Err(cursor.error_at(at, "\"@type\" is empty or stands twice"));
            }
        } else {
            cursor.skip()?;
        }
        if !cursor.more(b'}')? {
            return Ok(url.map_or(Contents::Untyped, |url| Contents::Message(url, is_first)));
        }
    }
}

fn seconds_and_nanos(seconds: i64, nanos: i32, out: &mut Vec<u8>) {
    wire::put_varint_field(1, seconds as u64, out);
    wire::put_varint_field(2, i64::from(nanos) as u64, out);
}

/// Reads moments. Keeps the last day: moments that come one after the other share it; and the last moment, which a
/// response shares with its flow.
#[derive(Debug, Default)]
pub(super) struct Dates {
    date: [u8; 10],
    midnight: i64,
    text: Vec<u8>,
    moment: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    seconds: i64,
    nanos: i32,
    is_as_written: bool,
}

impl Dates {
    fn moment(&mut self, text: &[u8]) -> Option<Moment> {
        if self.text != text {
            self.moment = self.timestamp(text).map(|(seconds, nanos)| {
                // What a writer makes has no fraction or one of three, six or nine digits, as few as will do.
                let is_as_written = text.get(13) == Some(&b':')
                    && match text.get(19..) {
                        Some(b"Z") => true,
                        Some([b'.', digits @ .., b'Z']) => {
                            matches!(digits.len(), 3 | 6 | 9) && !digits.ends_with(b"000")
                        }
                        _ => false,
                    };
                Moment { seconds, nanos, is_as_written }
            });
            self.text.clear();
            self.text.extend_from_slice(text);
        }
        self.moment
    }

    /// RFC 3339, as Go reads it: an hour may have one digit, a comma may be the point.
    fn timestamp(&mut self, text: &[u8]) -> Option<(i64, i32)> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        if *date != self.date {
            self.midnight = midnight(date)?;
            self.date = *date;
        }
        let rest = rest.strip_prefix(b"T")?;
        let colon = rest.iter().position(|byte| *byte == b':').filter(|at| matches!(at, 1 | 2))?;
        let (hour, rest) = rest.split_at(colon);
        let (minute, rest) = rest[1..].split_at_checked(2)?;
        let (second, mut rest) = rest.strip_prefix(b":")?.split_at_checked(2)?;
        let (hour, minute, second) = (number(hour)?, number(minute)?, number(second)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut nanos = 0;
        if let Some((point @ (b'.' | b','), after)) = rest.split_first() {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 || digits > 9 && *point == b'.' {
                return None;
            }
            let shown = digits.min(9);
            nanos = number(&after[..shown])? * 10_i64.pow(9 - shown as u32);
            rest = &after[digits..];
        }
        let seconds = self.midnight + hour * 3_600 + minute * 60 + second - zone(rest)?;
        TIMES.contains(&seconds).then_some((seconds, nanos as i32))
    }
}

fn midnight(date: &[u8; 10]) -> Option<i64> {
    let (b'-', b'-') = (date[4], date[7]) else { return None };
    let (year, month, day) = (number(&date[..4])?, number(&date[5..7])?, number(&date[8..])?);
    let date = civil::Date::new(year as i16, month as i8, day as i8).ok()?;
    Some(date.duration_since(civil::date(1970, 1, 1)).as_secs())
}

/// `Z` or `+01:00`, in seconds.
fn zone(text: &[u8]) -> Option<i64> {
    if text == b"Z" {
        return Some(0);
    }
    let [sign @ (b'+' | b'-'), hours @ .., b':', _, _] = text else { return None };
    let (hours, minutes) = (number(hours).filter(|_| hours.len() == 2)?, number(&text[4..])?);
    // Go's own bounds.
    if hours > 24 || minutes > 60 {
        return None;
    }
    let seconds = hours * 3_600 + minutes * 60;
    Some(if *sign == b'-' { -seconds } else { seconds })
}

/// A few digits and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// `-1.5s`, the fraction of at most nine digits.
fn duration(text: &[u8]) -> Option<(i64, i32)> {
    let text = text.strip_suffix(b"s")?;
    let (negative, text) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b""[..]),
    };
    // A lone point is 0 for Go; zeros in front are not.
    if text.is_empty() || fraction.len() > 9 || whole.len() > 12 || whole.len() > 1 && whole[0] == b'0' {
        return None;
    }
    let seconds = number(whole)?;
    let nanos = number(fraction)? * 10_i64.pow(9 - fraction.len() as u32);
    if seconds.unsigned_abs() > DURATION_SECONDS {
        return None;
    }
    Some(if negative { (-seconds, -nanos as i32) } else { (seconds, nanos as i32) })
}

/// Paths in camelCase, with commas between them.
fn field_mask(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let text = text.trim();
    for path in text.split(',').filter(|_| !text.is_empty()) {
        let mut snake = String::new();
        for letter in path.chars() {
            if letter.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        let is_name = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        };
        if path.contains('_') || !snake.split('.').all(is_name) {
            return None;
        }
        wire::put_bytes(1, snake.as_bytes(), out);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let mut dates = Dates::default();
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some((0, 0))),
            ("2026-01-05T10:15:30.123456789Z", Some((1_767_608_130, 123_456_789))),
            ("2026-01-05T10:15:30.5Z", Some((1_767_608_130, 500_000_000))),
            ("2026-01-05T10:15:30,1234567891Z", Some((1_767_608_130, 123_456_789))),
            ("2026-01-05T1:15:30Z", Some((1_767_575_730, 0))),
            ("2026-01-05T10:15:30+01:30", Some((1_767_602_730, 0))),
            ("2026-01-05T10:15:30-24:60", Some((1_767_698_130, 0))),
            ("0001-01-01T00:00:00Z", Some((-62_135_596_800, 0))),
            ("9999-12-31T23:59:59.999999999Z", Some((253_402_300_799, 999_999_999))),
            ("0001-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("0000-01-01T00:00:00Z", None),
            ("2026-02-29T00:00:00Z", None),
            ("2026-01-05T10:15:30.1234567891Z", None),
            ("2026-01-05T24:00:00Z", None),
            ("2026-01-05T10:60:00Z", None),
            ("2026-01-05T10:15:60Z", None),
            ("2026-01-05T10:15:30", None),
            ("2026-01-05T10:15:30.Z", None),
            ("2026-01-05T10:15:30z", None),
            ("2026-01-05T10:15:30+1:00", None),
            ("2026-01-05 10:15:30Z", None),
            ("2026-01-05T10:15Z", None),
            ("yesterday", None),
        ] {
            assert_eq!(dates.timestamp(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, expected) in [
            ("0s", Some((0, 0))),
            ("-1.5s", Some((-1, -500_000_000))),
            ("+.000000001s", Some((0, 1))),
            ("1.s", Some((1, 0))),
            ("315576000000s", Some((315_576_000_000, 0))),
            ("315576000001s", None),
            ("01s", None),
            ("1.0000000001s", None),
            ("1", None),
            ("s", None),
            ("-s", None),
            ("1e3s", None),
        ] {
            assert_eq!(duration(text.as_bytes()), expected, "{text}");
        }
    }
}
