//! Who stands behind an address: identities, the IP cache, and the sources that fill it.
//!
//! ```text
//! inventory file ─┐
//! Kubernetes API ─┼─> Source threads ─> IpCache (writer) ─> lookups by address and time ─> Enricher
//! local netns    ─┘
//! ```

mod claims;
mod fill;
pub mod identity;
pub mod inventory;
pub mod ipcache;
pub mod kubernetes;
mod learnt;
pub mod local;
mod node_labels;
mod recent;
pub mod reserved;
pub(crate) mod resolved;
pub mod source;
mod tables;
mod told;

pub use fill::Filler;
pub use node_labels::{LabelsNow, NodeLabels};

use crate::{
    decode::End,
    endpoint::{Endpoint, Service},
};
use ipcache::IpCache;
use recent::Recent;
use resolved::Resolved;
use std::sync::Arc;

/// Names the ends of packets, for one thread: it remembers what it was asked lately.
#[derive(Debug)]
pub struct Enricher {
    recent: Recent,
}

/// What must be known of a packet to name its ends. Addresses are those that the client should see: the backend's, where
/// a service address was translated.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The packet's own time, kernel nanoseconds.
    pub kernel_ns: u64,
    /// Source address and port.
    pub source: Option<End>,
    /// Destination address and port.
    pub destination: Option<End>,
    /// IANA protocol number, 0 where unknown.
    pub protocol: u8,
    /// The service address and port that the client called, where it was translated.
    pub frontend: Option<End>,
    /// Whether it goes back to the opener: then the frontend stands for the source.
    pub is_reply: bool,
}

/// The names of a packet's ends.
#[derive(Clone, Debug)]
pub struct Ends<'a> {
    /// Who sent it.
    pub source: &'a Arc<Endpoint>,
    /// Who it is for.
    pub destination: &'a Arc<Endpoint>,
    /// The service at the source.
    pub source_service: Option<Arc<Service>>,
    /// The service at the destination.
    pub destination_service: Option<Arc<Service>>,
}

impl Enricher {
    /// An enricher that looks up in this cache.
    pub fn new(cache: Arc<IpCache>) -> Self {
        Self { recent: Recent::new(cache) }
    }

    /// Where names of DNS are learnt for policies.
    fn resolved(&self) -> &Arc<Resolved> {
        self.recent.cache().resolved()
    }

    /// Names both ends; never fails, at worst with `reserved:unknown`.
    #[inline]
    pub fn ends(&mut self, packet: &Packet) -> Ends<'_> {
        let (found, cache) = self.recent.find([packet.source, packet.destination], packet.kernel_ns);
        let [is_service, is_service_to] = found.map(|found| found.is_some_and(|found| found.is_service));
        let (from, to) = if packet.is_reply { (packet.frontend, None) } else { (None, packet.frontend) };
        let [source, destination] = found.map(|found| found.map(|found| &found.endpoint));
        let unknown = &cache.reserved().unknown;
        let service = |end, frontend, is_service| service(cache, packet.protocol, end, frontend, is_service);
        Ends {
            source: source.unwrap_or(unknown),
            destination: destination.unwrap_or(unknown),
            source_service: service(packet.source, from, is_service),
            destination_service: service(packet.destination, to, is_service_to),
        }
    }
}

#[inline]
fn service(
    cache: &IpCache,
    protocol: u8,
    end: Option<End>,
    frontend: Option<End>,
    is_service: bool,
) -> Option<Arc<Service>> {
    let end = end?;
    match frontend {
        Some(called) => cache.frontend(called.ip(), called.port(), protocol),
        None if is_service => cache.service(end.ip(), end.port(), protocol),
        None => None,
    }
}
