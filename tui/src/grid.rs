//! A table of counts as plain data: which columns give way, which row is selected, how it is sorted.

use crate::line::{Line, Role, padded};
use observer_proto::text::cells::{shorten, width};

/// Blanks between columns.
const GAP: usize = 2;
/// A name is not shortened further than this.
const LEAST_NAME: usize = 8;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Numbers end at its right edge.
    pub is_number: bool,
    /// Names are shortened where the line is narrow.
    pub is_name: bool,
    /// Columns of higher ranks are left out first; 0 never.
    pub rank: u8,
}

impl Column {
    /// Names, which may be shortened.
    pub(crate) const fn name(title: &'static str) -> Self {
        Self { title, is_number: false, is_name: true, rank: 0 }
    }

    /// Words, which are not.
    pub(crate) const fn word(title: &'static str) -> Self {
        Self { title, is_number: false, is_name: false, rank: 0 }
    }

    /// Numbers.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, is_number: true, is_name: false, rank: 0 }
    }

    /// That gives way.
    pub(crate) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// What stands in a row and a column.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cell {
    /// Escaped where it is shown.
    pub text: String,
    /// What it is.
    pub role: Role,
    /// Sorts by this where it is a number.
    pub number: Option<f64>,
}

impl Cell {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: crate::line::clean(&text.into()), ..Self::default() }
    }

    /// A number as it is written.
    pub(crate) fn number(number: f64, text: impl Into<String>) -> Self {
        Self { text: text.into(), number: Some(number), ..Self::default() }
    }

    /// What it is.
    #[must_use]
    pub(crate) fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

/// A row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row {
    /// Which it is, wherever it stands.
    pub key: String,
    /// As many as columns.
    pub cells: Vec<Cell>,
    /// The flags of a filter for its flows, each with its value.
    pub flags: Vec<(&'static str, String)>,
    /// A flag that leaves out what these ask for besides, with its value.
    pub left_out: Option<(&'static str, String)>,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Grid {
    /// From left to right.
    pub columns: Vec<Column>,
    /// In the order of the server.
    pub rows: Vec<Row>,
}

/// Where the user is in a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cursor {
    /// The selected row.
    pub key: Option<String>,
    /// Where it stood, for when it has gone.
    pub at: usize,
    /// The first row on the screen.
    pub top: usize,
    /// By which column, and whether the other way round; as the rows come without.
    pub sort: Option<usize>,
    /// Smallest first for numbers, last first for names.
    pub is_reversed: bool,
}

impl Grid {
    /// Sorts the rows as the cursor says.
    pub(crate) fn sort(&mut self, cursor: &Cursor) {
        if let Some(column) = cursor.sort.filter(|column| *column < self.columns.len()) {
            self.rows.sort_by(|a, b| {
                let (a, b) = (&a.cells[column], &b.cells[column]);
                match (a.number, b.number) {
                    (Some(a), Some(b)) => b.total_cmp(&a),
                    _ => a.text.cmp(&b.text),
                }
            });
        }
        if cursor.is_reversed {
            self.rows.reverse();
        }
    }

    /// Where the cursor is: at its row, else where that was.
    pub(crate) fn at(&self, cursor: &Cursor) -> Option<usize> {
        let found = cursor.key.as_ref().and_then(|key| self.rows.iter().position(|row| row.key == *key));
        found.or_else(|| self.rows.len().checked_sub(1).map(|last| cursor.at.min(last)))
    }

    /// The selected row.
    pub(crate) fn selected(&self, cursor: &Cursor) -> Option<&Row> {
        self.at(cursor).map(|at| &self.rows[at])
    }

    /// The heading, and as many rows as there is room for. `mark` stands before the selected one.
    pub(crate) fn lines(&self, cursor: &Cursor, cells: usize, room: usize) -> Vec<Line> {
        let Some(room) = room.checked_sub(1) else { return Vec::new() };
        let widths = self.fit(cells.saturating_sub(GAP));
        let mut heading = Line::plain("  ");
        for (column, width) in widths.iter().enumerate().filter_map(|(at, width)| Some((at, (*width)?))) {
            let title = self.columns[column].title;
            let role = if cursor.sort == Some(column) { Role::Accent } else { Role::Title };
            heading.push(role, padded(title, width, self.columns[column].is_number));
            heading.push(Role::Plain, " ".repeat(GAP));
        }
        let at = self.at(cursor).unwrap_or(0);
        let top = first_shown(cursor.top, at, room, self.rows.len());
        let rows = self.rows.iter().enumerate().skip(top).take(room);
        let rows = rows.map(|(place, row)| {
            let mut line = Line::plain(if place == at { "> " } else { "  " });
            line.is_selected = place == at;
            for (column, width) in widths.iter().enumerate().filter_map(|(at, width)| Some((at, (*width)?))) {
                let cell = &row.cells[column];
                let text = padded(&shorten(&cell.text, width), width, self.columns[column].is_number);
                line.push(cell.role, text);
                line.push(Role::Plain, " ".repeat(GAP));
            }
            line
        });
        std::iter::once(heading).chain(rows).collect()
    }

    /// The width of each column; none: left out.
    fn fit(&self, cells: usize) -> Vec<Option<usize>> {
        let widest = |(at, column): (usize, &Column)| {
            let rows = self.rows.iter().map(|row| width(&row.cells[at].text));
            Some(rows.max().unwrap_or(0).max(column.title.len()))
        };
        let mut widths: Vec<Option<usize>> = self.columns.iter().enumerate().map(widest).collect();
        let total =
            |widths: &[Option<usize>]| -> usize { widths.iter().flatten().map(|width| width + GAP).sum() };
        let least = |widths: &[Option<usize>], columns: &[Column]| -> usize {
            let of = |(at, width): (usize, &Option<usize>)| {
                width.map(|width| GAP + if columns[at].is_name { width.min(LEAST_NAME * 2) } else { width })
            };
            widths.iter().enumerate().filter_map(of).sum()
        };
        let mut ranks: Vec<u8> =
            self.columns.iter().map(|column| column.rank).filter(|rank| *rank > 0).collect();
        ranks.sort_unstable();
        while least(&widths, &self.columns) > cells
            && let Some(rank) = ranks.pop()
        {
            for (width, _) in widths.iter_mut().zip(&self.columns).filter(|(_, column)| column.rank == rank) {
                *width = None;
            }
        }
        while total(&widths) > cells {
            let names = widths.iter_mut().zip(&self.columns).filter(|(_, column)| column.is_name);
            let longest = names.filter_map(|(width, _)| width.as_mut()).max_by_key(|width| **width);
            match longest {
                Some(width) if *width > LEAST_NAME => *width -= 1,
                _ => break,
            }
        }
        widths
    }

    /// All of it, for a file: a line a row, with commas.
    pub(crate) fn csv(&self) -> String {
        let quoted = |text: &str| {
            if text.contains([',', '"', '\n']) {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text.to_owned()
            }
        };
        let line = |cells: Vec<String>| cells.join(",") + "\n";
        let mut out = line(self.columns.iter().map(|column| quoted(&column.title.to_lowercase())).collect());
        for row in &self.rows {
            out += &line(row.cells.iter().map(|cell| quoted(&cell.text)).collect());
        }
        out
    }
}

/// The first row to show, so that the selected one is on the screen and the view moves as little as possible.
pub(crate) fn first_shown(top: usize, at: usize, room: usize, all: usize) -> usize {
    let top = top.min(at).max((at + 1).saturating_sub(room));
    top.min(all.saturating_sub(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let row = |name: &str, count: u32| Row {
            key: name.to_owned(),
            cells: vec![Cell::text(name), Cell::number(count.into(), count.to_string()), Cell::text("tcp")],
            ..Row::default()
        };
        Grid {
            columns: vec![Column::name("NAME"), Column::number("FLOWS"), Column::word("PROTO").rank(1)],
            rows: vec![row("shop/web-with-a-long-name", 7), row("a", 12)],
        }
    }

    #[test]
    fn columns_give_way_and_names_are_shortened() {
        let text = |cells| -> Vec<String> {
            let lines = grid().lines(&Cursor::default(), cells, 9);
            lines.iter().map(|line| line.text().trim_end().to_owned()).collect()
        };
        assert_eq!(text(80)[1], "> shop/web-with-a-long-name      7  tcp");
        assert_eq!(text(30)[1], "> shop/web-…long-name      7");
        for cells in 24..80 {
            assert!(
                grid().lines(&Cursor::default(), cells, 9).iter().all(|line| line.width() <= cells + GAP),
                "{cells}"
            );
        }
        assert!(!text(30)[0].contains("PROTO"));
    }

    #[test]
    fn the_selection_stays_with_its_row() {
        let mut cursor = Cursor { key: Some("a".to_owned()), at: 1, ..Cursor::default() };
        let mut grid = grid();
        assert_eq!(grid.at(&cursor), Some(1));
        cursor.sort = Some(1);
        grid.sort(&cursor);
        assert_eq!((grid.at(&cursor), grid.rows[0].key.as_str()), (Some(0), "a"));
        cursor.is_reversed = true;
        grid.sort(&cursor);
        assert_eq!(grid.rows[1].key, "a");
        cursor.key = Some("gone".to_owned());
        assert_eq!(grid.at(&cursor), Some(1));
        grid.rows.clear();
        assert_eq!(grid.at(&cursor), None);
        assert_eq!(grid.lines(&cursor, 10, 0), []);
    }

    #[test]
    fn the_view_moves_as_little_as_possible() {
        for (top, at, room, all, expected) in [
            (0, 0, 5, 3, 0),
            (0, 4, 5, 9, 0),
            (0, 5, 5, 9, 1),
            (4, 2, 5, 9, 2),
            (8, 8, 5, 9, 4),
            (3, 0, 0, 0, 0),
        ] {
            assert_eq!(first_shown(top, at, room, all), expected, "{top} {at} {room} {all}");
        }
    }
}
