//! Which pod an address belonged to, and when. All times are kernel time, nanoseconds.
//!
//! The rules, for each source by itself: a pod claims an address with its first event that has it; the claim ends when
//! the pod has Succeeded or Failed, drops the address or is gone, or when another pod claims it. Then it never comes
//! back. Two claims in one batch, whose order nobody knows: nobody's.

use super::{
    source::{Rank, Window},
    tables::Nodes,
};
use crate::endpoint::Endpoint;
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::{
    collections::VecDeque,
    hash::BuildHasher,
    net::IpAddr,
    num::NonZeroU64,
    ops::Range,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

/// A writer locks one of these many parts for some 100 ns; a reader waits for nothing else.
const SHARDS: usize = 64;
/// How many ended claims are remembered for late events, in all.
const MAX_PAST: usize = 4096;
/// And of one address.
const MAX_PAST_OF_ADDRESS: usize = 8;

#[derive(Debug)]
struct Claim {
    /// As it was then. A version of an endpoint is one pod's, so it says whose the claim is as well.
    endpoint: Arc<Endpoint>,
    from: u64,
    /// `u64::MAX` while it lives.
    until: u64,
    batch: u64,
    rank: Rank,
}

impl Claim {
    fn lives(&self) -> bool {
        self.until == u64::MAX
    }

    fn is_of(&self, endpoint: &Arc<Endpoint>) -> bool {
        Arc::ptr_eq(&self.endpoint, endpoint)
    }

    /// What is left of an ended one in [`Claims::past`].
    fn ended(&self) -> Ended {
        (self.endpoint.serial(), self.until)
    }
}

/// The version of the endpoint, and when the claim ended.
type Ended = (NonZeroU64, u64);

/// What is known of an address at a time.
pub(super) enum Owner {
    /// It is a node's, and so no pod's: those on the host's network have it, and the node's own end of pod links.
    Node(Arc<Endpoint>),
    /// It was this one's.
    Pod(Arc<Endpoint>),
    /// It is a pod's at other times, or it can't be said whose.
    Uncertain,
    /// No pod is known to have had it.
    Never,
}

/// In one place, since a look-up's cost is its locks and counts.
#[derive(Debug, Default)]
struct OfAddress {
    /// What it stands for as a node's.
    node: Option<Arc<Endpoint>>,
    /// Nearly all addresses have one for ever: it is in the table itself.
    claims: SmallVec<[Claim; 1]>,
}

type Shard = HashTable<(IpAddr, OfAddress)>;

/// The sharded table.
#[derive(Debug)]
pub(super) struct Claims {
    shards: Box<[RwLock<Shard>]>,
    hasher: hashbrown::DefaultHashBuilder,
    past: Mutex<VecDeque<(IpAddr, Ended)>>,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: hashbrown::DefaultHashBuilder::default(),
            past: Mutex::default(),
        }
    }
}

/// Who changes something, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) rank: Rank,
    pub(super) window: Window,
    pub(super) batch: u64,
}

impl Claims {
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // By bits that a table looks at none of.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    fn with<R>(&self, ip: IpAddr, change: impl FnOnce(&mut OfAddress) -> R) -> R {
        let hash = self.hasher.hash_one(ip);
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        let entry = shard.entry(hash, |(known, _)| *known == ip, |(known, _)| self.hasher.hash_one(known));
        let mut entry = entry.or_insert_with(|| (ip, OfAddress::default()));
        let (_, known) = entry.get_mut();
        let result = change(known);
        if known.node.is_none() && known.claims.is_empty() {
            entry.remove();
        }
        result
    }

    /// Whose the address was at a time (kernel time), and a range of times around it of which the same is known.
    pub(super) fn owner(&self, ip: IpAddr, at: u64) -> (Owner, Range<u64>) {
        let mut when = 0..u64::MAX;
        let hash = self.hasher.hash_one(ip);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        let Some((_, known)) = shard.find(hash, |(known, _)| *known == ip) else {
            return (Owner::Never, when);
        };
        if let Some(node) = &known.node {
            return (Owner::Node(Arc::clone(node)), when);
        }
        let mut owner: Option<&Claim> = None;
        for claim in &known.claims {
            for change in [claim.from, claim.until] {
                if change <= at {
                    when.start = when.start.max(change);
                } else {
                    when.end = when.end.min(change);
                }
            }
            let is_before = |other: &Claim| (claim.rank, claim.from) < (other.rank, other.from);
            if claim.from <= at && at < claim.until && !owner.is_some_and(is_before) {
                owner = Some(claim);
            }
        }
        (owner.map_or(Owner::Uncertain, |claim| Owner::Pod(Arc::clone(&claim.endpoint))), when)
    }

    /// Whose the address is.
    pub(super) fn now(&self, ip: IpAddr) -> Owner {
        self.owner(ip, u64::MAX - 1).0
    }

    /// The addresses of nodes, now and before.
    pub(super) fn set_nodes(&self, before: &Nodes, now: &Nodes) {
        for ip in before.keys().filter(|ip| !now.contains_key(*ip)) {
            self.with(*ip, |known| known.node = None);
        }
        for (ip, endpoint) in now {
            self.with(*ip, |known| known.node = Some(Arc::clone(endpoint)));
        }
    }

    /// Gives each address that a pod has now: whose it is, who says so, and since when.
    pub(super) fn each(&self, mut each: impl FnMut(IpAddr, &Arc<Endpoint>, Rank, u64)) {
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            for (ip, known) in shard.iter() {
                let living = known.claims.iter().filter(|claim| claim.lives());
                if let Some(claim) = living.max_by_key(|claim| (claim.rank, claim.from)) {
                    each(*ip, &claim.endpoint, claim.rank, claim.from);
                }
            }
        }
    }

    /// A pod's first event with this address.
    pub(super) fn open(&self, ip: IpAddr, change: Change, endpoint: &Arc<Endpoint>) {
        let Window { since, at } = change.window;
        let ended = self.with(ip, |OfAddress { claims, .. }| {
            let mut claim = Claim {
                endpoint: Arc::clone(endpoint),
                from: since,
                until: u64::MAX,
                batch: change.batch,
                rank: change.rank,
            };
            let mut ended = Vec::new();
            let last = claims.iter_mut().rev().find(|last| last.rank == change.rank);
            if let Some(last) = last {
                if last.lives() && last.batch == change.batch {
                    claim.until = claim.from;
                    ended.push(claim.ended());
                } else if last.lives() || last.until > since {
                    // Between the two looks the address changed hands, nobody saw when.
                    claim.from = at;
                }
                if last.lives() {
                    last.until = since.max(last.from);
                    if last.batch == change.batch {
                        last.until = last.from;
                    }
                    ended.push(last.ended());
                } else {
                    // Ended in this same window: until the last look it was its own.
                    last.until = last.until.min(since.max(last.from));
                }
            }
            add(claims, claim);
            ended
        });
        self.remember(ip, ended);
    }

    /// A pod that goes on having this address has another endpoint now (its labels changed).
    pub(super) fn renew(&self, ip: IpAddr, change: Change, old: &Arc<Endpoint>, new: &Arc<Endpoint>) {
        let ended = self.with(ip, |OfAddress { claims, .. }| {
            let live = claims.iter_mut().find(|claim| claim.rank == change.rank && claim.lives())?;
            if !live.is_of(old) {
                return None;
            }
            let from = change.window.at.max(live.from);
            live.until = from;
            let ended = live.ended();
            let claim = Claim {
                endpoint: Arc::clone(new),
                from,
                until: u64::MAX,
                batch: live.batch,
                rank: change.rank,
            };
            add(claims, claim);
            Some(ended)
        });
        self.remember(ip, ended);
    }

    /// The pod has this address no more. Another pod's claim is left alone.
    pub(super) fn close(&self, ip: IpAddr, change: Change, endpoint: &Arc<Endpoint>) {
        let ended = self.with(ip, |OfAddress { claims, .. }| {
            let claim = claims.iter_mut().find(|claim| claim.lives() && claim.is_of(endpoint))?;
            claim.until = change.window.at.max(claim.from);
            Some(claim.ended())
        });
        self.remember(ip, ended);
    }

    fn remember(&self, ip: IpAddr, ended: impl IntoIterator<Item = Ended>) {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        past.extend(ended.into_iter().map(|ended| (ip, ended)));
        while past.len() > MAX_PAST {
            let Some((ip, (serial, until))) = past.pop_front() else { return };
            self.with(ip, |OfAddress { claims, .. }| {
                claims.retain(|claim| claim.endpoint.serial() != serial || claim.until > until);
                claims.shrink_to_fit();
            });
        }
    }
}

fn add(claims: &mut SmallVec<[Claim; 1]>, claim: Claim) {
    claims.push(claim);
    if claims.iter().filter(|claim| !claim.lives()).count() > MAX_PAST_OF_ADDRESS
        && let Some(oldest) = claims.iter().position(|claim| !claim.lives())
    {
        claims.remove(oldest);
    }
}
