//! What listens on the node itself, and whose it is: by container, systemd unit or command.
//!
//! The kernel tells the listening sockets (`sock_diag`), /proc the process that holds each. That search is done when a
//! socket is new or its process gone, and now and then, as a socket may be handed on. What the process is called is read
//! at each look.

use super::{
    LocalError,
    netlink::Netlink,
    scan::{self, Described},
};
use crate::enrich::source::{ServiceEntry, ServicePort, TargetPort};
use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Listening sockets, at most.
const MAX_LISTENERS: usize = 4096;
/// Files of one process that are looked at, at most.
const MAX_FILES: usize = 65_536;
/// How long a socket's owner is believed to be the same.
const BELIEVED: Duration = Duration::from_mins(1);
/// systemd holds the sockets of units that it starts on demand; another process with such a socket is the service.
const INIT: u32 = 1;

/// A socket that waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Listener {
    address: IpAddr,
    port: u16,
    protocol: u8,
    inode: u32,
}

/// The sockets that listen on the node, and whose they are.
#[derive(Debug)]
pub(super) struct Listeners {
    netlink: Netlink,
    /// Processes by a socket's inode; `None`: the kernel's own, or nobody's that /proc shows.
    owners: HashMap<u32, Option<u32>>,
    searched: Option<Instant>,
    /// Why some have none, for a daemon that lacks rights.
    refused: Option<String>,
}

impl Listeners {
    /// For the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let netlink = Netlink::connected(NETLINK_SOCK_DIAG)?;
        Ok(Self { netlink, owners: HashMap::new(), searched: None, refused: None })
    }

    /// Each as a service at the node's addresses, and what could not be had.
    pub(super) fn services(
        &mut self,
        own: &[IpAddr],
    ) -> Result<(Vec<ServiceEntry>, Vec<String>), LocalError> {
        let listeners = self.listening().map_err(LocalError::Listeners)?;
        let is_believed = self.searched.is_some_and(|at| at.elapsed() < BELIEVED);
        let mut names = self.names();
        let is_known = |listener: &Listener| match self.owners.get(&listener.inode) {
            Some(Some(pid)) => names.contains_key(pid),
            Some(None) => true,
            None => false,
        };
        if !is_believed || !listeners.iter().all(is_known) {
            self.search(&listeners)?;
            names = self.names();
        }
        let mut services: Vec<(u8, ServiceEntry)> = Vec::new();
        for listener in &listeners {
            let pid = self.owners.get(&listener.inode).copied().flatten();
            let Some(owner) = pid.and_then(|pid| names.get(&pid)) else { continue };
            let port = ServicePort {
                name: String::new(),
                port: listener.port,
                protocol: listener.protocol,
                target: TargetPort::Number(listener.port),
                node_port: None,
            };
            let (order, addresses) = reached_at(listener.address, own);
            let entry = ServiceEntry {
                namespace: owner.kind.to_owned(),
                name: owner.name.clone(),
                addresses,
                ports: vec![port],
                ..ServiceEntry::default()
            };
            services.push((order, entry));
        }
        // The last is right: a socket of one address gets what comes for it, not the one of all addresses.
        services.sort_by_key(|(order, _)| *order);
        let too_many = (listeners.len() >= MAX_LISTENERS)
            .then(|| format!("only the first {MAX_LISTENERS} listening sockets were looked at"));
        let troubles = too_many.into_iter().chain(self.refused.clone()).collect();
        Ok((services.into_iter().map(|(_, entry)| entry).collect(), troubles))
    }

    fn listening(&mut self) -> io::Result<BTreeSet<Listener>> {
        let mut found = BTreeSet::new();
        let clients = client_ports();
        // A UDP socket without a peer is closed, in TCP's words.
        for (protocol, states) in [(IPPROTO_TCP, StateFlags::LISTEN), (IPPROTO_UDP, StateFlags::CLOSE)] {
            sockets(&mut self.netlink, protocol, &states, |header| {
                let listener = Listener {
                    address: header.socket_id.source_address.to_canonical(),
                    port: header.socket_id.source_port,
                    protocol,
                    inode: header.inode,
                };
                let is_client = protocol == IPPROTO_UDP && clients.contains(&listener.port);
                let is_reached = listener.port != 0 && !listener.address.is_loopback();
                if is_reached && !is_client && found.len() < MAX_LISTENERS {
                    found.insert(listener);
                }
            })?;
        }
        Ok(found)
    }

    /// What the processes are called now, by their ids; none for one that is gone.
    fn names(&self) -> HashMap<u32, Described> {
        let pids: BTreeSet<u32> = self.owners.values().flatten().copied().collect();
        pids.into_iter().filter_map(|pid| Some((pid, scan::describe_process(pid)?))).collect()
    }

    /// Finds the process behind each socket.
    fn search(&mut self, listeners: &BTreeSet<Listener>) -> Result<(), LocalError> {
        self.owners = listeners.iter().map(|listener| (listener.inode, None)).collect();
        self.searched = Some(Instant::now());
        let mut processes = scan::processes()?;
        // Those before it in the order have a socket first.
        processes.sort_unstable_by_key(|pid| (*pid == INIT, *pid));
        let mut missing = self.owners.len();
        for pid in processes {
            let path = format!("/proc/{pid}/fd");
            let files = match fs::read_dir(&path) {
                Ok(files) => files,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    self.refused.get_or_insert(format!(
                        "{path}: {error}; local namespaces and what listens on the node have no names without \
                         CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
                    ));
                    continue;
                }
                // Gone.
                Err(_) => continue,
            };
            for file in files.flatten().take(MAX_FILES) {
                let Some(inode) =
                    fs::read_link(file.path()).ok().and_then(|target| socket_inode(target.to_str()?))
                else {
                    continue;
                };
                if let Some(owner @ None) = self.owners.get_mut(&inode) {
                    *owner = Some(pid);
                    missing -= 1;
                }
            }
            if missing == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Gives the sockets of a protocol that are in one of these states, of both families.
pub(super) fn sockets(
    netlink: &mut Netlink,
    protocol: u8,
    states: &StateFlags,
    mut each: impl FnMut(&InetResponseHeader),
) -> io::Result<()> {
    for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let extensions = ExtensionFlags::empty();
        let states = states.clone();
        let question = InetRequest { family, protocol, extensions, states, socket_id };
        netlink.ask(SockDiagMessage::InetRequest(question), NLM_F_DUMP, |answer| {
            if let SockDiagMessage::InetResponse(answer) = answer {
                each(&answer.header);
            }
        })?;
    }
    Ok(())
}

/// `socket:[1234]`, as a process's file reads.
fn socket_inode(target: &str) -> Option<u32> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Where a socket of this address is reached, and how exact that is.
fn reached_at(address: IpAddr, own: &[IpAddr]) -> (u8, Vec<IpAddr>) {
    match address {
        // Also IPv4's, unless the socket is for IPv6 only; then one for IPv4 comes after it.
        IpAddr::V6(ip) if ip.is_unspecified() => (0, own.to_vec()),
        IpAddr::V4(ip) if ip.is_unspecified() => (1, own.iter().copied().filter(IpAddr::is_ipv4).collect()),
        _ => (2, vec![address]),
    }
}

/// The ports that the kernel gives to who asks for none: clients, mostly.
fn client_ports() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        // The kernel's own default.
        _ => 32_768..=60_999,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_from_other_files() {
        for (target, inode) in [
            ("socket:[1234]", Some(1234)),
            ("socket:[0]", Some(0)),
            ("pipe:[1234]", None),
            ("/tmp/socket:[1]", None),
            ("socket:[x]", None),
            ("socket:[99999999999]", None),
            ("", None),
        ] {
            assert_eq!(socket_inode(target), inode, "{target}");
        }
    }

    #[test]
    fn a_socket_is_reached_where_its_address_says() {
        let own: Vec<IpAddr> = ["10.0.0.1", "fd00::1"].map(|ip| ip.parse().unwrap()).into();
        for (address, order, reached) in [
            ("::", 0, &own[..]),
            ("0.0.0.0", 1, &own[..1]),
            ("10.0.0.1", 2, &own[..1]),
            ("fd00::1", 2, &own[1..]),
        ] {
            assert_eq!(reached_at(address.parse().unwrap(), &own), (order, reached.to_vec()), "{address}");
        }
    }
}
