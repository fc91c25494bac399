//! What the state wants done outside: files, the clipboard, questions to the reader of the flows.

use crate::{
    copy,
    link::Ask,
    state::reduce::{Effect, Event},
    terminal::Screen,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Files of one second that may have one name.
const MOST_TRIES: u32 = 100;

/// Whoever does it.
pub(crate) struct Outside {
    pub(crate) asks: mpsc::Sender<Ask>,
    /// Where the filters of before are kept; none: nowhere.
    pub(crate) history: Option<PathBuf>,
    recording: Option<BufWriter<File>>,
}

/// How it goes on.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    On,
    /// Tell the state.
    Tell(Event),
    Quit,
}

impl Outside {
    pub(crate) fn new(asks: mpsc::Sender<Ask>, history: Option<PathBuf>) -> Self {
        Self { asks, history, recording: None }
    }

    /// Does one thing.
    pub(crate) async fn apply(&mut self, effect: Effect, screen: &mut Screen) -> io::Result<Next> {
        let told = |result: io::Result<String>| {
            Next::Tell(Event::Written(result.map_err(|error| error.to_string())))
        };
        Ok(match effect {
            Effect::Quit => Next::Quit,
            Effect::Suspend => {
                screen.suspend()?;
                Next::On
            }
            Effect::Redraw => {
                screen.terminal.clear()?;
                Next::On
            }
            Effect::Ask(ask) => {
                // Without a reader there is nobody to ask; its end is told by the other channel.
                let _ = self.asks.send(ask).await;
                Next::On
            }
            Effect::Copy(text) => match screen.copy(&text) {
                Ok(()) => Next::On,
                Err(error) => told(Err(error)),
            },
            Effect::Write { name, text } => {
                let lines = text.lines().count();
                told(write(&name, &text).map(|path| format!("{lines} lines are in {}", path.display())))
            }
            Effect::Record(name) => match create(&name) {
                Ok((file, path)) => {
                    self.recording = Some(BufWriter::new(file));
                    told(Ok(format!("all that comes from now on goes to {}", path.display())))
                }
                Err(error) => told(Err(error)),
            },
            Effect::Recorded(response) => match self.record(&response) {
                Ok(()) => Next::On,
                Err(error) => {
                    self.recording = None;
                    told(Err(io::Error::other(format!("the recording ends: {error}"))))
                }
            },
            Effect::StopRecording => {
                let flushed = self.flush();
                self.recording = None;
                flushed.map_or_else(|error| told(Err(error)), |()| Next::On)
            }
            Effect::SaveHistory(text) => {
                // It is a convenience: where it can't be kept, it is not.
                let _ = self.history.as_ref().map(|path| save(path, &text));
                Next::On
            }
        })
    }

    fn record(&mut self, response: &[u8]) -> io::Result<()> {
        if let (Some(file), Some(line)) = (&mut self.recording, copy::line(response)) {
            file.write_all(line.as_bytes())?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes what waits.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.recording.as_mut().map_or(Ok(()), io::Write::flush)
    }
}

/// A new file for this user alone, in the folder in which the program runs.
fn create(name: &str) -> io::Result<(File, PathBuf)> {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    for number in 1..MOST_TRIES {
        let path = if number == 1 { name.to_owned() } else { format!("{stem}-{number}.{ending}") };
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((file, fs::canonicalize(&path).unwrap_or_else(|_| path.into()))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }
    Err(io::Error::other(format!("{name}: too many files of this name")))
}

fn write(name: &str, text: &str) -> io::Result<PathBuf> {
    let (mut file, path) = create(name)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

fn save(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, path)
}
