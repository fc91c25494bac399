//! Keys where something is open: the prompt, a list to choose from; and what goes into files.

use super::{State, reduce::Effect};
use crate::{
    copy,
    filter::Filter,
    keys::{Action, Code, Key},
    line::Role,
    prompt::{Turn, complete::Known},
    views::View,
};
use observer_proto::observer::get_flows_response::ResponseTypes;

/// How many rows are looked at for names to complete with.
const ROWS_FOR_NAMES: u64 = 2048;

impl State {
    pub(super) fn prompt_key(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Some(mut prompt) = self.prompt.take() else { return };
        match prompt.key(key, &self.history) {
            Turn::On => {}
            Turn::Closed => return,
            Turn::Complete => prompt.complete(&self.known()),
            Turn::Done => {
                let text = prompt.text().trim().to_owned();
                match Filter::read(&text) {
                    Ok(_) => {
                        self.history.push(&text);
                        effects.push(Effect::SaveHistory(self.history.text()));
                        if text != self.filter.text {
                            self.remember();
                        }
                        return self.apply(&text, effects);
                    }
                    Err(fault) => prompt.fault = Some(fault),
                }
            }
        }
        self.prompt = Some(prompt);
    }

    /// Names to complete with, of the last rows.
    fn known(&self) -> Known {
        let mut known = Known::default();
        known.namespaces(&self.namespaces);
        for row in self.rows.since(self.rows.next().saturating_sub(ROWS_FOR_NAMES)) {
            let response = row.response();
            if let Some(ResponseTypes::Flow(flow)) = response.and_then(|response| response.response_types) {
                known.flow(&flow);
            }
        }
        known
    }

    pub(super) fn menu_key(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Some(mut menu) = self.menu.take() else { return };
        match (key.code, self.look.keys.action(key, View::Flows)) {
            (Code::Esc, _) | (_, Some(Action::Quit)) => return,
            (Code::Enter | Code::Char(' '), _) => {
                if let Some(form) = menu.chosen_form() {
                    return self.export(Some(form), effects);
                }
                menu.toggle();
                self.look.columns = menu.columns_chosen();
                self.flows.field = self.flows.field.min(self.look.columns.len().saturating_sub(1));
            }
            (_, Some(Action::Down)) => menu.go(1),
            (_, Some(Action::Up)) => menu.go(-1),
            _ => {}
        }
        self.menu = Some(menu);
    }

    pub(super) fn export(&mut self, form: Option<&'static str>, effects: &mut Vec<Effect>) {
        let (name, text) = copy::export(self, form);
        effects.push(Effect::Write { name, text });
    }

    pub(super) fn record(&mut self, effects: &mut Vec<Effect>) {
        if let Some(name) = self.recording.take() {
            effects.push(Effect::StopRecording);
            self.say(Role::Good, format!("the recording is in {name}"));
        } else {
            let name = copy::file_name("record", "jsonl", self.now);
            self.recording = Some(name.clone());
            effects.push(Effect::Record(name));
        }
    }
}
