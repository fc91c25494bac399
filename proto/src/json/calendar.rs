//! Moments as protobuf's JSON has them: RFC 3339 in UTC.

use super::{WriteError, escape::digits};
use jiff::{SignedDuration, civil};

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, the bounds of a Timestamp.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// Writes moments. Keeps the text of the last day: moments that come one after the other share it.
#[derive(Clone, Debug, Default)]
pub struct Calendar {
    day: Option<i64>,
    /// `2026-01-05T`.
    date: [u8; 11],
}

impl Calendar {
    /// Appends `2026-01-05T10:15:30.123Z`, of the second's fraction the shortest of none, 3, 6 and 9 digits that says
    /// all. An error is what is not within the years 1 to 9999, or not within one second.
    pub fn write(&mut self, seconds: i64, nanos: i64, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if !SECONDS.contains(&seconds) || !(0..NANOS_PER_SECOND).contains(&nanos) {
            return Err(WriteError::NoJson("google.protobuf.Timestamp: not within the years 1 to 9999"));
        }
        let day = seconds.div_euclid(SECONDS_PER_DAY);
        if self.day != Some(day) {
            self.date = date(day)?;
            self.day = Some(day);
        }
        let second = seconds.rem_euclid(SECONDS_PER_DAY) as u64;
        let mut text = *b"0000-00-00T00:00:00";
        text[..11].copy_from_slice(&self.date);
        for (at, number) in [(11, second / 3600), (14, second / 60 % 60), (17, second % 60)] {
            digits(number, &mut text[at..at + 2]);
        }
        out.extend_from_slice(&text);
        fraction(nanos.unsigned_abs(), out);
        out.push(b'Z');
        Ok(())
    }
}

fn date(day: i64) -> Result<[u8; 11], WriteError> {
    let date = civil::date(1970, 1, 1)
        .checked_add(SignedDuration::from_hours(24 * day))
        .map_err(|_| WriteError::NoJson("google.protobuf.Timestamp: no calendar date"))?;
    let mut text = *b"0000-00-00T";
    digits(date.year().unsigned_abs().into(), &mut text[..4]);
    digits(date.month().unsigned_abs().into(), &mut text[5..7]);
    digits(date.day().unsigned_abs().into(), &mut text[8..10]);
    Ok(text)
}

/// `.123`, `.123456` or `.123456789`, the shortest that says all; nothing for a whole second.
pub(super) fn fraction(nanos: u64, out: &mut Vec<u8>) {
    let mut text = *b".000000000";
    digits(nanos, &mut text[1..]);
    let shown = match nanos {
        0 => 0,
        _ if nanos.is_multiple_of(1_000_000) => 4,
        _ if nanos.is_multiple_of(1_000) => 7,
        _ => 10,
    };
    out.extend_from_slice(&text[..shown]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(seconds: i64, nanos: i64) -> Option<String> {
        let mut out = Vec::new();
        Calendar::default().write(seconds, nanos, &mut out).ok()?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn the_ends_of_time_and_fractions() {
        for (seconds, nanos, expected) in [
            (-62_135_596_800, 0, Some("0001-01-01T00:00:00Z")),
            (253_402_300_799, 999_999_999, Some("9999-12-31T23:59:59.999999999Z")),
            (-1, 500_000_000, Some("1969-12-31T23:59:59.500Z")),
            (1_709_210_096, 1_000, Some("2024-02-29T12:34:56.000001Z")),
            (-62_135_596_801, 0, None),
            (0, 1_000_000_000, None),
        ] {
            assert_eq!(text(seconds, nanos).as_deref(), expected);
        }
    }

    proptest! {
        #[test]
        fn a_kept_calendar_writes_what_jiff_writes(seconds in prop::collection::vec(-62_135_596_800..253_402_200_000_i64, 1..9)) {
            let mut calendar = Calendar::default();
            for seconds in seconds.iter().flat_map(|at| [*at, at + 1, at - 1]).filter(|at| *at >= *SECONDS.start()) {
                let mut out = Vec::new();
                calendar.write(seconds, 0, &mut out).unwrap();
                let expected = jiff::Timestamp::from_second(seconds).unwrap().to_string();
                prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }
}
