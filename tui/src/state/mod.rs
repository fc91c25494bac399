//! What the dashboard knows and shows, as plain data: no terminal, no connection. `reduce` alone changes it.

pub(crate) mod counts;
pub(crate) mod flows;
pub(crate) mod link;
mod opened;
pub(crate) mod reduce;
mod told;
pub(crate) mod trace;

use crate::{
    filter::Filter,
    grid::Cursor,
    keys::KeyMap,
    line::Role,
    link::{Topic, Window},
    prompt::{History, Prompt},
    rows::Rows,
    views::{View, flows::Field, menu::Menu},
};
use counts::Counts;
use flows::Flows;
use link::Link;
use trace::Trace;

/// A message at the foot of the screen stays for so long (ms).
const NOTE_SHOWN: i64 = 6000;

/// How it looks, as far as the views must know; colours are the theme's.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// No other characters than those of ASCII, but for names.
    pub is_ascii: bool,
    /// The columns of flows, from left to right.
    pub columns: Vec<Field>,
    /// Addresses in place of names.
    pub is_numeric: bool,
    /// How times are shown.
    pub time: TimeForm,
    /// The keys in use.
    pub keys: KeyMap,
}

/// How the time of a flow is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TimeForm {
    /// `12:04:31.118`, in UTC as everywhere here.
    #[default]
    Clock,
    /// With the date.
    Full,
    /// `12s`
    Ago,
}

/// A step that Esc goes back.
#[derive(Clone, Debug)]
struct Step {
    view: View,
    filter: String,
    selected: Option<u64>,
}

/// What views are asked for beside their table.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of one view")]
pub(crate) struct Modes {
    /// Drops by pair, not by reason.
    pub by_pair: bool,
    /// The map as a matrix.
    pub matrix: bool,
    /// By namespace, not by workload.
    pub by_namespace: bool,
    /// Talkers by: 0 bytes, 1 flows, 2 drops.
    pub measure: usize,
    /// DNS, not HTTP.
    pub dns: bool,
    /// Signals by server, not by route.
    pub by_server: bool,
    /// Policies that deny or would deny.
    pub audit_only: bool,
    /// In Policy the pods that no policy isolates, in place of policies.
    pub open_pods: bool,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct State {
    /// How it looks.
    pub look: Look,
    /// Milliseconds since 1970.
    pub now: i64,
    /// Cells of the screen: across and down.
    pub size: (usize, usize),
    /// The connection.
    pub link: Link,
    /// Which view is shown.
    pub view: View,
    /// The flows that are kept.
    pub rows: Rows,
    /// Where the user is among them.
    pub flows: Flows,
    /// What is counted.
    pub counts: Counts,
    /// Over which time.
    pub window: Window,
    /// What views are asked for.
    pub modes: Modes,
    /// Which flows are wanted.
    pub filter: Filter,
    /// Where a filter is written.
    pub prompt: Option<Prompt>,
    /// Filters of before.
    pub history: History,
    /// A list to choose from.
    pub menu: Option<Menu>,
    /// The first line of the help, where it is open.
    pub help: Option<usize>,
    /// Whether the pane below has the row's details.
    pub has_detail: bool,
    /// Whether the detail has the whole screen.
    pub is_detail_whole: bool,
    /// What policies say of the flow for which that was asked last.
    pub trace: Option<Trace>,
    /// The file into which flows go.
    pub recording: Option<String>,
    /// Said at the foot of the screen.
    note: Option<(i64, Role, String)>,
    cursors: [Cursor; View::ALL.len()],
    trail: Vec<Step>,
    namespaces: Vec<String>,
    run: u64,
    /// What comes is still of the question before.
    is_awaiting: bool,
    asked: (Topic, Window),
}

impl State {
    /// At the start.
    pub(crate) fn new(look: Look, name: String, is_file: bool, filter: Filter, now: i64) -> Self {
        Self {
            look,
            now,
            size: (80, 24),
            link: Link::new(name, is_file, now),
            view: View::default(),
            rows: Rows::default(),
            flows: Flows::default(),
            counts: Counts::default(),
            window: Window::default(),
            modes: Modes::default(),
            filter,
            prompt: None,
            history: History::default(),
            menu: None,
            help: None,
            has_detail: true,
            is_detail_whole: false,
            trace: None,
            recording: None,
            note: None,
            cursors: Default::default(),
            trail: Vec::new(),
            namespaces: Vec::new(),
            run: 0,
            is_awaiting: true,
            asked: (Topic::Nothing, Window::default()),
        }
    }

    /// Where the user is in the view's table.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursors[self.view.place()]
    }

    fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursors[self.view.place()]
    }

    /// What is to be said at the foot of the screen.
    pub(crate) fn note(&self) -> Option<(Role, &str)> {
        let (_, role, text) = self.note.as_ref().filter(|(until, ..)| self.now < *until)?;
        Some((*role, text))
    }

    /// Says something for a while.
    pub(crate) fn say(&mut self, role: Role, text: impl Into<String>) {
        self.note = Some((self.now + NOTE_SHOWN, role, text.into()));
    }

    /// Whether counts are made of the rows: where the server has none, and where only some flows are asked for.
    pub(crate) fn counts_rows(&self) -> bool {
        self.link.is_file || self.counts.is_unserved || self.filter.has_flags()
    }

    /// Whether there is work to be done when nobody waits.
    pub(crate) fn has_work(&self) -> bool {
        self.counts.is_counting() || self.flows.is_behind(&self.rows)
    }

    /// Does a slice of it; whether something to see changed.
    pub(crate) fn work(&mut self) -> bool {
        self.flows.slice(&self.rows, &self.filter.local, &self.look) | self.counts.slice(&self.rows)
    }

    /// Begins counts that are due.
    fn begin_counts(&mut self) {
        let topic = self.view.topic();
        if self.counts_rows() {
            let window = (!self.link.is_file).then_some(self.window);
            self.counts.begin(topic, window, &self.rows, self.now);
        }
    }
}
