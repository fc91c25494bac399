//! Where lines go: a file that is renamed when it is full, standard output, or a Collector. A line is written whole or,
//! where the disk does not take all of it, taken back.

use super::{
    config::{self, LogFile},
    counters::{Counters, add},
    exporter::{Around, Orders},
    lines::Pending,
    otlp::{Client, Sent},
    rotate::Backups,
};
use crate::trouble::{LOG, RETRY};
use std::{
    fs::{self, File, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How often to look whether the file is still the one of that name.
const LOOK: Duration = Duration::from_secs(2);
/// A Collector is tried after half of this to all of it first, then after twice as much, up to a limit.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// Takes lines.
pub(super) struct Sink {
    name: String,
    target: Target,
    counters: Arc<Counters>,
}

enum Target {
    /// Nothing where the daemon has none.
    Stdout(Option<File>),
    File {
        to: LogFile,
        open: Option<Open>,
        backups: Backups,
    },
    Collector {
        client: Box<Client>,
        told: Option<Instant>,
    },
}

/// The file that is written.
struct Open {
    file: File,
    /// What this has written and what was there before; only a regular file has an end.
    len: Option<u64>,
    looked: Instant,
}

impl Sink {
    pub(super) fn new(
        exporter: &config::Exporter,
        counters: Arc<Counters>,
        orders: watch::Receiver<Orders>,
        around: &Around,
    ) -> Self {
        let target = match &exporter.to {
            // Not by way of the standard library's buffer, which keeps what could not be written.
            config::Target::Stdout => {
                Target::Stdout(io::stdout().as_fd().try_clone_to_owned().ok().map(File::from))
            }
            config::Target::File(to) => {
                Target::File { to: to.clone(), open: None, backups: Backups::new(to.clone()) }
            }
            config::Target::Otlp(to) => {
                let client = Client::new(to.clone(), &around.node, around.runtime.clone(), orders);
                Target::Collector { client: Box::new(client), told: None }
            }
        };
        Self { name: exporter.name.clone(), target, counters }
    }

    /// How long to wait after so many failures, one after the other.
    pub(super) fn retry(&self, failures: u32) -> Duration {
        if !matches!(self.target, Target::Collector { .. }) {
            return RETRY;
        }
        let longest = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(LAST_RETRY);
        // Not all nodes at once.
        let chance = RandomState::new().hash_one(failures) % 512;
        longest.mul_f64(0.5 + chance as f64 / 1024.0)
    }

    /// Writes all that is pending. After an error what was written of the last line is taken back where that is possible,
    /// and `done` says what is to be written next.
    pub(super) fn write(&mut self, out: &mut Pending) -> io::Result<()> {
        while out.done < out.bytes.len() {
            let rest = out.bytes.get(out.done..).unwrap_or_default();
            let (written, is_file) = match &mut self.target {
                Target::Collector { client, told } => {
                    let sent = client.send(rest)?;
                    let bytes = rest.len();
                    take_refused(&self.name, sent, told, out, &self.counters);
                    (Ok(bytes), false)
                }
                Target::Stdout(None) => (Err(io::Error::other("there is no standard output")), false),
                Target::Stdout(Some(stdout)) => (stdout.write(rest), false),
                Target::File { to, open, backups } => {
                    let this = match open {
                        Some(this) => this,
                        None => open.insert(Open::at(&to.path)?),
                    };
                    let is_torn = out.done != line_start(&out.bytes, out.done);
                    let part = match this.room(to.most_bytes, rest, is_torn) {
                        0 => {
                            backups.rotate(&this.file)?;
                            // It is full of whole lines.
                            *open = None;
                            add(&self.counters.rotations, 1);
                            continue;
                        }
                        room => rest.get(..room).unwrap_or(rest),
                    };
                    let written = this.file.write(part);
                    if let (Ok(bytes), Some(len)) = (&written, &mut this.len) {
                        *len += *bytes as u64;
                    }
                    (written, true)
                }
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    out.done += bytes;
                    add(&self.counters.bytes, bytes as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if is_file {
                        self.take_back(out);
                    }
                    return Err(error);
                }
            }
        }
        out.bytes.clear();
        out.done = 0;
        Ok(())
    }

    /// Takes the beginning of a line out of the file again, unless somebody else changed the file meanwhile.
    fn take_back(&mut self, out: &mut Pending) {
        let Target::File { open: Some(Open { file, len: Some(len), .. }), .. } = &mut self.target else {
            return;
        };
        let start = line_start(&out.bytes, out.done);
        let torn = (out.done - start) as u64;
        let is_ours = file.metadata().is_ok_and(|meta| meta.len() == *len);
        if torn > 0 && is_ours && file.set_len(*len - torn).is_ok() {
            *len -= torn;
            out.done = start;
        }
    }

    /// Before lines are written: whether the file is still there under its name; else it is made anew.
    pub(super) fn look(&mut self, out: &mut Pending) {
        let Target::File { to, open: Some(this), .. } = &mut self.target else { return };
        if this.looked.elapsed() < LOOK {
            return;
        }
        this.looked = Instant::now();
        let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let own = this.file.metadata().ok().map(identity);
        if own.is_none() || own != fs::metadata(&to.path).ok().map(identity) {
            self.close(out);
        }
    }

    /// The file is opened again before the next line, under its name. A line of which it has a part is written anew.
    pub(super) fn close(&mut self, out: &mut Pending) {
        if let Target::File { open, .. } = &mut self.target {
            *open = None;
            out.done = line_start(&out.bytes, out.done);
        }
    }

    /// As [`Self::close`], and the file is there at once.
    pub(super) fn reopen(&mut self, out: &mut Pending) {
        self.close(out);
        if let Target::File { to, open, .. } = &mut self.target {
            // What is wrong is told when there is something to write.
            *open = Open::at(&to.path).ok();
        }
    }

    /// Brings what was written to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.target {
            Target::File { open: Some(Open { file, len: Some(_), .. }), .. } => file.sync_data(),
            Target::File { .. } | Target::Stdout(_) | Target::Collector { .. } => Ok(()),
        }
    }
}

/// Counts what a Collector does not take of a batch, and says so now and then.
fn take_refused(name: &str, sent: Sent, told: &mut Option<Instant>, out: &mut Pending, counters: &Counters) {
    let (refused, why) = match sent {
        Sent::Taken { refused: 0, .. } => return,
        Sent::Taken { refused, why } => (refused, why),
        Sent::Refused(why) => {
            out.sums = 0;
            (u64::MAX, why)
        }
    };
    let flows = refused.min(out.flows);
    out.flows -= flows;
    add(&counters.refused, flows);
    add(&counters.failures, 1);
    if told.is_none_or(|told| told.elapsed() >= LOG) {
        *told = Some(Instant::now());
        tracing::warn!(exporter = name, "the Collector refuses records, which are lost: {why}");
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // To open a pipe would wait for its reader.
        if let Ok(meta) = fs::metadata(path)
            && !(meta.is_file() || meta.file_type().is_char_device())
        {
            return Err(io::Error::other("it is neither a file nor a character device"));
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Flows tell who talks to whom.
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let meta = file.metadata()?;
        let mut len = meta.is_file().then_some(meta.len());
        if let Some(len) = len.as_mut().filter(|len| **len > 0) {
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                // Of a daemon that was killed. Cut off it would be read twice by who follows the file.
                file.write_all(b"\n")?;
                *len += 1;
                tracing::warn!("{}: its last line is torn; what follows begins a new one", path.display());
            }
        }
        Ok(Self { file, len, looked: Instant::now() })
    }

    /// How many bytes of this may be written: whole lines, as many as the file has room for, or the rest of a torn one. A
    /// line that is longer than a file has one to itself.
    fn room(&self, most: u64, lines: &[u8], is_torn: bool) -> usize {
        let Some(len) = self.len else { return lines.len() };
        if is_torn {
            return line_end(lines);
        }
        let room = usize::try_from(most.saturating_sub(len)).unwrap_or(usize::MAX);
        match lines.get(..room) {
            None => lines.len(),
            Some(fitting) => match line_start(fitting, fitting.len()) {
                0 if len == 0 => line_end(lines),
                whole => whole,
            },
        }
    }
}

/// Where the line begins that this place is in.
fn line_start(lines: &[u8], place: usize) -> usize {
    let before = lines.get(..place).unwrap_or(lines);
    before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Behind the first line's newline.
fn line_end(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}
