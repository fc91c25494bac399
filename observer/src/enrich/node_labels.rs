//! The labels of this node, for who tells them with flows: read where it costs nothing, changed where sources tell.

use super::source::{Node, Surroundings};
use arc_swap::{ArcSwap, Cache};
use std::{collections::BTreeMap, sync::Arc};

/// `key=value`, sorted, as they are and become.
#[derive(Clone, Debug, Default)]
pub struct NodeLabels(Arc<ArcSwap<Vec<String>>>);

/// A reader's look at [`NodeLabels`].
pub type LabelsNow = Cache<Arc<ArcSwap<Vec<String>>>, Arc<Vec<String>>>;

impl NodeLabels {
    /// To be read from time to time: where nothing changed that is one load of a pointer.
    pub fn follow(&self) -> LabelsNow {
        Cache::new(Arc::clone(&self.0))
    }

    /// As all sources have them, from the weakest on: the strongest source that has a key is right about it.
    pub(super) fn set<'a>(&self, node: &str, sources: impl Iterator<Item = &'a Surroundings>) {
        let is_own = |known: &&Node| known.name == node;
        let own = sources.flat_map(|source| &source.nodes).filter(is_own);
        let labels: BTreeMap<_, _> = own.flat_map(|node| &node.labels).collect();
        let labels: Vec<_> = labels.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        if **self.0.load() != labels {
            self.0.store(Arc::new(labels));
        }
    }
}

/// Labels that do not change.
impl From<Vec<String>> for NodeLabels {
    fn from(labels: Vec<String>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(labels)))
    }
}

#[cfg(test)]
mod tests {
    use crate::enrich::{
        ipcache::IpCache,
        source::{Node, Rank, Surroundings},
    };

    fn nodes(nodes: &[(&str, &[(&str, &str)])]) -> Surroundings {
        let node = |(name, labels): &(&str, &[(&str, &str)])| Node {
            name: (*name).to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ..Node::default()
        };
        Surroundings { nodes: nodes.iter().map(node).collect(), ..Surroundings::default() }
    }

    #[test]
    fn those_of_the_own_node_are_followed_and_the_strongest_source_is_right_about_a_key() {
        let cache = IpCache::new("n1");
        let mut labels = cache.node_labels().follow();
        let mut after = |rank, told| {
            cache.set_surroundings(rank, told);
            labels.load().join(" ")
        };
        assert_eq!(after(Rank::Kubernetes, nodes(&[("n2", &[("zone", "b")])])), "");
        let own: (_, &[_]) = ("n1", &[("zone", "a"), ("arch", "arm64")]);
        assert_eq!(after(Rank::Kubernetes, nodes(&[own, ("n2", &[("zone", "b")])])), "arch=arm64 zone=a");
        let file = nodes(&[("n1", &[("rack", "7"), ("zone", "of the file")])]);
        assert_eq!(after(Rank::Inventory, file), "arch=arm64 rack=7 zone=a");
        assert_eq!(after(Rank::Kubernetes, nodes(&[("n1", &[("zone", "c")])])), "rack=7 zone=c");
        assert_eq!(after(Rank::Inventory, nodes(&[])), "zone=c");
        assert_eq!(after(Rank::Kubernetes, nodes(&[])), "");
    }
}
