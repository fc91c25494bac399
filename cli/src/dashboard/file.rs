//! Flows of files, read anew for each question.

use crate::{input::Input, offline};
use bytes::Bytes;
use observe_tui::link::{Ask, Message};
use observer_proto::{
    encoded::{Held, Outline},
    filter::{FilterLists, Filters},
    flow::Flow,
    text::status::grouped,
};
use prost::Message as _;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{sync::mpsc, task::spawn_blocking};

/// Answers questions for flows; counts are made of them by the dashboard.
pub(super) async fn read(files: Vec<PathBuf>, mut asked: mpsc::Receiver<Ask>, to: mpsc::Sender<Message>) {
    let present = Arc::new(AtomicU64::new(0));
    while let Some(ask) = asked.recv().await {
        let (run, filters) = match ask {
            Ask::Flows { run, filters, .. } => (run, filters),
            Ask::Counts { .. } => continue,
            Ask::Explain { uuid, .. } => {
                let answer = Err("a file has none; observe policy explain --policies reads some".to_owned());
                // That nobody listens is its end, and needs no word.
                let _ = to.send(Message::Explained { uuid, answer }).await;
                continue;
            }
        };
        // Who reads for an older question ends by itself.
        present.store(run, Ordering::Relaxed);
        let (files, to, present) = (files.clone(), to.clone(), present.clone());
        spawn_blocking(move || {
            let is_present = || present.load(Ordering::Relaxed) == run;
            // That nobody listens is its end, and needs no word.
            let _ = to.blocking_send(Message::Began { run });
            let end = match pass(&files, &filters, &to, is_present) {
                Ok(note) => Message::End(note),
                Err(why) => Message::Refused(why),
            };
            if is_present() {
                let _ = to.blocking_send(end);
            }
        });
    }
}

/// Hands over what passes; what is to be said at the end.
fn pass(
    files: &[PathBuf],
    filters: &FilterLists,
    to: &mpsc::Sender<Message>,
    is_present: impl Fn() -> bool,
) -> Result<String, String> {
    let filters =
        Filters::compile(&filters.whitelist, &filters.blacklist).map_err(|error| error.to_string())?;
    let mut input = Input::open(files)?;
    let mut passed: u64 = 0;
    while is_present() && input.advance()? {
        let response = input.encoded();
        let outline = Outline::of(response).map_err(|error| error.to_string())?;
        let is_wanted = filters.pass_all()
            || outline.held != Held::Flow
            || Flow::decode(outline.inner).is_ok_and(|flow| filters.matches(&flow));
        if is_wanted {
            passed += 1;
            if to.blocking_send(Message::Response(Bytes::copy_from_slice(response))).is_err() {
                return Ok(String::new());
            }
        }
    }
    let mut notes: Vec<String> = offline::notes(input.skipped()).lines().map(str::to_owned).collect();
    if passed > observe_tui::MOST_ROWS as u64 {
        notes.push(format!(
            "of {} rows the last {} are kept",
            grouped(passed),
            grouped(observe_tui::MOST_ROWS as u64)
        ));
    }
    Ok(notes.join("; "))
}
