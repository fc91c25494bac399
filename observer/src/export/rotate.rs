//! Full files: renamed by their time, packed, and removed when there are too many. Names are those of Hubble's exporter:
//! `events-2026-05-01T12-00-00.000.log`, with `.gz` behind it.
//!
//! A file gets its new name whole, and a packed one takes the place of the plain one only when it is whole, so that whenever
//! the daemon is killed each line is in one file; what was left half done is ended by the next daemon.

use super::config::LogFile;
use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const PACKED: &str = ".gz";
const UNFINISHED: &str = ".gz.tmp";

/// The full files of one exporter.
pub(super) struct Backups(Arc<Shared>);

struct Shared {
    file: LogFile,
    /// Held by who packs and removes.
    busy: Mutex<()>,
    /// Somebody waits for that already.
    waiting: AtomicBool,
}

impl Backups {
    /// What a killed daemon left half done is ended first.
    pub(super) fn new(file: LogFile) -> Self {
        let backups = Self(Arc::new(Shared { file, busy: Mutex::new(()), waiting: AtomicBool::new(false) }));
        backups.tidy(None);
        backups
    }

    /// Gives the file, which is full, the name of a backup.
    pub(super) fn rotate(&self, full: &File) -> io::Result<()> {
        let path = &self.0.file.path;
        let mut time = Timestamp::now();
        let name = loop {
            let name = backup_name(path, time);
            if !name.exists() && !with(&name, PACKED).exists() {
                break name;
            }
            time += Duration::from_millis(1);
        };
        fs::rename(path, name)?;
        // A full disk is no reason to keep the file; the lines in it are the system's then.
        self.tidy(full.try_clone().ok());
        Ok(())
    }

    /// Beside the exporter, which goes on writing.
    fn tidy(&self, full: Option<File>) {
        if full.is_none() && self.0.waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = Arc::clone(&self.0);
        let work = move || {
            if let Some(full) = full
                && let Err(error) = full.sync_data()
            {
                tracing::warn!(
                    "{}: cannot bring a full file to the disk: {error}",
                    shared.file.path.display()
                );
            }
            let _busy = shared.busy.lock().unwrap_or_else(PoisonError::into_inner);
            shared.waiting.store(false, Ordering::Release);
            if let Err(error) = tidy(&shared.file) {
                tracing::warn!("{}: cannot tidy up its full files: {error}", shared.file.path.display());
            }
        };
        // Without a thread it is done at the next time.
        let _ = std::thread::Builder::new().name("export-tidy".to_owned()).spawn(work);
    }
}

/// `events.log` -> `events-<time>.log`.
fn backup_name(path: &Path, time: Timestamp) -> PathBuf {
    let (mut name, end) = name_parts(path);
    name.push(time.strftime(TIME).to_string());
    name.push(end);
    path.with_file_name(name)
}

/// What stands before and behind the time in a backup's name.
fn name_parts(path: &Path) -> (OsString, OsString) {
    let mut before = path.file_stem().unwrap_or_default().to_owned();
    before.push("-");
    let mut end = OsString::new();
    if let Some(extension) = path.extension() {
        end.push(".");
        end.push(extension);
    }
    (before, end)
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Ends what was left half done, packs where that is wanted, removes the oldest that are too many.
fn tidy(file: &LogFile) -> io::Result<()> {
    let mut backups = Vec::new();
    for (plain, kinds) in list(&file.path)? {
        if kinds.unfinished {
            fs::remove_file(with(&plain, UNFINISHED))?;
        }
        if kinds.plain && kinds.packed {
            // It was packed; only to remove it was left.
            fs::remove_file(&plain)?;
        }
        if kinds.plain || kinds.packed {
            backups.push((plain, kinds.packed));
        }
    }
    // Names are in the order of their times.
    backups.sort();
    let too_many = backups.len().saturating_sub(file.backups);
    for (plain, packed) in backups.drain(..too_many) {
        fs::remove_file(if packed { with(&plain, PACKED) } else { plain })?;
    }
    if file.compress {
        backups.iter().filter(|(_, packed)| !packed).try_for_each(|(plain, _)| pack(plain))?;
    }
    Ok(())
}

/// The forms in which a backup is there.
#[derive(Clone, Copy, Default)]
struct Kinds {
    plain: bool,
    packed: bool,
    unfinished: bool,
}

/// The backups of a file by their plain name.
fn list(path: &Path) -> io::Result<Vec<(PathBuf, Kinds)>> {
    let (before, end) = name_parts(path);
    let (before, end) = (before.as_encoded_bytes(), end.as_encoded_bytes());
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found: std::collections::BTreeMap<PathBuf, Kinds> = std::collections::BTreeMap::new();
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        let (plain, suffix) = [UNFINISHED, PACKED]
            .into_iter()
            .find_map(|suffix| Some((name.strip_suffix(suffix)?, suffix)))
            .unwrap_or((name, ""));
        let time = plain.as_bytes().strip_prefix(before).and_then(|rest| rest.strip_suffix(end));
        if !time.is_some_and(is_time) {
            continue;
        }
        let kinds = found.entry(folder.join(plain)).or_default();
        *match suffix {
            UNFINISHED => &mut kinds.unfinished,
            PACKED => &mut kinds.packed,
            _ => &mut kinds.plain,
        } = true;
    }
    Ok(found.into_iter().collect())
}

/// Whether it is as [`TIME`] writes it: others' files that are named alike are left alone.
fn is_time(text: &[u8]) -> bool {
    const FORM: &[u8] = b"dddd-dd-ddTdd-dd-dd.ddd";
    let fits = |(byte, form): (&u8, &u8)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form };
    text.len() == FORM.len() && text.iter().zip(FORM).all(fits)
}

fn pack(plain: &Path) -> io::Result<()> {
    let unfinished = with(plain, UNFINISHED);
    let packed = || {
        let to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let mut encoder = GzEncoder::new(to, Compression::default());
        io::copy(&mut File::open(plain)?, &mut encoder)?;
        encoder.finish()?.sync_data()?;
        fs::rename(&unfinished, with(plain, PACKED))
    };
    packed().inspect_err(|_| {
        // A full disk needs the room.
        let _ = fs::remove_file(&unfinished);
    })?;
    fs::remove_file(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_left_half_done_is_ended_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| fs::write(at(name), text).unwrap();
        let day = |day: u8| format!("events-2026-05-0{day}T12-00-00.000.log");
        write("events.log", "now");
        write("events-yesterday.log", "another's");
        write(&day(1), "oldest");
        write(&format!("{}.gz", day(2)), "old");
        // Killed after the packed file was whole, and while it was not.
        write(&day(3), "three");
        write(&format!("{}.gz", day(3)), "packed three");
        write(&day(4), "four");
        write(&format!("{}.gz.tmp", day(4)), "half");
        let file = LogFile { path: at("events.log"), most_bytes: 1, backups: 3, compress: true };
        tidy(&file).unwrap();
        let packed = |number| format!("{}.gz", day(number));
        let mut wanted =
            vec![packed(2), packed(3), packed(4), "events-yesterday.log".to_owned(), "events.log".to_owned()];
        wanted.sort();
        assert_eq!(names(folder.path()), wanted);
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(at(&packed(4))).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "four");
        assert_eq!(fs::read_to_string(at(&packed(3))).unwrap(), "packed three");
    }

    #[test]
    fn backups_are_named_by_their_time() {
        let time: Timestamp = "2026-05-01T12:00:00.0421Z".parse().unwrap();
        for (path, backup) in [
            ("/l/events.log", "/l/events-2026-05-01T12-00-00.042.log"),
            ("/l/events", "/l/events-2026-05-01T12-00-00.042"),
        ] {
            assert_eq!(backup_name(Path::new(path), time), Path::new(backup));
        }
    }
}
