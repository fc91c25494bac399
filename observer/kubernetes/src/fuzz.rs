//! What must hold whatever the API server's lines say; a fuzzer calls it, and the tests with its corpus.

use crate::{Access, Batch, Config, Resource, Shown, Since, Sink, Timing, by_hand::ByHand};
use observer_inventory::Surroundings;
use observer_policy::source::Options;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// The UIDs that were told of.
struct Uids(Arc<Mutex<BTreeSet<String>>>);

impl Sink for Uids {
    fn pods(&mut self, batch: Batch, _: Since) {
        let mut uids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for pod in batch.pods {
            assert!(pod.labels.is_sorted(), "{pod:?}");
            uids.insert(pod.uid);
        }
        uids.retain(|uid| !batch.gone.contains(uid));
    }

    fn surroundings(&mut self, around: Surroundings) {
        let ports = around.services.iter().flat_map(|service| &service.ports);
        assert!(ports.into_iter().all(|port| port.node_port != Some(0)), "{around:?}");
    }

    fn pods_are_complete(&mut self) {}

    fn confirm(&mut self) {}
}

/// Lines of watches, each of the resource that its first byte says.
///
/// # Panics
///
/// Where something does not hold.
pub fn watch(data: &[u8]) {
    let config = Config {
        access: Access::Usual,
        node: "n1".to_owned(),
        cluster: "default".to_owned(),
        peers: "kube-system/app=observer".parse().ok(),
        policies: Some(Options::default()),
        timing: Timing::default(),
    };
    let shown = Shown::new(&config);
    let uids = Arc::new(Mutex::default());
    let sink = Box::new(Uids(Arc::clone(&uids)));
    let mut by_hand = ByHand::new(&config, shown.clone(), sink);
    for line in data.split(|byte| *byte == b'\n') {
        let Some((first, line)) = line.split_first() else { continue };
        // What can't be read is left out.
        _ = by_hand.line(Resource::ALL[usize::from(*first) % Resource::ALL.len()], line);
    }
    for resource in Resource::ALL {
        by_hand.end(resource);
    }
    by_hand.flush();
    let pods = shown.board.of(Resource::Pods).map_or(0, |status| status.objects);
    assert_eq!(uids.lock().unwrap_or_else(PoisonError::into_inner).len(), pods, "what is known was told");
    let problems = shown.policies.map_or_else(Vec::new, |policies| policies.all().1);
    assert!(!problems.iter().any(|problem| problem.contains(char::is_control)), "{problems:?}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/watch");
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().collect();
        assert!(files.len() >= 5, "{files:?}");
        for file in files {
            super::watch(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
}
