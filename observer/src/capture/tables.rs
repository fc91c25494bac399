//! The tables that tell the programs who is who: local addresses, service ports, watched namespaces, noise.

use std::collections::HashMap as StdHashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData};

use super::error::CaptureError;
use super::generation::Generation;
use super::kernel::btf::KernelFacts;
use super::{CaptureConfig, DEFAULT_IGNORED_REASONS, Inode};

const POD: u32 = 1;
const NODE: u32 = 2;

/// A map that holds what was last wanted of it.
#[derive(Debug)]
struct Synced<K: aya::Pod> {
    name: &'static str,
    map: HashMap<MapData, K, u32>,
    current: StdHashMap<K, u32>,
}

impl<K: aya::Pod + Eq + Hash> Synced<K> {
    fn new(name: &'static str, map: HashMap<MapData, K, u32>) -> Self {
        Self { name, map, current: StdHashMap::new() }
    }

    fn set(&mut self, wanted: StdHashMap<K, u32>) -> Result<(), CaptureError> {
        for key in self.current.keys().filter(|key| !wanted.contains_key(*key)) {
            // Gone already is as good.
            let _ = self.map.remove(key);
        }
        let mut result = Ok(());
        for (key, value) in wanted.iter().filter(|(key, value)| self.current.get(*key) != Some(*value)) {
            if let Err(error) = self.map.insert(key, value, 0) {
                result = Err(CaptureError::map(self.name)(error));
            }
        }
        self.current = wanted;
        result
    }
}

struct Inner {
    local: Synced<[u8; 16]>,
    /// The programs keep what they looked up in `local` until this has another number.
    generation: Arc<Generation>,
    services: Synced<u32>,
    watched: Synced<Inode>,
    ignored: Array<MapData, u32>,
    /// Given by the caller, and found by the link watcher.
    pods: Vec<IpAddr>,
    nodes: [Vec<IpAddr>; 2],
    namespaces: [Vec<Inode>; 2],
}

pub(super) struct Tables(Mutex<Inner>);

impl std::fmt::Debug for Tables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tables")
    }
}

impl Tables {
    pub(super) fn new(
        local: HashMap<MapData, [u8; 16], u32>,
        generation: Arc<Generation>,
        services: HashMap<MapData, u32, u32>,
        watched: HashMap<MapData, u32, u32>,
        ignored: Array<MapData, u32>,
    ) -> Self {
        Self(Mutex::new(Inner {
            local: Synced::new("LOCAL", local),
            generation,
            services: Synced::new("SERVICE_PORTS", services),
            watched: Synced::new("WATCHED", watched),
            ignored,
            pods: Vec::new(),
            nodes: Default::default(),
            namespaces: Default::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the tables whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_local_addresses(&self, pods: &[IpAddr], nodes: &[IpAddr]) -> Result<(), CaptureError> {
        let mut inner = self.lock();
        inner.pods = pods.to_vec();
        inner.nodes[0] = nodes.to_vec();
        inner.write_addresses()
    }

    pub(super) fn set_node_addresses(&self, nodes: &[IpAddr]) -> Result<(), CaptureError> {
        let mut inner = self.lock();
        inner.nodes[1] = nodes.to_vec();
        inner.write_addresses()
    }

    pub(super) fn set_service_ports(&self, ports: &[(u8, u16)]) -> Result<(), CaptureError> {
        let key = |(protocol, port): &(u8, u16)| (u32::from(*protocol) << 16 | u32::from(*port), 1);
        self.lock().services.set(ports.iter().map(key).collect())
    }

    pub(super) fn set_watched(&self, inodes: &[Inode]) -> Result<(), CaptureError> {
        let mut inner = self.lock();
        inner.namespaces[0] = inodes.to_vec();
        inner.write_namespaces()
    }

    pub(super) fn set_found_namespaces(&self, inodes: &[Inode]) -> Result<(), CaptureError> {
        let mut inner = self.lock();
        inner.namespaces[1] = inodes.to_vec();
        inner.write_namespaces()
    }

    /// Marks the reasons that are noise. A default name that this kernel doesn't have is no error.
    pub(super) fn ignore_reasons(
        &self,
        config: &CaptureConfig,
        facts: &KernelFacts,
    ) -> Result<(), CaptureError> {
        let mut inner = self.lock();
        for name in &config.ignored_reasons {
            match facts.drop_reason_number(name) {
                Some(number) if number < 256 => {
                    inner.ignored.set(number, 1, 0).map_err(CaptureError::map("IGNORED_REASONS"))?;
                }
                _ if DEFAULT_IGNORED_REASONS.contains(&name.as_str()) || facts.drop_reasons.is_empty() => {}
                _ => return Err(CaptureError::UnknownReason(name.clone())),
            }
        }
        Ok(())
    }
}

impl Inner {
    fn write_addresses(&mut self) -> Result<(), CaptureError> {
        let nodes = self.nodes.iter().flatten().map(|address| (bytes(*address), NODE));
        let pods = self.pods.iter().map(|address| (bytes(*address), POD));
        let wanted = nodes.chain(pods).collect();
        if self.local.current == wanted {
            return Ok(());
        }
        let written = self.local.set(wanted);
        written.and(self.generation.renew())
    }

    fn write_namespaces(&mut self) -> Result<(), CaptureError> {
        let wanted = self.namespaces.iter().flatten().map(|inode| (*inode, 1)).collect();
        self.watched.set(wanted)
    }
}

/// An address as the programs write it: IPv4 mapped into IPv6.
pub(super) fn bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
