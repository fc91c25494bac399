//! Security identities: one number for one set of labels.
//!
//! Pods: a fixed hash of the sorted labels, so that nodes agree without talking. FNV-1a (64 bit) over each label
//! followed by `;`, then over `#<salt>` when the salt is not 0; then MurmurHash3's 64-bit finalizer; the top 24 bits
//! are the number. Below 256, or taken by a live set: the next salt.

use super::source::CidrGroup;
use crate::endpoint::Text;
use hashbrown::{Equivalent, HashMap};
use ipnet::IpNet;
use observer_inventory::shared::Interner;
use std::sync::Arc;

/// The lowest number of a pod's identity; those below are reserved by Cilium.
pub const FIRST_POD_IDENTITY: u32 = 256;
/// Identities from here on hold on this node only: CIDRs.
pub const LOCAL_SCOPE: u32 = 1 << 24;
/// The next scope of Cilium's, remote nodes.
const LOCAL_SCOPE_END: u32 = 2 << 24;
/// How many salts are tried; with all of 16 million numbers half taken the chance to need more is 2^-64.
const MAX_SALT: u32 = 64;

/// The number that a label set gets with this salt; under [`FIRST_POD_IDENTITY`] it must not be used.
pub fn candidate(labels: &[String], salt: u32) -> u32 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for label in labels {
        hash = label.bytes().chain([b';']).fold(hash, step);
    }
    if salt > 0 {
        hash = format!("#{salt}").bytes().fold(hash, step);
    }
    // FNV's high bits are weak for short input.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    ((hash ^ (hash >> 33)) >> 40) as u32
}

/// Which label set has which number now. A number is free again when the last holder of its set is gone.
#[derive(Debug, Default)]
pub struct Identities {
    by_labels: HashMap<Arc<[Text]>, Held>,
    by_number: HashMap<u32, Arc<[Text]>>,
    /// Of all label sets.
    labels: Interner<str>,
    collisions: u64,
    cidrs: HashMap<IpNet, u32>,
    last_cidr: u32,
}

#[derive(Debug)]
struct Held {
    number: u32,
    holders: u32,
}

/// A label set to look for.
#[derive(Hash)]
struct Wanted<'a>(&'a [String]);

impl Equivalent<Arc<[Text]>> for Wanted<'_> {
    fn equivalent(&self, labels: &Arc<[Text]>) -> bool {
        labels.iter().eq(self.0)
    }
}

impl Identities {
    /// The identity of these labels (sorted), one holder more, and the labels as all its holders share them. `None` when
    /// no number could be found for them.
    pub fn acquire(&mut self, labels: &[String]) -> Option<(u32, Arc<[Text]>)> {
        if let Some(held) = self.by_labels.get_mut(&Wanted(labels)) {
            held.holders += 1;
            let number = held.number;
            return self.labels(number).map(|labels| (number, labels));
        }
        let mut salts = 0..MAX_SALT;
        let number = salts.find_map(|salt| {
            let number = candidate(labels, salt);
            if number < FIRST_POD_IDENTITY {
                return None;
            }
            let taken = self.by_number.contains_key(&number);
            self.collisions += u64::from(taken);
            (!taken).then_some(number)
        })?;
        let shared = labels.iter().map(|label| Text::from(self.labels.get(&**label)));
        let labels: Arc<[Text]> = shared.collect();
        self.by_number.insert(number, Arc::clone(&labels));
        self.by_labels.insert(Arc::clone(&labels), Held { number, holders: 1 });
        Some((number, labels))
    }

    /// One holder less.
    pub fn release(&mut self, number: u32) {
        let Some(labels) = self.by_number.get(&number) else { return };
        let Some(held) = self.by_labels.get_mut(labels) else { return };
        held.holders -= 1;
        if held.holders == 0 {
            self.by_labels.remove(labels);
            self.by_number.remove(&number);
        }
    }

    /// The labels that a pod identity stands for now.
    pub fn labels(&self, number: u32) -> Option<Arc<[Text]>> {
        self.by_number.get(&number).cloned()
    }

    /// How often a number was taken by another set already.
    pub fn collisions(&self) -> u64 {
        self.collisions
    }

    /// Numbers for these CIDRs; one that had a number keeps it, those not named lose theirs. Numbers are not used
    /// twice in a daemon's life. CIDRs beyond the 16 million numbers get none.
    pub(super) fn set_cidrs(&mut self, cidrs: impl Iterator<Item = IpNet>) -> HashMap<IpNet, u32> {
        let mut now = HashMap::new();
        for cidr in cidrs {
            let known = self.cidrs.get(&cidr).or_else(|| now.get(&cidr)).copied();
            let number = known.unwrap_or_else(|| {
                self.last_cidr += 1;
                LOCAL_SCOPE + self.last_cidr
            });
            if number < LOCAL_SCOPE_END {
                now.insert(cidr, number);
            } else {
                self.last_cidr = LOCAL_SCOPE_END - LOCAL_SCOPE - 1;
            }
        }
        self.cidrs.clone_from(&now);
        now
    }
}

/// The sorted labels of a CIDR's identity. Label keys can't hold `:`, so Cilium writes IPv6 with `-`.
pub fn cidr_labels(cidr: IpNet, groups: &[CidrGroup]) -> Vec<String> {
    let mut labels =
        vec![format!("cidr:{}", cidr.to_string().replace(':', "-")), "reserved:world".to_owned()];
    let named = groups.iter().filter(|group| group.cidrs.contains(&cidr));
    labels.extend(named.map(|group| format!("cidrgroup:io.cilium.policy.cidrgroupname/{}=", group.name)));
    labels.sort_unstable();
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(labels: &[&str]) -> Vec<String> {
        labels.iter().map(|&l| l.to_owned()).collect()
    }

    /// Two one-label sets with the same candidate; found by search, so that it holds for the hash as it is.
    fn collision() -> (Vec<String>, Vec<String>) {
        let mut seen = HashMap::new();
        for n in 0_u32.. {
            let labels = vec![format!("k8s:app=app-{n}")];
            if let Some(other) = seen.insert(candidate(&labels, 0), labels.clone()) {
                return (other, labels);
            }
        }
        unreachable!("24 bits must collide")
    }

    #[test]
    fn numbers_never_change_between_versions_or_nodes() {
        let golden = [
            (set(&["k8s:app=web"]), 0, 993_413),
            (set(&["k8s:app=web"]), 1, 2_675_929),
            (set(&["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop"]), 0, 4_309_337),
            (set(&["netns:name=blue"]), 0, 10_662_991),
        ];
        for (labels, salt, number) in golden {
            assert_eq!(candidate(&labels, salt), number, "{labels:?} #{salt}");
        }
    }

    #[test]
    fn the_border_between_labels_counts() {
        assert_ne!(candidate(&set(&["a", "b"]), 0), candidate(&set(&["ab"]), 0));
    }

    #[test]
    fn the_later_of_two_colliding_sets_moves_and_the_first_stays() {
        let (first, second) = collision();
        let mut identities = Identities::default();
        let one = identities.acquire(&first).unwrap().0;
        let two = identities.acquire(&second).unwrap().0;
        assert_eq!(one, candidate(&first, 0));
        assert_eq!(two, candidate(&second, 1));
        assert_eq!(identities.collisions(), 1);
        // The number became free, but the second set lives and keeps what it has.
        identities.release(one);
        assert_eq!(identities.acquire(&second).unwrap().0, two);
        assert!(identities.labels(two).is_some_and(|labels| labels.iter().eq(&second)));
        assert_eq!(identities.labels(one), None);
    }

    #[test]
    fn a_set_keeps_its_number_until_its_last_holder_is_gone() {
        let mut identities = Identities::default();
        let labels = set(&["k8s:app=web"]);
        let number = identities.acquire(&labels).unwrap().0;
        assert_eq!(identities.acquire(&labels).unwrap().0, number);
        identities.release(number);
        assert!(identities.labels(number).is_some());
        identities.release(number);
        assert!(identities.labels(number).is_none());
        identities.release(number);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut identities = Identities::default();
        for n in 0..20_000 {
            let number = identities.acquire(&[format!("k8s:app={n}")]).unwrap().0;
            assert!((FIRST_POD_IDENTITY..LOCAL_SCOPE).contains(&number));
        }
        assert_eq!(identities.by_number.len(), 20_000);
    }

    #[test]
    fn cidrs_keep_their_numbers() {
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        let mut identities = Identities::default();
        let first = identities.set_cidrs(nets(&["10.0.0.0/8", "fd00::/8", "10.0.0.0/8"]).into_iter());
        assert_eq!(first[&"10.0.0.0/8".parse::<IpNet>().unwrap()], 0x0100_0001);
        assert_eq!(first[&"fd00::/8".parse::<IpNet>().unwrap()], 0x0100_0002);
        let second = identities.set_cidrs(nets(&["fd00::/8", "1.1.1.1/32"]).into_iter());
        assert_eq!(second[&"fd00::/8".parse::<IpNet>().unwrap()], 0x0100_0002);
        assert_eq!(second[&"1.1.1.1/32".parse::<IpNet>().unwrap()], 0x0100_0003);
    }

    #[test]
    fn cidr_labels_are_ciliums() {
        let cidrs = vec!["fd00:1::/32".parse().unwrap()];
        let group = CidrGroup { name: "office".into(), cidrs, ..CidrGroup::default() };
        let labels = cidr_labels("fd00:1::/32".parse().unwrap(), &[group]);
        let expected =
            ["cidr:fd00-1--/32", "cidrgroup:io.cilium.policy.cidrgroupname/office=", "reserved:world"];
        assert_eq!(labels, expected);
    }
}
