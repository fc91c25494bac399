//! The views: each makes plain lines of the state, and knows nothing of how they are drawn.

pub(crate) mod drops;
pub(crate) mod flow_detail;
pub(crate) mod flows;
pub(crate) mod frame;
pub(crate) mod golden;
pub(crate) mod help;
pub(crate) mod map;
pub(crate) mod matrix;
pub(crate) mod menu;
pub(crate) mod nodes;
pub(crate) mod policy;
pub(crate) mod talkers;

use crate::{
    grid::Grid,
    line::{Line, Role},
    link::Topic,
    state::State,
};

/// One of the views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum View {
    #[default]
    Flows,
    Drops,
    Map,
    Policy,
    Talkers,
    Golden,
    Nodes,
}

impl View {
    /// In the order of their keys.
    pub const ALL: [Self; 7] =
        [Self::Flows, Self::Drops, Self::Map, Self::Policy, Self::Talkers, Self::Golden, Self::Nodes];

    /// Its name on the screen.
    pub fn title(self) -> &'static str {
        match self {
            Self::Flows => "Flows",
            Self::Drops => "Drops",
            Self::Map => "Map",
            Self::Policy => "Policy",
            Self::Talkers => "Talkers",
            Self::Golden => "Golden",
            Self::Nodes => "Nodes",
        }
    }

    /// What it needs to be counted.
    pub fn topic(self) -> Topic {
        match self {
            Self::Flows => Topic::Nothing,
            Self::Drops => Topic::Drops,
            Self::Map => Topic::Edges,
            Self::Policy => Topic::Policies,
            Self::Talkers => Topic::Talkers,
            Self::Golden => Topic::Signals,
            Self::Nodes => Topic::Nodes,
        }
    }

    /// Its place among all.
    pub fn place(self) -> usize {
        Self::ALL.iter().position(|view| *view == self).unwrap_or(0)
    }
}

/// A view of counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Page {
    /// What is shown, in a line.
    pub summary: Line,
    /// The table, sorted.
    pub grid: Grid,
    /// In place of a table without rows: why there is none.
    pub reason: String,
    /// In place of a table: a matrix.
    pub lines: Option<Vec<Line>>,
    /// All about the selected row.
    pub below: Vec<Line>,
}

/// What a view of counts shows.
pub(crate) fn page(state: &State) -> Page {
    let mut page = match state.view {
        View::Flows => Page::default(),
        View::Drops => drops::page(state),
        View::Map => map::page(state),
        View::Policy => policy::page(state),
        View::Talkers => talkers::page(state),
        View::Golden => golden::page(state),
        View::Nodes => nodes::page(state),
    };
    page.grid.sort(state.cursor());
    page
}

/// The whole screen, line by line.
pub(crate) fn screen(state: &State) -> Vec<Line> {
    frame::screen(state)
}

/// A heading in a pane.
fn heading(text: impl Into<String>) -> Line {
    Line::of(Role::Title, text)
}

/// `name  value`, the values below each other.
fn fact(name: &str, value: impl Into<String>) -> Line {
    Line::of(Role::Muted, format!("  {name:<12} ")).with(Role::Plain, value)
}
