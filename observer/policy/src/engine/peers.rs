//! Peers: what no table tells apart has one number.

use hashbrown::HashMap;
use slab::Slab;

/// A class of endpoints at addresses of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Peer {
    pub(super) class: u32,
    pub(super) group: u32,
}

/// Peers by number, with how many addresses use each.
#[derive(Debug, Default)]
pub(super) struct Peers {
    entries: Slab<(Peer, usize)>,
    numbers: HashMap<Peer, u32>,
    of_group: HashMap<u32, Vec<u32>>,
    /// Those that came and those that nobody uses any more since [`Self::changes`].
    added: Vec<u32>,
    unused: Vec<u32>,
}

impl Peers {
    pub(super) fn get(&self, number: u32) -> Peer {
        self.entries[number as usize].0
    }

    pub(super) fn number(&self, peer: Peer) -> Option<u32> {
        self.numbers.get(&peer).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, Peer)> {
        let used = self.entries.iter().filter(|(_, (_, uses))| *uses > 0);
        used.map(|(number, (peer, _))| (number as u32, *peer))
    }

    pub(super) fn of_group(&self, group: u32) -> impl Iterator<Item = (u32, Peer)> {
        let all = self.of_group.get(&group).into_iter().flatten();
        all.map(|number| (*number, self.entries[*number as usize]))
            .filter(|(_, (_, uses))| *uses > 0)
            .map(|(n, (peer, _))| (n, peer))
    }

    pub(super) fn acquire(&mut self, peer: Peer) -> u32 {
        if let Some(&number) = self.numbers.get(&peer) {
            self.entries[number as usize].1 += 1;
            return number;
        }
        let number = self.entries.insert((peer, 1)) as u32;
        self.numbers.insert(peer, number);
        self.of_group.entry(peer.group).or_default().push(number);
        self.added.push(number);
        number
    }

    /// Its number stays taken until [`Self::remove`].
    pub(super) fn release(&mut self, number: u32) {
        let uses = &mut self.entries[number as usize].1;
        *uses -= 1;
        if *uses == 0 {
            self.unused.push(number);
        }
    }

    /// What came and what is not used any more.
    pub(super) fn changes(&mut self) -> (Vec<u32>, Vec<u32>) {
        let mut unused = std::mem::take(&mut self.unused);
        unused.sort_unstable();
        unused.dedup();
        unused.retain(|number| self.entries[*number as usize].1 == 0);
        (std::mem::take(&mut self.added), unused)
    }

    pub(super) fn remove(&mut self, number: u32) -> Peer {
        let (peer, _) = self.entries.remove(number as usize);
        self.numbers.remove(&peer);
        if let Some(list) = self.of_group.get_mut(&peer.group) {
            list.retain(|other| *other != number);
        }
        peer
    }
}
