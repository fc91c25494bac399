//! Flows from files in place of a server: lines of JSON as Hubble prints and exports them (`GetFlowsResponse` and
//! `ExportEvent`), and bare flows, as the oldest Hubble printed them.

mod lines;

use lines::{Line, Lines};
use observer_proto::{
    encoded::{Held, Outline, around},
    flow::Flow,
    json::{Mask, MessageType, Reader},
    observer::GetFlowsResponse,
};
use prost::Message as _;
use std::{io, path::PathBuf};

/// Reads the files one after the other. What can't be read is counted, never an error.
pub(crate) struct Input {
    /// The one that is being read is the last.
    files: Vec<Lines>,
    skipped: Skipped,
    response: MessageType,
    flow: MessageType,
    reader: Reader,
    encoded: Vec<u8>,
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
    /// The first field or name in a response that this version does not know: it was passed over.
    pub(crate) unknown: Option<String>,
}

impl Input {
    /// Opens all files, so that a missing one is told before anything is printed. The error is Hubble's text.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, String> {
        let open = |path: &PathBuf| {
            Lines::open(path).map_err(|error| format!("open {}: {}", path.display(), words(&error)))
        };
        let mut files = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        files.reverse();
        let named = |name: &str| MessageType::named(name).ok_or_else(|| format!("no descriptor of {name}"));
        Ok(Self {
            files,
            skipped: Skipped::default(),
            response: named("observer.GetFlowsResponse")?,
            flow: named("flow.Flow")?,
            reader: Reader::discarding(),
            encoded: Vec::new(),
        })
    }

    /// Gives these fields of responses only.
    pub(crate) fn keeping(self, mask: Mask) -> Self {
        Self { reader: self.reader.keeping(mask), ..self }
    }

    /// The next response: a flow, lost events, a node's status, or one that holds nothing. An error is a file that
    /// can't be read further.
    pub(crate) fn next(&mut self) -> Result<Option<GetFlowsResponse>, String> {
        while self.advance()? {
            // What the reader has written can be decoded; it keeps the decoder's bounds.
            if let Ok(response) = GetFlowsResponse::decode(self.encoded.as_slice()) {
                return Ok(Some(response));
            }
        }
        Ok(None)
    }

    /// The response that was read last, encoded.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Its JSON, where its line is just what a writer would write.
    pub(crate) fn json(&self) -> Option<&[u8]> {
        self.files.last().filter(|_| self.reader.is_as_written()).map(Lines::line)
    }

    /// Reads the next response; whether there was one.
    pub(crate) fn advance(&mut self) -> Result<bool, String> {
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
            self.encoded.clear();
            let read = match line {
                Line::Text(text) => self
                    .reader
                    .read_bytes(self.response, text, &mut self.encoded)
                    .map_err(|error| error.to_string()),
                Line::TooLong => Err("the line is too long".to_owned()),
            };
            let problem = match read {
                Ok(None) => return Ok(true),
                Ok(Some(column))
                    if Outline::of(&self.encoded).is_ok_and(|outline| outline.held != Held::Nothing) =>
                {
                    self.skipped.unknown.get_or_insert_with(|| format!("{}, column {column}", file.place()));
                    return Ok(true);
                }
                Ok(Some(column)) => {
                    match std::str::from_utf8(file.line()).ok().and_then(|text| bare_flow(self.flow, text)) {
                        Some(flow) => {
                            self.encoded = flow;
                            return Ok(true);
                        }
                        None => format!("neither a response nor a flow (column {column})"),
                    }
                }
                Err(why) => why,
            };
            self.skipped.unreadable += 1;
            self.skipped.first.get_or_insert_with(|| format!("{}: {problem}", file.place()));
        }
        Ok(false)
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

/// A flow without a response around it, with one. What has no more than a response's own fields is none.
fn bare_flow(kind: MessageType, text: &str) -> Option<Vec<u8>> {
    let mut encoded = Vec::new();
    Reader::discarding().read(kind, text, &mut encoded).ok()?;
    let flow = Flow::decode(encoded.as_slice()).ok()?;
    let nothing = Flow { time: flow.time, node_name: flow.node_name.clone(), ..Flow::default() };
    (flow != nothing).then(|| around(flow).encode_to_vec())
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
    use observer_proto::observer::get_flows_response::ResponseTypes;
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
