//! The inventory as a source of names: loaded at start, loaded again when the file changes.

use crate::{
    decode::Clock,
    enrich::{
        ipcache::IpCache,
        source::{Rank, Source, SourceError, Stop, Window},
    },
    followed::{Followed, INTERVAL, Look},
};
use observer_inventory::InventoryError;
use std::path::PathBuf;

/// An inventory file, followed.
#[derive(Debug)]
pub struct InventoryFile {
    file: PathBuf,
    followed: Followed,
    /// The last time that it was what is in force; kernel time.
    last_look: u64,
    /// The last thing said about a bad file, so that each is said once.
    complaint: Option<String>,
}

impl InventoryFile {
    /// The file at this path.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        let file = file.into();
        Self { followed: Followed::new([file.clone()]), file, last_look: 0, complaint: None }
    }

    /// Takes what is in the file, if it is all of one version; whether it is. A bad file changes nothing.
    fn take(&mut self, cache: &IpCache) -> Result<bool, InventoryError> {
        let window = Window { since: self.last_look, at: Clock::kernel_now() };
        let text = observer_inventory::read(&self.file)?;
        if !self.followed.are_whole() {
            return Ok(false);
        }
        let snapshot = observer_inventory::parse(&self.file, &text, cache.node())?;
        let (pods, around) = (snapshot.pods.len(), &snapshot.surroundings);
        let (nodes, services) = (around.nodes.len(), around.services.len());
        let words = format!("loaded {pods} pods, {services} services and {nodes} nodes");
        cache.events().note("inventory", words);
        cache.replace(Rank::Inventory, snapshot, window);
        self.seen_right(cache, window.at);
        Ok(true)
    }

    fn seen_right(&mut self, cache: &IpCache, at: u64) {
        self.last_look = at;
        cache.confirm(Rank::Inventory, at);
    }

    /// A look whose result is told in the log, each trouble once.
    fn look(&mut self, cache: &IpCache) {
        match self.followed.look() {
            Look::Same if self.complaint.is_none() => self.seen_right(cache, Clock::kernel_now()),
            Look::Same | Look::Changing => {}
            Look::Changed => self.take_again(cache),
        }
    }

    fn take_again(&mut self, cache: &IpCache) {
        match self.take(cache) {
            Ok(true) => {
                let was_bad = self.complaint.take().is_some();
                tracing::info!(file = %self.file.display(), was_bad, "inventory reloaded");
            }
            Ok(false) => {}
            Err(error) => {
                let text = error.to_string();
                if self.complaint.as_ref() != Some(&text) {
                    tracing::warn!("{text}; the old inventory stays in force");
                    cache.events().note("inventory", format!("refused: {text}"));
                    self.complaint = Some(text);
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
        while !self.take(cache)? {
            self.followed.look();
        }
        Ok(())
    }

    fn follow(&mut self, cache: &IpCache, stop: &Stop) {
        while !stop.wait(None, INTERVAL) {
            self.look(cache);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, net::IpAddr};

    const ONE: &str = "pods: [{name: one, ips: [10.0.0.1]}]\n";

    fn name_of(cache: &IpCache) -> String {
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        cache.lookup(ip, Clock::kernel_now()).pod_name.to_string()
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

        let refused = || {
            let told = cache.events().agent.read(0, 100).entries;
            told.iter().filter(|event| format!("{event:?}").contains("refused: ")).count()
        };
        let bad = "pods: [{name: two, ips: [10.0.0.1]}, {nmae: three}]\n";
        fs::write(&path, bad).unwrap();
        assert_eq!(source.followed.look(), Look::Changing);
        let error = source.take(&cache).unwrap_err().to_string();
        assert!(error.contains("inventory.yaml:1:"), "{error}");
        source.take_again(&cache);
        source.take_again(&cache);
        assert_eq!((refused(), source.complaint.is_some()), (1, true), "said once");
        fs::remove_file(&path).unwrap();
        source.take_again(&cache);
        assert_eq!(refused(), 2);
        assert_eq!((name_of(&cache).as_str(), cache.generation()), ("one", generation));

        fs::write(folder.path().join("new"), ONE.replace("one", "two")).unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        source.look(&cache);
        assert_eq!(name_of(&cache), "one", "not at the first look");
        source.look(&cache);
        assert_eq!((name_of(&cache).as_str(), &source.complaint), ("two", &None));
        assert!(cache.generation() > generation);
        let before = cache.lookup("10.0.0.1".parse().unwrap(), loaded - 1);
        assert_eq!(before.pod_name, "one", "late events are still named");
    }
}
