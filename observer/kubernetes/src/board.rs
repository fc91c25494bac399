//! How the watches do, for those who ask.

use crate::{object::Resource, pace::Timing};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// How the watches do.
#[derive(Debug)]
pub struct Board {
    stale: Duration,
    begun: Instant,
    slots: Mutex<Vec<Slot>>,
    told: watch::Sender<bool>,
}

#[derive(Debug)]
struct Slot {
    resource: Resource,
    synced: bool,
    absent: bool,
    trouble: Option<Failure>,
    heard: Option<Instant>,
    objects: usize,
    error: Option<String>,
    failures: u64,
    lists: u64,
    malformed: u64,
}

/// What is wrong with a watch now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Broken,
    /// The API server is there, and does not tell it to this daemon.
    Refused,
}

/// How a resource's watch does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not been told yet.
    Waiting,
    /// It is as the API server says.
    Synced,
    /// The API server does not know it.
    Absent,
    /// The watch is broken; what was told before goes on being used.
    Failing,
    /// The same, for so long that it may be wrong by now.
    Stale,
}

impl State {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Synced => "synced",
            Self::Absent => "absent",
            Self::Failing => "failing",
            Self::Stale => "stale",
        }
    }
}

/// A resource's watch as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Which.
    pub resource: Resource,
    /// How it does.
    pub state: State,
    /// Time since the API server last said anything of it; since the start where it never did.
    pub age: Duration,
    /// Objects that are known.
    pub objects: usize,
    /// What is wrong, or was last.
    pub error: Option<String>,
    /// Times that it broke.
    pub failures: u64,
    /// Times that all objects were told anew.
    pub lists: u64,
    /// Objects that could not be read.
    pub malformed: u64,
}

impl Slot {
    fn is_told(&self) -> bool {
        let can_be_missed = self.resource != Resource::Pods && !self.resource.is_policy();
        self.lists > 0 || self.absent || (self.trouble == Some(Failure::Refused) && can_be_missed)
    }
}

impl Board {
    /// For the resources that are followed.
    pub fn new(with_policies: bool, timing: &Timing) -> Self {
        let slot = |resource| Slot {
            resource,
            synced: false,
            absent: false,
            trouble: None,
            heard: None,
            objects: 0,
            error: None,
            failures: 0,
            lists: 0,
            malformed: 0,
        };
        let followed = Resource::ALL.into_iter().filter(|one| with_policies || !one.is_policy());
        let slots = Mutex::new(followed.map(slot).collect());
        Self { stale: timing.stale, begun: Instant::now(), slots, told: watch::Sender::new(false) }
    }

    /// Waits until all has been told once, or is known not to be had, and whoever is told of it has it. What can't be done
    /// without is waited for for as long as it takes: pods, and policies where they are followed.
    pub async fn all_told(&self) {
        // The sender is here: it does not go.
        let _ = self.told.subscribe().wait_for(|told| *told).await;
    }

    /// Which ones [`Board::all_told`] waits for, with the last thing that was wrong with each.
    pub fn untold(&self) -> Vec<(Resource, Option<String>)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = slots.iter().filter(|slot| !slot.is_told());
        untold.map(|slot| (slot.resource, slot.error.clone())).collect()
    }

    pub(crate) fn is_all_told(&self) -> bool {
        *self.told.borrow()
    }

    /// Whoever is told has all that there is.
    pub(crate) fn tell_all_told(&self) {
        self.told.send_replace(true);
    }

    /// All of them.
    pub fn status(&self) -> Vec<ResourceStatus> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().map(|slot| self.status_of(slot)).collect()
    }

    /// One of them, where it is followed.
    pub fn of(&self, resource: Resource) -> Option<ResourceStatus> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().find(|slot| slot.resource == resource).map(|slot| self.status_of(slot))
    }

    fn status_of(&self, slot: &Slot) -> ResourceStatus {
        let age = slot.heard.unwrap_or(self.begun).elapsed();
        let state = if slot.absent {
            State::Absent
        } else if !slot.synced {
            State::Waiting
        } else if age > self.stale {
            State::Stale
        } else if slot.trouble.is_some() {
            State::Failing
        } else {
            State::Synced
        };
        ResourceStatus {
            resource: slot.resource,
            state,
            age,
            objects: slot.objects,
            error: slot.error.clone(),
            failures: slot.failures,
            lists: slot.lists,
            malformed: slot.malformed,
        }
    }

    pub(crate) fn resources(&self) -> Vec<Resource> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|slot| slot.resource).collect()
    }

    fn with(&self, resource: Resource, change: impl FnOnce(&mut Slot)) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.resource == resource) {
            change(slot);
        }
    }

    /// The API server said something of it.
    pub(crate) fn heard(&self, resource: Resource, objects: usize) {
        self.with(resource, |slot| {
            (slot.heard, slot.objects) = (Some(Instant::now()), objects);
            (slot.trouble, slot.absent) = (None, false);
        });
    }

    /// All of it was told.
    pub(crate) fn synced(&self, resource: Resource, objects: usize) {
        self.heard(resource, objects);
        self.with(resource, |slot| (slot.synced, slot.lists) = (true, slot.lists + 1));
    }

    /// The API server does not know it.
    pub(crate) fn absent(&self, resource: Resource) {
        self.heard(resource, 0);
        self.with(resource, |slot| (slot.synced, slot.absent) = (false, true));
    }

    /// The watch broke, or the API server refuses it.
    pub(crate) fn failed(&self, resource: Resource, error: String, is_refused: bool) {
        self.with(resource, |slot| {
            slot.trouble = Some(if is_refused { Failure::Refused } else { Failure::Broken });
            (slot.failures, slot.error) = (slot.failures + 1, Some(error));
        });
    }

    /// An object can't be read.
    pub(crate) fn malformed(&self, resource: Resource, error: String) {
        self.with(resource, |slot| (slot.malformed, slot.error) = (slot.malformed + 1, Some(error)));
    }
}
