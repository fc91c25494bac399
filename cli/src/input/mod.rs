//! Flows from files in place of a server: lines of JSON as Hubble prints and exports them (`GetFlowsResponse` and
//! `ExportEvent`), and bare flows, as the oldest Hubble printed them.

mod lines;

use lines::{Line, Lines};
use observer_proto::{
    flow::Flow,
    json,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use std::{io, path::PathBuf};

/// Reads the files one after the other. What can't be read is counted, never an error.
pub(crate) struct Input {
    /// The one that is being read is the first.
    files: Vec<Lines>,
    skipped: Skipped,
}

/// Lines that were no flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// All lines so far, the skipped ones too.
    pub(crate) lines: u64,
    /// Torn, too long, no JSON, or JSON of something else.
    pub(crate) unreadable: u64,
    /// The first of these, and why.
    pub(crate) first: Option<String>,
}

impl Input {
    /// Opens all files, so that a missing one is told before anything is printed. The error is Hubble's text.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let open = |path: &PathBuf| {
            Lines::open(path).map_err(|error| format!("open {}: {}", path.display(), words(&error)))
        };
        let mut files = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        files.reverse();
        Ok(Self { files, skipped: Skipped::default() })
    }

    /// The next response: a flow, lost events, a node's status, or one that holds nothing. An error is a file that
    /// can't be read further.
    pub(crate) fn next(&mut self) -> Result<Option<GetFlowsResponse>, String> {
        while let Some(file) = self.files.last_mut() {
            let line = match file.next() {
                Ok(Some(line)) => line,
                Ok(None) => {
                    self.files.pop();
                    continue;
                }
                Err(error) => return Err(format!("read {}: {}", file.place(), words(&error))),
            };
            self.skipped.lines += 1;
            let read = match line {
                Line::Text(text) => response(text),
                Line::TooLong => Err("the line is too long".to_owned()),
            };
            match read {
                Ok(response) => return Ok(Some(response)),
                Err(why) => {
                    self.skipped.unreadable += 1;
                    self.skipped.first.get_or_insert_with(|| format!("{}: {why}", file.place()));
                }
            }
        }
        Ok(None)
    }

    /// Whether the next line has to be waited for, perhaps long: it is not from a regular file and not here yet.
    pub(crate) fn may_wait(&self) -> bool {
        self.files.last().is_some_and(|file| file.size.is_none() && !file.is_ready())
    }

    /// How many bytes of how many are read of the files that are left; none where one of them has no size.
    pub(crate) fn read_of(&self) -> Option<(u64, u64)> {
        let size = self.files.iter().map(|file| file.size).sum::<Option<u64>>()?;
        Some((self.files.last()?.read.get(), size))
    }

    /// What could not be read so far.
    pub(crate) fn skipped(&self) -> &Skipped {
        &self.skipped
    }
}

fn response(line: &[u8]) -> Result<GetFlowsResponse, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?;
    let strict = match json::read::<GetFlowsResponse>(text) {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    if let Ok(flow) = json::read::<Flow>(text) {
        return Ok(GetFlowsResponse {
            node_name: flow.node_name.clone(),
            time: flow.time,
            response_types: Some(ResponseTypes::Flow(flow)),
        });
    }
    Err(strict.to_string())
}

/// What the system says of a failure, as Go prints it.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_no_flow_is_counted_and_the_rest_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        let text = [
            r#"{"flow":{"uuid":"a"},"node_name":"n1","time":"2026-01-05T10:15:30Z"}"#,
            r#"{"flow":{"uuid":"b"},"#,
            "",
            "observe: not a line of JSON",
            r#"{"uuid":"c","node_name":"n2","time":"2026-01-05T10:15:31Z"}"#,
        ];
        fs::write(&one, text.join("\n")).unwrap();
        fs::write(&two, r#"{"lost_events":{"num_events_lost":"3"}}"#).unwrap();
        let mut input = Input::open(&[one.clone(), two]).unwrap();
        let mut found = Vec::new();
        while let Some(response) = input.next().unwrap() {
            let time = response.time.map(|time| time.seconds % 100);
            found.push(match response.response_types.unwrap() {
                ResponseTypes::Flow(flow) => (flow.uuid, response.node_name, time),
                ResponseTypes::LostEvents(lost) => {
                    (lost.num_events_lost.to_string(), response.node_name, time)
                }
                ResponseTypes::NodeStatus(_) => panic!("there is none"),
            });
        }
        let (a, c) = (("a".into(), "n1".into(), Some(30)), ("c".into(), "n2".into(), Some(31)));
        assert_eq!(found, [a, c, ("3".into(), String::new(), None)]);
        let skipped = input.skipped();
        assert_eq!((skipped.lines, skipped.unreadable), (6, 3));
        let first = skipped.first.as_deref().unwrap();
        assert!(first.starts_with(&format!("{}:2: ", one.display())), "{first}");
    }

    #[test]
    fn a_missing_file_is_told_in_hubbles_words() {
        let error = Input::open(&["/nowhere/x".into()]).err();
        assert_eq!(error.as_deref(), Some("open /nowhere/x: no such file or directory"));
    }
}
