//! Addresses that no policy tells apart are one group, so that fifty thousand CIDRs of one rule are one peer.

use hashbrown::{HashMap, HashSet};
use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;
use slab::Slab;
use std::{net::IpAddr, sync::Arc};

/// The blocks of one rule: each a net with what is left out of it, sorted.
pub(super) type Blocks = Arc<[(IpNet, Vec<IpNet>)]>;

/// The group of addresses that no rule names.
pub(super) const NO_GROUP: u32 = 0;

/// The sets of blocks in use, each once, and the groups they make of all addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    sets: Slab<(Blocks, usize)>,
    numbers: HashMap<Blocks, u32>,
    /// A set was added or is not used any more since the groups were made.
    stale: bool,
    groups: Slab<Arc<[u32]>>,
    group_numbers: HashMap<Arc<[u32]>, u32>,
    of_set: HashMap<u32, Vec<u32>>,
    of_net: JointPrefixMap<IpNet, u32>,
}

impl Default for Addresses {
    fn default() -> Self {
        let mut this = Self {
            sets: Slab::new(),
            numbers: HashMap::new(),
            stale: false,
            groups: Slab::new(),
            group_numbers: HashMap::new(),
            of_set: HashMap::new(),
            of_net: JointPrefixMap::default(),
        };
        this.group(Arc::from([]));
        this
    }
}

/// What one net says about the sets.
#[derive(Default)]
struct Mark {
    blocks: Vec<(u32, u32)>,
    excepts: Vec<(u32, u32)>,
}

impl Addresses {
    pub(super) fn acquire(&mut self, blocks: Blocks) -> u32 {
        if let Some(&number) = self.numbers.get(&blocks) {
            let uses = &mut self.sets[number as usize].1;
            self.stale |= *uses == 0;
            *uses += 1;
            return number;
        }
        self.stale = true;
        let number = self.sets.insert((blocks.clone(), 1)) as u32;
        self.numbers.insert(blocks, number);
        number
    }

    /// Its number stays taken until the next [`Self::regroup`].
    pub(super) fn release(&mut self, number: u32) {
        let (_, uses) = &mut self.sets[number as usize];
        *uses -= 1;
        self.stale |= *uses == 0;
    }

    pub(super) fn group_of(&self, address: IpAddr) -> u32 {
        self.of_net.get_lpm(&IpNet::from(address)).map_or(NO_GROUP, |(_, group)| *group)
    }

    pub(super) fn contains(&self, group: u32, set: u32) -> bool {
        self.groups[group as usize].binary_search(&set).is_ok()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().map(|(number, _)| number as u32)
    }

    /// The groups that a set is made of.
    pub(super) fn groups_of(&self, set: u32) -> &[u32] {
        self.of_set.get(&set).map_or(&[], Vec::as_slice)
    }

    /// Nets with their groups, for the kernel's map from addresses to peers.
    pub(super) fn nets(&self) -> impl Iterator<Item = (IpNet, u32)> + '_ {
        self.of_net.iter().map(|(net, group)| (net, *group))
    }

    /// Makes the groups anew if the sets changed; `true` if so. Groups that are still there keep their numbers;
    /// the others stay until [`Self::forget`].
    pub(super) fn regroup(&mut self) -> Option<Vec<u32>> {
        if !std::mem::take(&mut self.stale) {
            return None;
        }
        let unused: Vec<_> = self.sets.iter().filter(|(_, (_, uses))| *uses == 0).map(|(n, _)| n).collect();
        for number in unused {
            let (blocks, _) = self.sets.remove(number);
            self.numbers.remove(&blocks);
        }
        let mut marks: JointPrefixMap<IpNet, Mark> = JointPrefixMap::default();
        for (set, (blocks, _)) in &self.sets {
            for (block, (net, excepts)) in blocks.iter().enumerate() {
                let key = (set as u32, block as u32);
                mark(&mut marks, *net).blocks.push(key);
                for except in excepts {
                    mark(&mut marks, *except).excepts.push(key);
                }
            }
        }
        let mut of_net = JointPrefixMap::default();
        let mut used: HashSet<u32> = HashSet::from([NO_GROUP]);
        let nets: Vec<IpNet> = marks.iter().map(|(net, _)| net).collect();
        for net in nets {
            let (mut inside, mut outside) = (Vec::new(), HashSet::new());
            for (_, mark) in marks.cover(&net) {
                inside.extend_from_slice(&mark.blocks);
                outside.extend(mark.excepts.iter().copied());
            }
            let kept = inside.iter().filter(|key| !outside.contains(*key)).map(|(set, _)| *set);
            let mut sets: Vec<u32> = kept.collect();
            sets.sort_unstable();
            sets.dedup();
            let group = self.group(sets.into());
            used.insert(group);
            of_net.insert(net, group);
        }
        self.of_net = of_net;
        self.of_set.clear();
        for &group in &used {
            for set in &*self.groups[group as usize] {
                self.of_set.entry(*set).or_default().push(group);
            }
        }
        Some(self.groups.iter().map(|(n, _)| n as u32).filter(|n| !used.contains(n)).collect())
    }

    /// Gives up the numbers of groups that are gone.
    pub(super) fn forget(&mut self, groups: &[u32]) {
        for group in groups {
            let sets = self.groups.remove(*group as usize);
            self.group_numbers.remove(&sets);
        }
    }

    fn group(&mut self, sets: Arc<[u32]>) -> u32 {
        *self.group_numbers.entry(sets).or_insert_with_key(|sets| self.groups.insert(sets.clone()) as u32)
    }
}

fn mark(marks: &mut JointPrefixMap<IpNet, Mark>, net: IpNet) -> &mut Mark {
    marks.entry(net).or_default()
}
