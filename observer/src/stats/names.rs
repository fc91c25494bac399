//! How ends are named in statistics: by what outlives a pod. A name is found by its end's number, and compared by its hash:
//! of 64 bits, that two names share one is less likely than a fault of the machine.

use super::table::Row;
use crate::endpoint::{Endpoint, Text};
use hashbrown::DefaultHashBuilder;
use std::{
    hash::{BuildHasher as _, Hash, Hasher},
    num::NonZeroU64,
    sync::Arc,
};

/// Ends whose names are remembered, a power of two; another's in the same place is made anew.
const REMEMBERED: usize = 4096;

/// A name with its hash.
#[derive(Clone, Debug)]
pub struct Name {
    pub(super) id: u64,
    /// As it is shown.
    pub text: Arc<str>,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl Default for Name {
    fn default() -> Self {
        Self { id: 0, text: Arc::from("") }
    }
}

/// The names of the ends of late.
#[derive(Debug)]
pub(super) struct Names {
    hasher: DefaultHashBuilder,
    places: Box<[Named]>,
}

/// An end by its number; 0 is no end's.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    serial: u64,
    pub(super) name: Name,
    /// Its row among the talkers, as of which generation of the table.
    pub(super) talker: (u64, Row),
}

impl Default for Names {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), places: vec![Named::default(); REMEMBERED].into() }
    }
}

impl Names {
    /// The end of this number; `endpoint` is looked at where it is not known.
    #[inline]
    pub(super) fn end(&mut self, serial: NonZeroU64, endpoint: &Endpoint) -> &mut Named {
        let serial = serial.get();
        let named = &mut self.places[serial as usize & (REMEMBERED - 1)];
        if named.serial != serial {
            let text = of(endpoint);
            let name = Name { id: self.hasher.hash_one(text.as_str()), text: text.into() };
            *named = Named { serial, name, talker: (0, None) };
        }
        named
    }

    /// The hash of what is no end's name.
    pub(super) fn id(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of)
    }
}

/// The workload as `namespace/name`; without one the pod; else the reserved name or the CIDR.
fn of(endpoint: &Endpoint) -> String {
    let workload = endpoint.workloads.first().map(|workload| workload.name.as_str());
    match workload.unwrap_or(&endpoint.pod_name) {
        "" => reserved(&endpoint.labels),
        name if endpoint.namespace.is_empty() => name.to_owned(),
        name => format!("{}/{name}", endpoint.namespace),
    }
}

fn reserved(labels: &[Text]) -> String {
    let cidr = labels.iter().find(|label| label.starts_with("cidr:"));
    let reserved = || labels.iter().find_map(|label| label.strip_prefix("reserved:"));
    cidr.map(|label| &**label).or_else(reserved).unwrap_or("unknown").to_owned()
}

/// The name of an IANA protocol number; empty for 0, which is not IP.
pub fn protocol(number: u8) -> String {
    match number {
        0 => String::new(),
        1 => "ICMPv4".to_owned(),
        2 => "IGMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        112 => "VRRP".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}
