//! A list to choose from, in place of the view.

use super::{flows::Field, heading};
use crate::{
    line::{Line, Role},
    state::State,
};

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Menu {
    title: &'static str,
    items: Vec<Item>,
    at: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// A column, and whether it is shown.
    Column(Field, bool),
    /// The form of a file, and what it is.
    Form(&'static str, &'static str),
}

impl Menu {
    /// The columns of flows: those that are shown in their order, then the others.
    pub(crate) fn columns(shown: &[Field]) -> Self {
        let others = Field::ALL.into_iter().filter(|field| !shown.contains(field));
        let items = shown.iter().map(|field| Item::Column(*field, true));
        let items = items.chain(others.map(|field| Item::Column(field, false))).collect();
        Self { title: "Columns: Space shows or hides, Esc closes", items, at: 0 }
    }

    /// The forms of a map.
    pub(crate) fn export() -> Self {
        let items = [
            ("csv", "the table"),
            ("json", "as `observe graph -o json`"),
            ("dot", "for Graphviz"),
            ("mermaid", "for Mermaid"),
        ];
        let items = items.map(|(form, what)| Item::Form(form, what)).to_vec();
        Self { title: "Export: Enter writes the file, Esc closes", items, at: 0 }
    }

    /// Moves.
    pub(crate) fn go(&mut self, step: isize) {
        self.at = self.at.saturating_add_signed(step).min(self.items.len() - 1);
    }

    /// The form under the cursor.
    pub(crate) fn chosen_form(&self) -> Option<&'static str> {
        match self.items[self.at] {
            Item::Form(form, _) => Some(form),
            Item::Column(..) => None,
        }
    }

    /// Shows or hides the column under the cursor; one always stays.
    pub(crate) fn toggle(&mut self) {
        let is_last = self.columns_chosen().len() == 1;
        if let Item::Column(_, is_on) = &mut self.items[self.at] {
            *is_on = !*is_on || is_last;
        }
    }

    /// The columns that are to be shown.
    pub(crate) fn columns_chosen(&self) -> Vec<Field> {
        let chosen = self.items.iter().filter_map(|item| match item {
            Item::Column(field, true) => Some(*field),
            _ => None,
        });
        chosen.collect()
    }
}

/// As lines.
pub(crate) fn lines(menu: &Menu, _state: &State, room: usize) -> Vec<Line> {
    let mut lines = vec![heading(format!(" {}", menu.title)), Line::default()];
    for (at, item) in menu.items.iter().enumerate() {
        let mark = if at == menu.at { ">" } else { " " };
        let mut line = match item {
            Item::Column(field, is_on) => {
                Line::plain(format!(" {mark} [{}] {}", if *is_on { 'x' } else { ' ' }, field.title()))
            }
            Item::Form(form, what) => Line::plain(format!(" {mark} {form:<8} ")).with(Role::Muted, *what),
        };
        line.is_selected = at == menu.at;
        lines.push(line);
    }
    lines.truncate(room);
    lines
}
