//! Times as Hubble's command line takes and prints them, always in UTC.

use crate::{json::digits_into, text::Out};
use jiff::{SignedDuration, Timestamp, civil, tz::Offset};
use std::fmt;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// How a time is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeFormat {
    /// `2026-01-05`
    YearMonthDay,
    /// `2026-01-05T10Z`
    YearMonthDayHour,
    /// `2026-01-05T10:15Z`
    YearMonthDayHourMinute,
    /// `Jan  5 10:15:30.123`: the day padded with a space, always three digits.
    #[default]
    StampMilli,
    /// `2026-01-05T10:15:30Z`
    Rfc3339,
    /// Up to three digits of the second; zeros at the end vanish.
    Rfc3339Milli,
    /// Up to six digits of the second; zeros at the end vanish.
    Rfc3339Micro,
    /// Up to nine digits of the second; zeros at the end vanish.
    Rfc3339Nano,
    /// `Mon, 05 Jan 2026 10:15:30 +0000`
    Rfc1123Z,
}

impl TimeFormat {
    /// By the name that `--time-format` takes, in any case; an unknown name is `StampMilli`, as in Hubble.
    pub fn named(name: &str) -> Self {
        const NAMES: [(&str, TimeFormat); 8] = [
            ("YearMonthDay", TimeFormat::YearMonthDay),
            ("YearMonthDayHour", TimeFormat::YearMonthDayHour),
            ("YearMonthDayHourMinute", TimeFormat::YearMonthDayHourMinute),
            ("RFC3339", TimeFormat::Rfc3339),
            ("RFC3339Milli", TimeFormat::Rfc3339Milli),
            ("RFC3339Micro", TimeFormat::Rfc3339Micro),
            ("RFC3339Nano", TimeFormat::Rfc3339Nano),
            ("RFC1123Z", TimeFormat::Rfc1123Z),
        ];
        NAMES.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map_or(Self::StampMilli, |row| row.1)
    }

    /// Writes a time; `N/A` for none, and for one outside the calendar.
    pub fn write(self, time: Option<&prost_types::Timestamp>, out: &mut dyn Out) -> fmt::Result {
        match time.and_then(utc) {
            Some(time) => self.write_utc(time, out),
            None => out.write_str("N/A"),
        }
    }

    fn write_utc(self, time: civil::DateTime, out: &mut dyn Out) -> fmt::Result {
        let month = MONTHS[(time.month() - 1) as usize % MONTHS.len()];
        match self {
            // Every line of text begins with one: no formatter is asked, which would take as long as the rest of the line.
            Self::StampMilli => {
                let mut text = *b"Jan  0 00:00:00.000";
                text[..3].copy_from_slice(month.as_bytes());
                let day = time.day().unsigned_abs();
                if day < 10 {
                    text[5] = b'0' + day;
                } else {
                    digits_into(day.into(), &mut text[4..6]);
                }
                digits_into(time.hour().unsigned_abs().into(), &mut text[7..9]);
                digits_into(time.minute().unsigned_abs().into(), &mut text[10..12]);
                digits_into(time.second().unsigned_abs().into(), &mut text[13..15]);
                digits_into(u64::from(time.subsec_nanosecond().unsigned_abs() / 1_000_000), &mut text[16..]);
                return out.write_ascii(&text);
            }
            Self::Rfc1123Z => {
                let weekday = WEEKDAYS[usize::from(time.weekday().to_monday_zero_offset() as u8) % 7];
                write!(out, "{weekday}, {:02} {month} {:04} ", time.day(), time.year())?;
                clock(time, out)?;
                return out.write_str(" +0000");
            }
            _ => {}
        }
        write!(out, "{:04}-{:02}-{:02}", time.year(), time.month(), time.day())?;
        let digits = match self {
            Self::YearMonthDay => return Ok(()),
            Self::YearMonthDayHour => return write!(out, "T{:02}Z", time.hour()),
            Self::YearMonthDayHourMinute => return write!(out, "T{:02}:{:02}Z", time.hour(), time.minute()),
            Self::Rfc3339Milli => 3,
            Self::Rfc3339Micro => 6,
            Self::Rfc3339Nano => 9,
            Self::StampMilli | Self::Rfc1123Z | Self::Rfc3339 => 0,
        };
        out.write_char('T')?;
        clock(time, out)?;
        let nanos = format!("{:09}", time.subsec_nanosecond());
        let fraction = nanos[..digits].trim_end_matches('0');
        if !fraction.is_empty() {
            write!(out, ".{fraction}")?;
        }
        out.write_char('Z')
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

fn clock(time: civil::DateTime, out: &mut dyn Out) -> fmt::Result {
    write!(out, "{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// The calendar date; civil, because a protobuf timestamp reaches the last day of the year 9999 and jiff's does not.
fn utc(time: &prost_types::Timestamp) -> Option<civil::DateTime> {
    // The nanoseconds may be more than a second, or less than none.
    let nanos = i64::from(time.nanos);
    let seconds = time.seconds.checked_add(nanos.div_euclid(NANOS_PER_SECOND))?;
    let (day, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let date = civil::date(1970, 1, 1).checked_add(SignedDuration::try_from_hours(24 * day)?).ok()?;
    let (hour, minute) = (second / 3600, second / 60 % 60);
    Some(date.at(hour as i8, minute as i8, (second % 60) as i8, nanos.rem_euclid(NANOS_PER_SECOND) as i32))
}

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to convert {0} to time")]
pub struct TimeError(pub String);

/// Reads a time of `--since` or `--until`: a Go duration before `now` (`90s`, `1h30m`), a date, a date with an hour
/// or minute and a zone, RFC 3339 with any fraction, or RFC 1123 with a numeric zone.
pub fn parse(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    parse_duration(text)
        .and_then(|back| now.checked_sub(back).ok())
        .or_else(|| parse_calendar(text))
        .or_else(|| parse_rfc1123(text))
        .ok_or_else(|| TimeError(text.to_owned()))
}

/// A time as it goes into a request.
pub fn to_proto(time: Timestamp) -> prost_types::Timestamp {
    let nanos = time.as_nanosecond();
    let second = 1_000_000_000;
    // jiff's times are within ±10,000 years: both parts fit.
    prost_types::Timestamp {
        seconds: nanos.div_euclid(second) as i64,
        nanos: nanos.rem_euclid(second) as i32,
    }
}

/// A Go duration: numbers with a unit each, a fraction and a sign allowed, `0` alone too; `None` beyond ±292 years.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let unit: i128 = match &after[..end] {
            "ns" => 1,
            // The micro sign and the Greek letter.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { i128::from(whole.parse::<u64>().ok()?) };
        // Digits past the 18th are below a nanosecond of an hour.
        let fraction = &fraction[..fraction.len().min(18)];
        let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        total = total.checked_add(whole.checked_mul(unit)?.checked_add(part.checked_mul(unit)? / scale)?)?;
        rest = &after[end..];
    }
    let total = i64::try_from(if negative { -total } else { total }).ok()?;
    Some(SignedDuration::from_nanos(total))
}

/// The ASCII digits at the start, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Exactly `count` digits at the start.
fn number(text: &str, count: usize) -> Option<(i16, &str)> {
    let head = text.get(..count)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, &text[count..]))
}

/// `2006-01-02`, or that with `T`, an hour, perhaps minute, second and fraction, and a zone.
fn parse_calendar(text: &str) -> Option<Timestamp> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    let date = civil::Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    // Year 0 is a date, but a protobuf timestamp begins in the year 1.
    if year == 0 {
        return None;
    }
    if rest.is_empty() {
        return Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok();
    }
    let (hour, mut rest) = number(rest.strip_prefix('T')?, 2)?;
    let (mut minute, mut second, mut nanos) = (0, 0, 0);
    if let Some(after) = rest.strip_prefix(':') {
        (minute, rest) = number(after, 2)?;
        if let Some(after) = rest.strip_prefix(':') {
            (second, rest) = number(after, 2)?;
            // Go takes a comma for the point, as ISO 8601 does.
            if let Some(after) = rest.strip_prefix(['.', ',']) {
                let (fraction, after) = digits(after);
                let first_nine = fraction.get(..9).unwrap_or(fraction);
                nanos = format!("{first_nine:0<9}").parse().ok().filter(|_| !fraction.is_empty())?;
                rest = after;
            }
        }
    }
    let time = civil::Time::new(
        i8::try_from(hour).ok()?,
        i8::try_from(minute).ok()?,
        i8::try_from(second).ok()?,
        nanos,
    )
    .ok()?;
    zone(rest, true)?.to_timestamp(date.to_datetime(time)).ok()
}

/// `Z`, `+01:00`; without a colon `+0100`.
fn zone(text: &str, colon: bool) -> Option<Offset> {
    if colon && text == "Z" {
        return Some(Offset::UTC);
    }
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, rest) = number(&text[1..], 2)?;
    let rest = if colon { rest.strip_prefix(':')? } else { rest };
    let (minutes, rest) = number(rest, 2)?;
    if !rest.is_empty() || hours > 24 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (i32::from(hours) * 3_600 + i32::from(minutes) * 60)).ok()
}

/// `Mon, 05 Jan 2026 10:15:30 +0000`. As in Go, the name of the day must be one but need not be the right one.
fn parse_rfc1123(text: &str) -> Option<Timestamp> {
    let (weekday, rest) = text.split_once(", ")?;
    if !WEEKDAYS.iter().any(|name| name.eq_ignore_ascii_case(weekday)) {
        return None;
    }
    let mut words = rest.split(' ');
    let (day, month, year, clock, offset) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? + 1;
    let (year, left) = number(year, 4)?;
    if words.next().is_some() || !left.is_empty() {
        return None;
    }
    let offset = zone(offset, false)?.seconds();
    let sign = if offset < 0 { '-' } else { '+' };
    let (hours, minutes) = (offset.abs() / 3_600, offset.abs() % 3_600 / 60);
    parse_calendar(&format!("{year:04}-{month:02}-{day:0>2}T{clock}{sign}{hours:02}:{minutes:02}"))
        .filter(|_| clock.len() == "15:04:05".len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-05T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn accepted_times() {
        for (text, expected) in [
            ("90s", "2026-01-05T11:58:30Z"),
            ("1h30m", "2026-01-05T10:30:00Z"),
            ("+1.5h", "2026-01-05T10:30:00Z"),
            ("-1m", "2026-01-05T12:01:00Z"),
            (".5s", "2026-01-05T11:59:59.5Z"),
            ("1.s", "2026-01-05T11:59:59Z"),
            ("0", "2026-01-05T12:00:00Z"),
            ("1us2ns3ms", "2026-01-05T11:59:59.996998998Z"),
            ("1µs1μs", "2026-01-05T11:59:59.999998Z"),
            ("2026-01-02", "2026-01-02T00:00:00Z"),
            ("2026-01-02T15Z", "2026-01-02T15:00:00Z"),
            ("2026-01-02T15+01:00", "2026-01-02T14:00:00Z"),
            ("2026-01-02T15:04Z", "2026-01-02T15:04:00Z"),
            ("2026-01-02T15:04-02:30", "2026-01-02T17:34:00Z"),
            ("2026-01-02T15:04:05Z", "2026-01-02T15:04:05Z"),
            ("2026-01-02T15:04:05.123+00:00", "2026-01-02T15:04:05.123Z"),
            ("2026-01-02T15:04:05.123456789Z", "2026-01-02T15:04:05.123456789Z"),
            ("2026-01-02T10:25:00,5Z", "2026-01-02T10:25:00.5Z"),
            ("Fri, 02 Jan 2026 15:04:05 +0100", "2026-01-02T14:04:05Z"),
        ] {
            assert_eq!(parse(text, now()).map(|time| time.to_string()), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn refused_times() {
        for text in [
            "",
            "-",
            "1",
            "s",
            ".s",
            "1d",
            "1h 30m",
            "9999999h",
            "99999999999999999999h",
            "0000-01-01",
            "2026-13-01",
            "2026-02-30",
            "2026-01-02T15",
            "2026-01-02T15:04:05",
            "2026-01-02 15:04:05Z",
            "2026-01-02T25Z",
            "2026-01-02T15:04:05.Z",
            "Jan  5 10:15:30.123",
            "Fri, 02 Jan 2026 15:04 +0100",
            "Day, 02 Jan 2026 15:04:05 +0100",
            "é",
        ] {
            let error = parse(text, now()).unwrap_err();
            assert_eq!(error.to_string(), format!("failed to convert {text} to time"));
        }
    }

    #[test]
    fn layouts() {
        let time = prost_types::Timestamp { seconds: 1_767_608_130, nanos: 120_000_000 };
        for (name, expected) in [
            ("yearmonthday", "2026-01-05"),
            ("YearMonthDayHour", "2026-01-05T10Z"),
            ("YearMonthDayHourMinute", "2026-01-05T10:15Z"),
            ("StampMilli", "Jan  5 10:15:30.120"),
            ("no such name", "Jan  5 10:15:30.120"),
            ("RFC3339", "2026-01-05T10:15:30Z"),
            ("RFC3339Milli", "2026-01-05T10:15:30.12Z"),
            ("RFC3339Micro", "2026-01-05T10:15:30.12Z"),
            ("RFC3339Nano", "2026-01-05T10:15:30.12Z"),
            ("RFC1123Z", "Mon, 05 Jan 2026 10:15:30 +0000"),
        ] {
            let mut text = String::new();
            TimeFormat::named(name).write(Some(&time), &mut text).unwrap();
            assert_eq!(text, expected, "{name}");
        }
        for time in [
            None,
            Some(prost_types::Timestamp { seconds: i64::MAX, nanos: i32::MAX }),
            Some(prost_types::Timestamp { seconds: i64::MIN, nanos: i32::MIN }),
        ] {
            let mut text = String::new();
            TimeFormat::StampMilli.write(time.as_ref(), &mut text).unwrap();
            assert_eq!(text, "N/A");
        }
    }

    #[test]
    fn times_before_1970_keep_nanoseconds_positive() {
        let time = to_proto("1969-12-31T23:59:59.5Z".parse().unwrap());
        assert_eq!((time.seconds, time.nanos), (-1, 500_000_000));
    }
}
