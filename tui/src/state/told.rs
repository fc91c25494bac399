//! What the reader of the flows tells, taken into the state.

use super::{State, counts::Basis, link::Phase, reduce::Effect};
use crate::{line::Role, link::Message, rows::Body};
use bytes::Bytes;
use observer_proto::{
    encoded::{Held, Outline},
    flow::LostEvent,
    text::{self, Stream},
    time::TimeFormat,
};
use prost::Message as _;
use prost_types::Timestamp;

impl State {
    /// Takes in a message; whether something to see may have changed.
    pub(super) fn told(&mut self, message: Message, effects: &mut Vec<Effect>) -> bool {
        match message {
            Message::Response(_) | Message::Gap { .. } if self.is_awaiting => return false,
            Message::Began { run } => self.began(run),
            Message::Response(response) => self.response(response, effects),
            Message::Gap { from, until } => self.gap(from, until),
            Message::Waiting { tries, wait, why } => {
                let at = self.now + i64::try_from(wait.as_millis()).unwrap_or(0);
                self.link.phase = Phase::Waiting { at, tries, why };
            }
            Message::Status(status) => {
                self.heard();
                self.link.status = Some(status);
            }
            Message::Refused(why) => self.link.phase = Phase::Refused(why),
            Message::End(note) => {
                if !note.is_empty() {
                    self.say(Role::Audit, note.clone());
                }
                self.link.phase = Phase::Ended(note);
            }
            Message::Counts(window, answer) => {
                self.heard();
                self.counts.is_unserved = false;
                if window != self.window || self.counts_rows() {
                    return false;
                }
                self.counts.answer(*answer, Basis::Server, true);
            }
            Message::NoCounts(topic) => {
                self.counts.is_unserved = true;
                return topic == self.view.topic();
            }
            Message::Policies(answer) => self.counts.policies = Some(answer),
            Message::Explained { uuid, answer } => {
                let Some(trace) = self.trace.as_mut().filter(|trace| trace.uuid == uuid) else {
                    return false;
                };
                trace.told = Some(answer);
            }
            Message::Nodes(answer) => self.counts.nodes = Some(answer),
            Message::Health(answer) => self.counts.health = Some(answer),
            Message::Capture(answer) => self.counts.capture = Some(answer),
            Message::Namespaces(names) => self.namespaces = names,
        }
        true
    }

    fn heard(&mut self) {
        self.link.heard = self.now;
    }

    fn began(&mut self, run: u64) {
        self.heard();
        if run == self.run {
            if self.is_awaiting {
                // History came with the question: what was there before is of another.
                self.rows.clear();
                self.counts.forget();
                self.flows.search(&self.filter.local);
            }
            self.is_awaiting = false;
        }
        if !matches!(self.link.phase, Phase::Ended(_)) {
            self.link.phase = Phase::Open;
        }
    }

    fn response(&mut self, response: Bytes, effects: &mut Vec<Effect>) {
        self.heard();
        let Ok(outline) = Outline::of(&response) else {
            self.link.lose(1, self.now);
            return;
        };
        if self.rows.response(&response, &outline) {
            self.link.flow(outline.time.map_or(0, |time| time.seconds), self.now);
        }
        match outline.held {
            Held::LostEvents => {
                let lost = LostEvent::decode(outline.inner).unwrap_or_default();
                self.link.lose(lost.num_events_lost, self.now);
            }
            Held::NodeStatus => self.node_status(&response, outline.time),
            Held::Flow | Held::Nothing => {}
        }
        if self.recording.is_some() {
            effects.push(Effect::Recorded(response));
        }
    }

    fn node_status(&mut self, response: &[u8], time: Option<Timestamp>) {
        let Ok(response) = observer_proto::observer::GetFlowsResponse::decode(response) else { return };
        // What only informs is no row.
        if text::stream(&response, false) != Some(Stream::Err) {
            return;
        }
        let mut line = String::new();
        if text::flows_response(text::Options::default(), &response, &mut line).is_ok() {
            self.rows.push(time, Body::Note(line.trim().to_owned()));
        }
    }

    fn gap(&mut self, from: Option<Timestamp>, until: Timestamp) {
        let clock = |time: &Timestamp| {
            let mut text = String::new();
            // Writing to a string can't fail.
            let _ = TimeFormat::Rfc3339Milli.write(Some(time), &mut text);
            text
        };
        let from = from.map_or_else(String::new, |from| format!("from {} ", clock(&from)));
        let text = format!("flows {from}until {} may be missing: the server has them no more", clock(&until));
        self.rows.push(Some(until), Body::Note(text));
        self.say(Role::Error, "flows may be missing: see the row that says from when to when");
    }
}
