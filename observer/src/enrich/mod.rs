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
pub mod labels;
pub mod local;
mod recent;
pub mod reserved;
pub mod source;
mod tables;
mod told;
pub mod workload;

pub use fill::Filler;

use crate::{
    decode::End,
    endpoint::{Endpoint, Service},
};
use ipcache::IpCache;
use recent::Recent;
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
pub struct Ends {
    /// Who sent it.
    pub source: Arc<Endpoint>,
    /// Who it is for.
    pub destination: Arc<Endpoint>,
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

    /// Names both ends; never fails, at worst with `reserved:unknown`.
    pub fn ends(&mut self, packet: &Packet) -> Ends {
        let (at_source, at_destination) =
            if packet.is_reply { (packet.frontend, None) } else { (None, packet.frontend) };
        let (source, source_service) = self.end(packet, packet.source, at_source);
        let (destination, destination_service) = self.end(packet, packet.destination, at_destination);
        Ends { source, destination, source_service, destination_service }
    }

    fn end(
        &mut self,
        packet: &Packet,
        end: Option<End>,
        frontend: Option<End>,
    ) -> (Arc<Endpoint>, Option<Arc<Service>>) {
        let Some(end) = end else { return (Arc::clone(&self.recent.cache().reserved().unknown), None) };
        let found = self.recent.find(end, packet.kernel_ns);
        let (endpoint, is_service) = (Arc::clone(&found.endpoint), found.is_service);
        let cache = self.recent.cache();
        let service = match frontend {
            Some(called) => cache.frontend(called.ip(), called.port(), packet.protocol),
            None if is_service => cache.service(end.ip(), end.port(), packet.protocol),
            None => None,
        };
        (endpoint, service)
    }
}
