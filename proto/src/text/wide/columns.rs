//! How wide each column is, and what gives way where the line is narrow.

use crate::{text::Options, time::TimeFormat};
use std::ops::Range;
use unicode_truncate::UnicodeTruncateStr as _;
use unicode_width::UnicodeWidthStr as _;

/// Between columns.
pub(crate) const GAP: &str = "  ";
/// Between the ends.
pub(super) const ARROW: &str = " -> ";
/// In its place in the header.
pub(super) const NO_ARROW: &str = "    ";
/// The longest verdicts: REDIRECTED, TRANSLATED.
pub(super) const VERDICT: usize = 10;
/// A narrower line would have no names.
pub(crate) const LEAST: usize = 40;
/// An end gets no more cells than this; the rest is the reason's. Also what an end is filled up to where lines have no
/// bound.
const MOST_FOR_AN_END: usize = 40;
/// `Jan  5 10:15:30.123` without its date, and without its milliseconds.
const CLOCK: Range<usize> = 7..19;
const SECONDS: Range<usize> = 7..15;

/// The columns of a line; a width of 0: not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) time: usize,
    /// What of the time's text is shown.
    pub(super) part_of_time: Range<usize>,
    pub(super) node: usize,
    /// Each end, with its port.
    pub(super) end: usize,
    pub(super) types: usize,
    /// Whether types have short names.
    pub(super) is_short: bool,
    /// The port that tells one client's connections apart; the service's port always shows.
    pub(super) client_port: bool,
    pub(super) reason: bool,
}

/// What a line shows.
struct Shape {
    /// Cells that must be left for the ends and the reason.
    least: usize,
    /// Of the usual time format; others are shown whole.
    part_of_time: Range<usize>,
    node: usize,
    types: usize,
    client_port: bool,
    reason: bool,
}

/// Cells of `L4-ESTABLISHED` and `policy-verdict`, and of the longest short type.
const LONG_TYPES: usize = 14;
const SHORT_TYPES: usize = 9;

/// From rich to poor. With the usual time format, from 130, 110, 90, 76, 57 and 46 cells on.
#[rustfmt::skip]
const SHAPES: [Shape; 7] = [
    Shape { least: 75, part_of_time: 0..usize::MAX, node: 20, types: LONG_TYPES, client_port: true, reason: true },
    Shape { least: 62, part_of_time: CLOCK, node: 12, types: LONG_TYPES, client_port: false, reason: true },
    Shape { least: 47, part_of_time: CLOCK, node: 12, types: SHORT_TYPES, client_port: false, reason: true },
    Shape { least: 37, part_of_time: SECONDS, node: 12, types: SHORT_TYPES, client_port: false, reason: true },
    Shape { least: 20, part_of_time: SECONDS, node: 12, types: SHORT_TYPES, client_port: false, reason: false },
    Shape { least: 20, part_of_time: SECONDS, node: 12, types: 0, client_port: false, reason: false },
    Shape { least: 0, part_of_time: 0..0, node: 0, types: 0, client_port: false, reason: false },
];

impl Columns {
    pub(super) fn fit(options: Options, width: Option<usize>) -> Self {
        let [richest, .., poorest] = &SHAPES;
        let Some(width) = width else { return Self { end: MOST_FOR_AN_END, ..Self::of(options, richest) } };
        let width = width.max(LEAST);
        let fits = |shape: &Shape| {
            width.checked_sub(Self::of(options, shape).fixed()).filter(|rest| *rest >= shape.least)
        };
        let (shape, rest) = SHAPES
            .iter()
            .find_map(|shape| Some((shape, fits(shape)?)))
            .unwrap_or((poorest, LEAST - Self::of(options, poorest).fixed()));
        let end = if shape.reason { (rest / 3).min(MOST_FOR_AN_END) } else { rest / 2 };
        Self { end, ..Self::of(options, shape) }
    }

    fn of(options: Options, shape: &Shape) -> Self {
        let is_usual = options.time == TimeFormat::StampMilli;
        let part_of_time = if is_usual || shape.part_of_time.is_empty() {
            shape.part_of_time.clone()
        } else {
            0..usize::MAX
        };
        Self {
            time: longest_time(options.time).min(part_of_time.len()),
            part_of_time,
            node: if options.node_names { shape.node } else { 0 },
            end: 0,
            types: shape.types,
            is_short: shape.types < LONG_TYPES,
            client_port: shape.client_port,
            reason: shape.reason,
        }
    }

    /// Cells of all that has a fixed width.
    fn fixed(&self) -> usize {
        let column = |width| if width > 0 { width + GAP.len() } else { 0 };
        let ends = ARROW.len() + GAP.len();
        let reason = if self.reason { GAP.len() } else { 0 };
        column(self.time) + column(self.node) + ends + column(self.types) + VERDICT + reason
    }
}

/// How long the times of a format get.
fn longest_time(format: TimeFormat) -> usize {
    let mut text = String::new();
    let time = prost_types::Timestamp { seconds: 1_767_608_130, nanos: 123_456_789 };
    // Writing to a string can't fail.
    let _ = format.write(Some(&time), &mut text);
    text.len()
}

/// Cells that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Shortens in the middle: names begin with what they have in common and end with what tells them apart.
pub fn shorten(text: &str, cells: usize) -> String {
    if text.width() <= cells {
        return text.to_owned();
    }
    let kept = cells.saturating_sub(1);
    let (head, taken) = text.unicode_truncate(kept / 2);
    let (tail, _) = text.unicode_truncate_start(kept - taken);
    format!("{head}…{tail}")
}

/// Shortens at the end.
pub fn shorten_end(text: &str, cells: usize) -> String {
    if text.width() <= cells {
        return text.to_owned();
    }
    format!("{}…", text.unicode_truncate(cells.saturating_sub(1)).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_in_the_middle_to_the_cell() {
        for (text, cells, expected) in [
            ("front", 5, "front"),
            ("frontend-app-7b5b", 17, "frontend-app-7b5b"),
            ("frontend-app-7b5b", 14, "fronte…pp-7b5b"),
            ("frontend-app-7b5b", 2, "…b"),
            ("frontend-app-7b5b", 1, "…"),
            ("frontend-app-7b5b", 0, "…"),
            // Two cells each: one may stay empty.
            ("データベース", 7, "デ…ース"),
            ("データベース", 6, "デ…ス"),
            // A letter with its mark is one.
            ("e\u{301}e\u{301}e\u{301}e\u{301}", 3, "e\u{301}…e\u{301}"),
        ] {
            assert_eq!(shorten(text, cells), expected, "{text} {cells}");
            assert!(width(expected) <= cells.max(1), "{text} {cells}");
        }
        assert_eq!(shorten_end("Policy denied at egress", 14), "Policy denied…");
        assert_eq!(shorten_end("Policy denied", 13), "Policy denied");
    }

    #[test]
    fn what_gives_way_first() {
        let options = Options::default();
        let shown = |width| {
            let Columns { time, end, types, client_port, reason, .. } = Columns::fit(options, width);
            (time, end, types, client_port, reason)
        };
        for (width, expected) in [
            (None, (19, 40, 14, true, true)),
            (Some(400), (19, 40, 14, true, true)),
            (Some(130), (19, 25, 14, true, true)),
            (Some(129), (12, 27, 14, false, true)),
            (Some(109), (12, 22, 9, false, true)),
            (Some(80), (8, 13, 9, false, true)),
            (Some(75), (8, 19, 9, false, false)),
            (Some(57), (8, 10, 9, false, false)),
            (Some(56), (8, 15, 0, false, false)),
            (Some(46), (8, 10, 0, false, false)),
            (Some(45), (0, 14, 0, false, false)),
            (Some(0), (0, 12, 0, false, false)),
        ] {
            assert_eq!(shown(width), expected, "{width:?}");
        }
        // A format that somebody asked for is shown whole while there is room for names.
        let options = Options { time: TimeFormat::Rfc1123Z, ..options };
        assert_eq!(Columns::fit(options, Some(80)).time, 31);
        assert_eq!(Columns::fit(options, Some(50)).time, 0);
    }

    proptest::proptest! {
        #[test]
        fn a_line_is_never_too_wide(text in ".{0,80}", cells in 1usize..60) {
            proptest::prop_assert!(width(&shorten(&text, cells)) <= cells);
            proptest::prop_assert!(width(&shorten_end(&text, cells)) <= cells);
        }
    }
}
