//! Writing a recording: beside the stages, in the order in which they took the inputs.

use super::{Head, Input, MAGIC, Totals, VERSION, frame};
use crate::enrich::source::{Change, Journal};
use observer_ebpf::ABI_VERSION;
use std::{
    borrow::Cow,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    mem,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};

/// Inputs of a frame, in bytes: more compress no better.
const FRAME: usize = 256 << 10;
/// Frames that may wait for the disk. When it is slower than the capture, the capture waits, and what the kernel's rings
/// then have no room for is counted there: in a recording nothing is missing without a word.
const WAITING_FRAMES: usize = 16;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The inputs.
    pub totals: Totals,
    /// The file, in bytes.
    pub bytes: u64,
}

/// Writes inputs to a file. Shared by the pipeline's thread and those of the sources of names.
#[derive(Debug)]
pub struct Recorder {
    /// Held while a batch goes through the stages and while names change, so that each change stands in the file between
    /// the batches between which it was made.
    turn: Mutex<()>,
    state: Mutex<State>,
    writer: Mutex<Option<JoinHandle<io::Result<u64>>>>,
}

#[derive(Debug)]
struct State {
    plain: Vec<u8>,
    /// Nothing is written before [`Recorder::begin`] was told what stands before it all.
    begun: bool,
    /// Gone after the end.
    frames: Option<SyncSender<Vec<u8>>>,
    broken: bool,
    totals: Totals,
}

impl Recorder {
    /// Makes the file, or empties it. It tells who talks to whom: only its owner may read it.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        let (sender, frames) = sync_channel(WAITING_FRAMES);
        let writer =
            std::thread::Builder::new().name("recorder".to_owned()).spawn(move || write(file, &frames))?;
        let state = State {
            plain: Vec::new(),
            begun: false,
            frames: Some(sender),
            broken: false,
            totals: Totals::default(),
        };
        Ok(Self { turn: Mutex::default(), state: Mutex::new(state), writer: Mutex::new(Some(writer)) })
    }

    /// What stands before all inputs, those that were kept already included.
    pub fn begin(&self, head: &Head) {
        let mut state = self.state();
        let kept = mem::take(&mut state.plain);
        state.write(head);
        state.plain.extend(kept);
        state.begun = true;
    }

    /// While this is held, no names change.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an input. After [`Input::End`] nothing is kept.
    pub fn keep(&self, input: &Input<'_>) {
        let mut state = self.state();
        if state.frames.is_none() || state.broken {
            return;
        }
        state.write(input);
        state.totals.add(input);
        if *input == Input::End {
            state.send();
            state.frames = None;
        } else if state.begun && state.plain.len() >= FRAME {
            state.send();
        }
    }

    /// Gives what is kept to the disk: after a kill no more is missing than what came since.
    pub fn flush(&self) {
        self.state().send();
    }

    /// Whether it can't write any more; [`Recorder::finish`] tells why.
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// Waits until everything is on the disk.
    pub fn finish(&self) -> io::Result<Recorded> {
        let (totals, broken) = {
            let mut state = self.state();
            state.send();
            state.frames = None;
            (state.totals, state.broken)
        };
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let bytes = match writer.map(JoinHandle::join) {
            Some(Ok(result)) => result?,
            Some(Err(_)) => return Err(io::Error::other("the recorder's thread failed")),
            None => 0,
        };
        if broken {
            return Err(io::Error::other("an input has no form in a recording"));
        }
        Ok(Recorded { totals, bytes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Recorder {
    fn keep(&self, change: &Change, make: &mut dyn FnMut() -> bool) {
        let _turn = self.turn();
        if make() {
            self.keep(&Input::Names(Cow::Borrowed(change)));
        }
    }
}

impl State {
    fn write(&mut self, item: &impl serde::Serialize) {
        // Into memory, and of types that all have a form.
        if postcard::to_io(item, &mut self.plain).is_err() {
            self.broken = true;
        }
    }

    fn send(&mut self) {
        if self.plain.is_empty() || !self.begun {
            return;
        }
        let plain = mem::take(&mut self.plain);
        // Nobody receives any more where writing failed.
        let sent = self.frames.as_ref().is_some_and(|frames| frames.send(plain).is_ok());
        self.broken |= !sent;
    }
}

/// The writer's thread; the bytes written. An error says what can be played all the same.
fn write(mut file: File, frames: &Receiver<Vec<u8>>) -> io::Result<u64> {
    let [low, high] = VERSION.to_le_bytes();
    file.write_all(&MAGIC)?;
    file.write_all(&[low, high, ABI_VERSION, 0])?;
    let mut bytes = (MAGIC.len() + 4) as u64;
    let mut whole = 0;
    let mut write = || {
        for plain in frames {
            let frame = frame::pack(&plain)?;
            file.write_all(&frame)?;
            bytes += frame.len() as u64;
            whole = bytes;
        }
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(bytes),
        Err(error) if whole > 0 => {
            Err(io::Error::new(error.kind(), format!("{error}; its first {whole} bytes can be played")))
        }
        Err(error) => Err(error),
    }
}
