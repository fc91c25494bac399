//! One message in, the state changed, and what is to be done outside: nothing else changes the state.

use super::{
    Modes, State, Step, TimeForm,
    link::Phase,
    trace::{Trace, question},
};
use crate::{
    copy,
    filter::Filter,
    keys::{Action, Key},
    line::Role,
    link::{Ask, Message, Topic},
    prompt::Prompt,
    views::{self, View, flows, frame, menu::Menu},
};
use bytes::Bytes;

/// Steps back that are remembered.
const MOST_STEPS: usize = 32;

/// What happens to the dashboard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A key.
    Key(Key),
    /// Pasted text.
    Paste(String),
    /// The terminal has another size: cells across and down.
    Resize(usize, usize),
    /// What the reader tells.
    Told(Message),
    /// It is later.
    Tick,
    /// A file was written or could not be.
    Written(Result<String, String>),
}

/// What is to be done outside.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// Ask the reader.
    Ask(Ask),
    /// Into the clipboard of the user's terminal.
    Copy(String),
    /// Write a file; the name is a wish.
    Write {
        /// Without folder.
        name: String,
        /// What stands in it.
        text: String,
    },
    /// From now on write responses into this file.
    Record(String),
    /// A response for it.
    Recorded(Bytes),
    /// No longer.
    StopRecording,
    /// Keep the filters of before.
    SaveHistory(String),
    /// Draw all anew.
    Redraw,
    /// Back to the shell for a while.
    Suspend,
    /// End.
    Quit,
}

impl State {
    /// The first questions.
    pub(crate) fn begin(&mut self) -> Vec<Effect> {
        vec![self.ask_flows()]
    }

    /// Takes in an event that happens at `now`; whether something to see may have changed.
    pub(crate) fn reduce(&mut self, event: Event, now: i64, effects: &mut Vec<Effect>) -> bool {
        self.now = now;
        let changed = match event {
            Event::Key(key) => {
                self.key(key, effects);
                true
            }
            Event::Paste(text) => {
                if let Some(prompt) = &mut self.prompt {
                    prompt.paste(&text);
                }
                true
            }
            Event::Resize(across, down) => {
                self.size = (across, down);
                true
            }
            Event::Told(message) => self.told(message, effects),
            Event::Tick => true,
            Event::Written(Ok(said)) => {
                self.say(Role::Good, said);
                true
            }
            Event::Written(Err(why)) => {
                self.recording = None;
                self.say(Role::Error, why);
                true
            }
        };
        self.begin_counts();
        self.ask_counts(effects);
        changed
    }

    fn ask_flows(&mut self) -> Effect {
        self.run += 1;
        self.is_awaiting = true;
        Effect::Ask(Ask::Flows { run: self.run, filters: self.filter.lists.clone(), last: self.filter.last })
    }

    /// What the view needs, if it is not asked for already.
    fn ask_counts(&mut self, effects: &mut Vec<Effect>) {
        let topic = if self.link.is_file { Topic::Nothing } else { self.view.topic() };
        if self.asked != (topic, self.window) {
            self.counts.forget();
            self.asked = (topic, self.window);
            effects.push(Effect::Ask(Ask::Counts { topic, window: self.window }));
        }
    }

    fn key(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if self.prompt.is_some() {
            return self.prompt_key(key, effects);
        }
        if self.menu.is_some() {
            return self.menu_key(key, effects);
        }
        let Some(action) = self.look.keys.action(key, self.view) else { return };
        if let Some(top) = self.help {
            let top = match action {
                Action::Quit => return effects.push(Effect::Quit),
                Action::Suspend => return effects.push(Effect::Suspend),
                Action::Down => top + 1,
                Action::Up => top.saturating_sub(1),
                Action::PageDown | Action::HalfDown => top + self.size.1 / 2,
                Action::PageUp | Action::HalfUp => top.saturating_sub(self.size.1 / 2),
                Action::First => 0,
                _ => {
                    self.help = None;
                    return;
                }
            };
            self.help = Some(top.min(views::help::lines(self).len().saturating_sub(1)));
            return;
        }
        self.act(action, effects);
    }

    fn act(&mut self, action: Action, effects: &mut Vec<Effect>) {
        let next = |step: usize| View::ALL[(self.view.place() + step) % View::ALL.len()];
        match action {
            Action::Quit => effects.push(Effect::Quit),
            Action::Suspend => effects.push(Effect::Suspend),
            Action::Redraw => effects.push(Effect::Redraw),
            Action::Help => self.help = Some(0),
            Action::Show(view) => self.show(view),
            Action::NextView => self.show(next(1)),
            Action::PreviousView => self.show(next(View::ALL.len() - 1)),
            Action::Enter => self.enter(effects),
            Action::Back => self.back(effects),
            Action::Filter => self.prompt = Some(Prompt::new(&self.filter.text, &self.history)),
            Action::ClearFilter => self.apply("", effects),
            Action::Include | Action::Exclude => self.take_field(action == Action::Include, effects),
            Action::Columns => self.menu = Some(Menu::columns(&self.look.columns)),
            Action::Window => self.window = self.window.next(),
            Action::Detail => self.has_detail = !self.has_detail,
            Action::Numeric => self.look.is_numeric = !self.look.is_numeric,
            Action::Time => {
                self.look.time = match self.look.time {
                    TimeForm::Clock => TimeForm::Full,
                    TimeForm::Full => TimeForm::Ago,
                    TimeForm::Ago => TimeForm::Clock,
                }
            }
            Action::Mode => self.mode(),
            Action::Group if self.view == View::Golden => self.modes.by_server = !self.modes.by_server,
            Action::Group => self.modes.by_namespace = !self.modes.by_namespace,
            Action::Audit => self.modes.audit_only = !self.modes.audit_only,
            Action::OpenPods => self.modes.open_pods = !self.modes.open_pods,
            Action::Trace => self.trace(effects),
            Action::Sort | Action::Reverse => self.sort(action == Action::Sort),
            Action::CopyCommand => {
                let command = copy::command(self);
                self.say(Role::Good, format!("copied: {command}"));
                effects.push(Effect::Copy(command));
            }
            Action::CopyJson => match copy::row(self) {
                Some(json) => {
                    self.say(Role::Good, "copied the row as JSON");
                    effects.push(Effect::Copy(json));
                }
                None => self.say(Role::Muted, "no row is selected"),
            },
            Action::Export if self.view == View::Map => self.menu = Some(Menu::export()),
            Action::Export => self.export(None, effects),
            Action::Record => self.record(effects),
            Action::Pause => self.pause(),
            Action::Left => self.flows.field = self.flows.field.saturating_sub(1),
            Action::Right => {
                let last = self.look.columns.len().saturating_sub(1);
                self.flows.field = (self.flows.field + 1).min(last);
            }
            Action::Last if self.view == View::Flows => {
                self.rows.resume();
                self.flows.follow();
            }
            Action::Down
            | Action::Up
            | Action::PageDown
            | Action::PageUp
            | Action::HalfDown
            | Action::HalfUp
            | Action::First
            | Action::Last => self.go(action),
        }
    }

    fn trace(&mut self, effects: &mut Vec<Effect>) {
        let asked = flows::selected(self).and_then(|(_, flow)| Some((question(&flow)?, flow.uuid)));
        let Some((request, uuid)) = asked else {
            return self.say(Role::Muted, "no connection is selected that policies could judge");
        };
        self.has_detail = true;
        self.trace = Some(Trace { uuid: uuid.clone(), told: None });
        effects.push(Effect::Ask(Ask::Explain { uuid, request: Box::new(request) }));
    }

    fn go(&mut self, action: Action) {
        let room = frame::room(self).max(1);
        let step = |at: usize, last: usize| match action {
            Action::Down => at + 1,
            Action::Up => at.saturating_sub(1),
            Action::PageDown => at + room,
            Action::PageUp => at.saturating_sub(room),
            Action::HalfDown => at + room / 2,
            Action::HalfUp => at.saturating_sub(room / 2),
            Action::First => 0,
            _ => last,
        };
        if self.view == View::Flows {
            return self.flows.go(&self.rows, room, step);
        }
        let page = views::page(self);
        let Some(last) = page.grid.rows.len().checked_sub(1) else { return };
        let at = page.grid.at(self.cursor()).unwrap_or(0);
        let to = step(at, last).min(last);
        let top = crate::grid::first_shown(self.cursor().top, to, room, last + 1);
        let cursor = self.cursor_mut();
        (cursor.key, cursor.at, cursor.top) = (Some(page.grid.rows[to].key.clone()), to, top);
    }

    fn show(&mut self, view: View) {
        if view != self.view {
            self.remember();
            self.view = view;
        }
        self.is_detail_whole = false;
    }

    pub(super) fn remember(&mut self) {
        if self.trail.len() == MOST_STEPS {
            self.trail.remove(0);
        }
        let step = Step { view: self.view, filter: self.filter.text.clone(), selected: self.flows.selected };
        self.trail.push(step);
    }

    fn enter(&mut self, effects: &mut Vec<Effect>) {
        if self.view == View::Flows {
            self.is_detail_whole = !self.flows.list(&self.rows).is_empty();
            return;
        }
        let row = views::page(self).grid.selected(self.cursor()).cloned();
        let Some(row) = row.filter(|row| !row.flags.is_empty()) else {
            return self.say(Role::Muted, "there are no flows of this row alone");
        };
        self.remember();
        self.view = View::Flows;
        let mut filter = self.filter.clone();
        let flags =
            row.flags.iter().map(|flag| (flag, false)).chain(row.left_out.iter().map(|flag| (flag, true)));
        for ((flag, value), is_left_out) in flags {
            let text =
                if is_left_out { filter.excluding(flag, value) } else { filter.including(flag, value) };
            match Filter::read(&text) {
                Ok(read) => filter = read,
                Err(fault) => return self.say(Role::Error, fault.text),
            }
        }
        self.apply(&filter.text, effects);
    }

    fn back(&mut self, effects: &mut Vec<Effect>) {
        if self.is_detail_whole {
            self.is_detail_whole = false;
        } else if let Some(step) = self.trail.pop() {
            self.view = step.view;
            if step.filter != self.filter.text {
                self.apply(&step.filter, effects);
            }
            if let Some(seq) = step.selected.filter(|seq| self.rows.get(*seq).is_some()) {
                (self.flows.selected, self.flows.top) = (Some(seq), Some(seq));
            }
        }
    }

    fn pause(&mut self) {
        if self.flows.is_paused {
            self.rows.resume();
            self.flows.follow();
            return;
        }
        let (top, selected) = self.flows.places(&self.rows, frame::room(self).max(1));
        let list = self.flows.list(&self.rows);
        let seq = |at: usize| list.get(at).map(|row| row.seq);
        let (selected, top) = (seq(selected), seq(top));
        self.rows.pause(top.unwrap_or(self.rows.next()));
        (self.flows.selected, self.flows.top, self.flows.is_paused) = (selected, top, true);
    }

    fn mode(&mut self) {
        let Modes { by_pair, matrix, measure, dns, .. } = &mut self.modes;
        match self.view {
            View::Drops => *by_pair = !*by_pair,
            View::Map => *matrix = !*matrix,
            View::Talkers => *measure = (*measure + 1) % 3,
            View::Golden => *dns = !*dns,
            View::Flows | View::Policy | View::Nodes => {}
        }
    }

    fn sort(&mut self, is_next: bool) {
        let columns = views::page(self).grid.columns.len();
        let cursor = self.cursor_mut();
        if is_next {
            cursor.sort = cursor.sort.map_or(Some(0), |at| Some(at + 1)).filter(|at| *at < columns);
            cursor.is_reversed = false;
        } else {
            cursor.is_reversed = !cursor.is_reversed;
        }
    }

    fn take_field(&mut self, is_include: bool, effects: &mut Vec<Effect>) {
        let Some((flag, value)) = flows::field_flag(self) else {
            return self.say(Role::Muted, "there is no filter for this field");
        };
        let text = if is_include {
            self.filter.including(flag, &value)
        } else {
            self.filter.excluding(flag, &value)
        };
        self.remember();
        self.apply(&text, effects);
    }

    /// Takes another filter.
    pub(super) fn apply(&mut self, text: &str, effects: &mut Vec<Effect>) {
        let filter = match Filter::read(text) {
            Ok(filter) => filter,
            Err(fault) => return self.say(Role::Error, fault.text),
        };
        let is_asked = filter.lists == self.filter.lists && filter.last == self.filter.last;
        let is_refused = matches!(self.link.phase, Phase::Refused(_));
        self.filter = filter;
        self.rows.resume();
        if is_asked && !is_refused {
            self.flows.search(&self.filter.local);
        } else {
            self.flows.follow();
            effects.push(self.ask_flows());
        }
    }
}
