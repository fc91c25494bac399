//! Tables that fit a line: names are shortened in the middle, and what matters least gives way.

use crate::text::{
    sanitize::clean,
    wide::columns::{GAP, LEAST, shorten, width},
};
use std::fmt::{Result, Write};

/// A name is not shortened below so many cells while a column can give way.
const NAME: usize = 12;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    is_number: bool,
    /// Whether its cells may be shortened.
    is_name: bool,
    /// Columns of a higher number give way first; those of 0 never.
    rank: u8,
}

impl Column {
    /// A name, which may be shortened.
    pub(super) const fn name(title: &'static str) -> Self {
        Self { title, is_number: false, is_name: true, rank: 0 }
    }

    /// Short words.
    pub(super) const fn word(title: &'static str) -> Self {
        Self { is_name: false, ..Self::name(title) }
    }

    /// At the right edge of its column.
    pub(super) const fn number(title: &'static str) -> Self {
        Self { is_number: true, ..Self::word(title) }
    }

    /// Gives way where the line is narrow, before those of a lower rank.
    pub(super) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// Writes a header and rows, each line after `indent`. Cells are escaped here. Without a width nothing is shortened.
pub(super) fn write(
    columns: &[Column],
    rows: &[Vec<String>],
    indent: usize,
    line: Option<usize>,
    out: &mut impl Write,
) -> Result {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cleaned(cell)).collect()).collect();
    let mut shown: Vec<(usize, usize)> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell));
            (at, cells.max().unwrap_or(0).max(width(column.title)))
        })
        .collect();
    if let Some(line) = line {
        fit(columns, &mut shown, line.max(LEAST).saturating_sub(indent));
    }
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut text = String::new();
        for (at, cells) in &shown {
            if !text.is_empty() || shown[0].0 != *at {
                text.push_str(GAP);
            }
            let cell = shorten(row.get(*at).map_or("", String::as_str), *cells);
            let blanks = cells.saturating_sub(width(&cell));
            if columns[*at].is_number {
                write!(text, "{:blanks$}{cell}", "")?;
            } else {
                write!(text, "{cell}{:blanks$}", "")?;
            }
        }
        writeln!(out, "{:indent$}{}", "", text.trim_end())?;
    }
    Ok(())
}

/// Leaves out columns until names have room, then shortens the longest names.
fn fit(columns: &[Column], shown: &mut Vec<(usize, usize)>, line: usize) {
    let total = |shown: &[(usize, usize)]| {
        shown.iter().map(|(_, cells)| cells + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    };
    let least = |shown: &[(usize, usize)]| {
        let cells =
            |(at, cells): &(usize, usize)| if columns[*at].is_name { (*cells).min(NAME) } else { *cells };
        shown.iter().map(|column| cells(column) + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    };
    while least(shown) > line {
        let poorest = shown.iter().enumerate().max_by_key(|(_, (at, _))| columns[*at].rank);
        match poorest {
            Some((place, (at, _))) if columns[*at].rank > 0 => drop(shown.remove(place)),
            _ => break,
        }
    }
    while total(shown) > line {
        let longest = shown
            .iter_mut()
            .filter(|(at, cells)| columns[*at].is_name && *cells > 1)
            .max_by_key(|(_, cells)| *cells);
        // Numbers are never cut.
        let Some((_, cells)) = longest else { break };
        *cells -= 1;
    }
}

/// Escaped, as a text of its own.
pub(super) fn cleaned(text: &str) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = clean(text, &mut out);
    out
}

/// At most four digits: `0.4`, `214`, `1.9k`, `48.1M`.
pub fn scaled(number: f64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut number = number.max(0.0);
    let mut unit = 0;
    // What would print as 1000.
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    let is_whole = number.fract() == 0.0 || number >= 99.95;
    if is_whole { format!("{number:.0}{}", UNITS[unit]) } else { format!("{number:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(line: Option<usize>) -> String {
        let columns = [
            Column::name("NAME"),
            Column::word("KIND").rank(2),
            Column::number("FLOWS"),
            Column::number("BYTES").rank(1),
        ];
        let rows = [
            vec!["web/frontend-app-7b5b9c6d4-x2x9z".to_owned(), "pod".into(), "7".into(), "1.9k".into()],
            vec!["\u{1b}[31m".to_owned(), String::new(), "12".into(), String::new()],
        ];
        let mut out = String::new();
        write(&columns, &rows, 2, line, &mut out).unwrap();
        out
    }

    #[test]
    fn what_gives_way() {
        let whole = "  NAME                              KIND  FLOWS  BYTES
  web/frontend-app-7b5b9c6d4-x2x9z  pod       7   1.9k
  ^[[31m                                     12\n";
        assert_eq!(print(None), whole);
        assert_eq!(print(Some(54)), whole);
        assert_eq!(
            print(Some(34)),
            "  NAME                KIND  FLOWS  BYTES
  web/fron…6d4-x2x9z  pod       7   1.9k
  ^[[31m                       12\n"
        );
        for line in 0..60 {
            assert!(print(Some(line)).lines().all(|text| width(text) <= line.max(LEAST)), "{line}");
        }
    }

    #[test]
    fn numbers_of_few_digits() {
        for (number, text) in [
            (0.0, "0"),
            (0.04, "0.0"),
            (3.7, "3.7"),
            (99.94, "99.9"),
            (99.96, "100"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (1000.0, "1k"),
            (48_100_000.0, "48.1M"),
            (-1.0, "0"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(scaled(number), text);
        }
    }
}
