//! Times of the command line. One call, so that the shared reader of times can take its place.

use jiff::{SignedDuration, Timestamp};

/// A duration before `now`, or a moment.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<prost_types::Timestamp, String> {
    let fail = || format!("failed to convert {text} to time");
    let time = match duration(text) {
        Some(ago) => now.checked_sub(ago).map_err(|_| fail())?,
        None => text.parse().map_err(|_| fail())?,
    };
    Ok(prost_types::Timestamp { seconds: time.as_second(), nanos: time.subsec_nanosecond() })
}

/// `1h30m`, `90s`, `1.5h`, `100ms`.
fn duration(text: &str) -> Option<SignedDuration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| SignedDuration::try_from_secs_f64(seconds).ok()).flatten()
}
