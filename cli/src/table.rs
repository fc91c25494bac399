//! Tables of names and numbers.

use std::{fmt::Write as _, iter, ops::Range};

/// Columns two blanks apart; those in `numbers` stand to the right. Names come from the network's side of the
/// node, so control characters are escaped.
pub(crate) fn table(
    out: &mut String,
    titles: &[&str],
    numbers: Range<usize>,
    rows: impl Iterator<Item = Vec<String>>,
) {
    let escape = |cell: String| cell.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"");
    let rows: Vec<Vec<String>> = iter::once(titles.iter().map(|t| (*t).to_owned()).collect())
        .chain(rows.map(|row| row.into_iter().map(escape).collect()))
        .collect();
    if rows.len() == 1 {
        let _ = writeln!(out, "{}: none\n", titles[0]);
        return;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter()
                .zip(&widths)
                .enumerate()
                .map(|(at, (cell, &width))| {
                    if numbers.contains(&at) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                })
                .collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out.push('\n');
}
