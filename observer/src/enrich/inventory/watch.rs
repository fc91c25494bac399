//! The inventory as a source of names: loaded at start, loaded again when the file changes.

use super::{InventoryError, MAX_FILE_BYTES, parse};
use crate::{
    decode::Clock,
    enrich::{
        ipcache::IpCache,
        source::{Rank, Source, SourceError, Stop, Window},
    },
};
use std::{
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    time::Duration,
};

/// How often the file is looked at: it may be replaced by a rename, over a symlink or in place, and a look costs 2 us.
const INTERVAL: Duration = Duration::from_secs(1);

/// A file written in place may be read half, and half a YAML list is a valid one: younger files wait for the next look.
const SETTLED: Duration = Duration::from_millis(200);

/// What tells one content of the file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// An inventory file, followed.
#[derive(Debug)]
pub struct InventoryFile {
    file: PathBuf,
    /// Of the last content that was looked at, good or bad.
    stamp: Option<Stamp>,
    /// Kernel time.
    last_look: u64,
    /// The last thing said about a bad file, so that each is said once.
    complaint: Option<String>,
}

impl InventoryFile {
    /// The file at this path.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), stamp: None, last_look: 0, complaint: None }
    }

    fn unreadable(&self, source: std::io::Error) -> InventoryError {
        InventoryError::Read { file: self.file.clone(), source }
    }

    /// Loads the file if it changed since the last look; whether it did. A bad file changes nothing.
    fn look(&mut self, cache: &IpCache) -> Result<bool, InventoryError> {
        let at = Clock::kernel_now();
        let mut file = File::open(&self.file).map_err(|e| self.unreadable(e))?;
        let meta = file.metadata().map_err(|e| self.unreadable(e))?;
        let stamp = Stamp::from(&meta);
        let window = Window { since: self.last_look, at };
        if self.stamp == Some(stamp) {
            self.last_look = at;
            return Ok(false);
        }
        self.stamp = Some(stamp);
        let mut text = String::new();
        // One byte more than allowed tells a file that grows, or a device without an end.
        let read = file.by_ref().take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
        if read.map_err(|e| self.unreadable(e))? as u64 > MAX_FILE_BYTES {
            return Err(InventoryError::TooLarge { file: self.file.clone() });
        }
        if file.metadata().map_err(|e| self.unreadable(e)).map(|meta| Stamp::from(&meta))? != stamp {
            // Written while it was read; the next look has it whole.
            self.stamp = None;
            return Ok(false);
        }
        let snapshot = parse(&self.file, &text, cache.node())?;
        let (pods, around) = (snapshot.pods.len(), &snapshot.surroundings);
        let (nodes, services) = (around.nodes.len(), around.services.len());
        let words = format!("loaded {pods} pods, {services} services and {nodes} nodes");
        cache.events().note("inventory", words);
        cache.replace(Rank::Inventory, snapshot, window);
        self.last_look = at;
        Ok(true)
    }

    fn is_being_written(&self) -> bool {
        let modified = fs::metadata(&self.file).and_then(|meta| meta.modified());
        // A time in the future is no reason to wait for it.
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < SETTLED))
    }

    /// A look whose result is told in the log, each trouble once.
    fn look_again(&mut self, cache: &IpCache) {
        match self.look(cache) {
            Ok(changed) => {
                let was_bad = changed && self.complaint.take().is_some();
                if changed {
                    tracing::info!(file = %self.file.display(), was_bad, "inventory reloaded");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.complaint.as_ref() != Some(&text) {
                    tracing::warn!("{text}; the old inventory stays in force");
                    cache.events().note("inventory", format!("refused: {text}"));
                    self.complaint = Some(text);
                }
                // A file that came back as it was must be looked at again.
                if matches!(error, InventoryError::Read { .. }) {
                    self.stamp = None;
                }
            }
        }
    }
}

impl Source for InventoryFile {
    fn rank(&self) -> Rank {
        Rank::Inventory
    }

    fn load(&mut self, cache: &IpCache) -> Result<(), SourceError> {
        self.look(cache)?;
        Ok(())
    }

    fn follow(&mut self, cache: &IpCache, stop: &Stop) {
        while !stop.wait(None, INTERVAL) {
            if !self.is_being_written() {
                self.look_again(cache);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const ONE: &str = "pods: [{name: one, ips: [10.0.0.1]}]\n";

    fn name_of(cache: &IpCache) -> String {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        cache.lookup(ip, Clock::kernel_now()).pod_name.clone()
    }

    #[test]
    fn a_bad_file_keeps_the_old_inventory_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inventory.yaml");
        fs::write(&path, ONE).unwrap();
        let cache = IpCache::new("n1");
        let mut source = InventoryFile::new(&path);
        source.load(&cache).unwrap();
        assert_eq!(name_of(&cache), "one");
        let (generation, loaded) = (cache.generation(), source.last_look);

        fs::write(&path, "pods: [{name: two, ips: [10.0.0.1]}, {nmae: three}]\n").unwrap();
        let error = source.look(&cache).unwrap_err().to_string();
        assert!(error.contains("inventory.yaml:1:"), "{error}");
        source.look_again(&cache);
        fs::remove_file(&path).unwrap();
        source.look_again(&cache);
        assert!(source.complaint.is_some());
        assert_eq!((name_of(&cache).as_str(), cache.generation()), ("one", generation));

        // The same content again, by rename, is no change; another is.
        fs::write(folder.path().join("new"), ONE.replace("one", "two")).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        source.look_again(&cache);
        assert_eq!((name_of(&cache).as_str(), source.complaint), ("two", None));
        assert!(cache.generation() > generation);
        let before = cache.lookup("10.0.0.1".parse().unwrap(), loaded - 1);
        assert_eq!(before.pod_name, "one", "late events are still named");
    }
}
