//! Lines of a screen as plain data: text in pieces, each with the part that it plays. What a part looks like is the
//! theme's.

use observer_proto::text::{cells::width, sanitize};

/// What a piece of text is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// Nothing special.
    #[default]
    Plain,
    /// Went through.
    Good,
    /// Dropped, denied.
    Drop,
    /// Would be denied.
    Audit,
    /// Sent another way.
    Redirect,
    /// Something failed, or was lost.
    Error,
    /// Said by the way.
    Muted,
    /// A key, the view that is shown.
    Accent,
    /// A heading.
    Title,
}

/// A piece of text. It is escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Without anything that could steer a terminal.
    pub text: String,
    /// What it is.
    pub role: Role,
    /// The field under the cursor.
    pub is_marked: bool,
}

/// A line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// From left to right.
    pub spans: Vec<Span>,
    /// The row under the cursor.
    pub is_selected: bool,
}

impl Line {
    /// Of one piece.
    pub(crate) fn of(role: Role, text: impl Into<String>) -> Self {
        Self::default().with(role, text)
    }

    /// Nothing special.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::of(Role::Plain, text)
    }

    /// With one more piece.
    #[must_use]
    pub(crate) fn with(mut self, role: Role, text: impl Into<String>) -> Self {
        self.push(role, text);
        self
    }

    /// Adds a piece. What came from outside is escaped here, whatever was forgotten before.
    pub(crate) fn push(&mut self, role: Role, text: impl Into<String>) {
        let text = text.into();
        let text = if text.chars().any(sanitize::is_unsafe) { clean(&text) } else { text };
        self.spans.push(Span { text, role, is_marked: false });
    }

    /// Cells that it takes.
    pub(crate) fn width(&self) -> usize {
        self.spans.iter().map(|span| width(&span.text)).sum()
    }

    /// Adds a piece that ends at the right edge; where there is no room, it is left out.
    #[must_use]
    pub(crate) fn right(mut self, cells: usize, role: Role, text: &str) -> Self {
        if let Some(gap) = cells.checked_sub(self.width() + width(text)).filter(|gap| *gap > 0) {
            self.push(Role::Plain, " ".repeat(gap));
            self.push(role, text);
        }
        self
    }

    /// The text alone.
    pub(crate) fn text(&self) -> String {
        self.spans.iter().map(|span| span.text.as_str()).collect()
    }
}

/// Escaped, as a text of its own.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = sanitize::clean(text, &mut out);
    out
}

/// Filled up with blanks to a width, on the left for numbers.
pub(crate) fn padded(text: &str, cells: usize, to_the_right: bool) -> String {
    let blanks = cells.saturating_sub(width(text));
    if to_the_right { format!("{:blanks$}{text}", "") } else { format!("{text}{:blanks$}", "") }
}
