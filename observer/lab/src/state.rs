//! What is left when a player dies: a locked file per lab names its namespaces, and the kernel frees the lock of a dead
//! process. A file that can be locked is of a dead lab.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use crate::netns::{self, NETNS_DIR};
use crate::{LabError, Result};

/// Where the files of running labs stand.
pub const STATE_DIR: &str = "/run/observer-lab";

/// Where daemons keep what enforces policies without them, in a folder for each network namespace by its inode.
const KEPT: &str = "/sys/fs/bpf/observer";

/// The claim on a prefix; holds the lock as long as it lives.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    namespaces: Vec<String>,
    _lock: File,
}

impl Claim {
    /// Claims a prefix and writes down its namespaces, before any of them exists.
    pub(crate) fn take(prefix: &str, namespaces: Vec<String>) -> Result<Self> {
        let path = Path::new(STATE_DIR).join(prefix);
        let problem = || format!("claiming {}", path.display());
        std::fs::create_dir_all(STATE_DIR).map_err(LabError::system(problem()))?;
        clean(Some(prefix))?;
        // Written and locked under another name, so that no other player ever sees it unlocked.
        let draft = Path::new(STATE_DIR).join(format!(".{prefix}.{}", std::process::id()));
        let mut file = File::create(&draft).map_err(LabError::system(problem()))?;
        file.write_all(namespaces.join("\n").as_bytes()).map_err(LabError::system(problem()))?;
        file.lock().map_err(LabError::system(problem()))?;
        let claimed = std::fs::hard_link(&draft, &path);
        std::fs::remove_file(&draft).map_err(LabError::system(problem()))?;
        match claimed {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Err(LabError::Busy(prefix.into()))
            }
            Err(error) => Err(LabError::system(problem())(error)),
            Ok(()) => Ok(Self { path, namespaces, _lock: file }),
        }
    }

    /// Removes the namespaces and the claim.
    pub(crate) fn release(&self) -> Result<()> {
        remove(&self.namespaces)?;
        std::fs::remove_file(&self.path).map_err(LabError::system("removing the lab's state file"))
    }
}

/// Namespaces of a test that wires them itself. They go with this value, or with the next player where the test was
/// killed.
#[derive(Debug)]
pub struct Namespaces(Claim);

impl Namespaces {
    /// Makes namespaces of these names. Needs root.
    pub fn make(prefix: &str, names: &[&str]) -> Result<Self> {
        clean(None)?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let script = names.iter().fold(String::new(), |script, name| script + "netns add " + name + "\n");
        let made = Self(Claim::take(prefix, names)?);
        netns::feed("ip", &["-batch", "-"], &script, NETNS_DIR)?;
        Ok(made)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        if let Err(error) = self.0.release() {
            eprintln!("namespaces of a test: {error}");
        }
    }
}

/// Removes labs whose player is dead: all of them, or the one of a prefix. Returns the removed prefixes.
pub fn clean(prefix: Option<&str>) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    let entries = match std::fs::read_dir(STATE_DIR) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(removed),
        entries => entries.map_err(LabError::system(format!("reading {STATE_DIR}")))?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || prefix.is_some_and(|prefix| prefix != name) {
            continue;
        }
        let Ok(mut file) = File::open(entry.path()) else { continue };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(LabError::system(format!("locking {name}"))(error));
            }
            Ok(()) => {}
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(LabError::system(format!("reading {STATE_DIR}/{name}")))?;
        remove(&text.lines().map(str::to_owned).collect::<Vec<_>>())?;
        // Gone already where another player cleaned at the same time.
        let _ = std::fs::remove_file(entry.path());
        removed.push(name);
    }
    Ok(removed)
}

/// Ends the processes in the namespaces and removes those that exist. A namespace takes its links along.
fn remove(namespaces: &[String]) -> Result<()> {
    let existing: Vec<_> = namespaces.iter().filter(|name| netns::path(name).exists()).collect();
    let inodes: BTreeSet<u64> =
        existing.iter().filter_map(|name| Some(std::fs::metadata(netns::path(name)).ok()?.ino())).collect();
    kill_inside(&inodes);
    for inode in &inodes {
        // Mostly there is none.
        let _ = std::fs::remove_dir_all(Path::new(KEPT).join(inode.to_string()));
    }
    let script = existing.iter().fold(String::new(), |script, name| script + "netns del " + name + "\n");
    // -force: one that another player removed meanwhile doesn't keep the rest.
    let outcome = netns::feed("ip", &["-force", "-batch", "-"], &script, NETNS_DIR);
    if existing.iter().any(|name| netns::path(name).exists()) { outcome } else { Ok(()) }
}

/// Ends processes that live in one of the namespaces: they were started there (a daemon under test), and would keep the
/// namespace alive unseen.
fn kill_inside(inodes: &BTreeSet<u64>) {
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let inside =
            std::fs::metadata(process.path().join("ns/net")).is_ok_and(|meta| inodes.contains(&meta.ino()));
        if let (true, Some(pid)) = (inside && pid != std::process::id().cast_signed(), Pid::from_raw(pid)) {
            // Gone already: as wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}
