//! Which links there are and what stands behind them; attaching to those that matter, as they come and go.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink_sys::Socket;
use observer_ebpf::link_kind;
use observer_ebpf::proxy::LinkWay;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::attach::{Attached, Attacher, Keeper};
use super::classify::classify;
use super::counters::Shared;
use super::error::CaptureError;
use super::tables::Tables;
use super::{CaptureConfig, Glob, Inode, netlink};

/// How often links are looked at without a notification: namespaces get their names, and programs are taken off their
/// hooks, without one.
const LOOK: Duration = Duration::from_secs(3);
// Users are promised that programs are on again within 5 s.
const _: () = assert!(LOOK.as_secs() < 5);
/// While notifications never end, a look's rest is this many times its own length: no more than a quarter of one CPU.
const REST: u32 = 3;
/// The longest rest: a new link is attached to within a second.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// What stands behind a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkKind {
    /// A pod, or any other network namespace at the far end of a veth.
    Pod,
    /// The outside network.
    Uplink,
    /// Other nodes, through an overlay.
    Tunnel,
    /// A bridge of pods alone, through which packets come to the proxy; none is told of there.
    Bridge,
}

impl LinkKind {
    pub(super) fn number(self) -> u32 {
        u32::from(match self {
            Self::Pod => link_kind::POD,
            Self::Uplink => link_kind::UPLINK,
            Self::Tunnel => link_kind::TUNNEL,
            Self::Bridge => link_kind::BRIDGE,
        })
    }
}

/// A link that the programs are attached to, or should be; a recording leaves out how they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its index in the node's namespace.
    pub ifindex: u32,
    /// Its name there.
    pub name: String,
    /// What stands behind it.
    pub kind: LinkKind,
    /// Whether its frames have an Ethernet header.
    pub ethernet: bool,
    /// Id of the namespace at the far end.
    pub peer_nsid: Option<i32>,
    /// Inode number of that namespace, where something holds it that can be found.
    pub peer_netns: Option<u32>,
    /// How packets come from there to the proxy.
    #[serde(skip)]
    pub way: LinkWay,
    /// `tcx` or `clsact`; empty where `error` is set.
    #[serde(skip)]
    pub attached_by: &'static str,
    /// Programs of others on ingress and egress. They run first; ours is the last and changes nothing.
    #[serde(skip)]
    pub chained: [usize; 2],
    /// Why it could not be attached to.
    pub error: Option<String>,
    /// How often the programs were found taken off, or never there, and were put on.
    #[serde(skip)]
    pub repairs: u32,
}

/// The links that matter, and the node's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTable {
    /// By index, ascending.
    pub links: Vec<Link>,
    /// Names of the links that are left alone.
    #[serde(skip)]
    pub others: Vec<String>,
    /// Addresses of all links of the node, loopback's left out.
    pub node_addresses: Vec<IpAddr>,
    /// Inode number of the node's own network namespace.
    pub netns: u32,
}

impl LinkTable {
    /// The link of this index.
    pub fn get(&self, ifindex: u32) -> Option<&Link> {
        let at = self.links.binary_search_by_key(&ifindex, |link| link.ifindex).ok()?;
        self.links.get(at)
    }

    /// One line for the log where there is no pod link to attach to.
    pub fn no_pod_link(&self) -> Option<String> {
        if self.links.iter().any(|link| link.kind == LinkKind::Pod) {
            return None;
        }
        let names: Vec<&str> = self
            .links
            .iter()
            .map(|link| link.name.as_str())
            .chain(self.others.iter().map(String::as_str))
            .collect();
        Some(format!(
            "no pod link found among {}: waiting for one; name others with --interface",
            if names.is_empty() { "no links".to_owned() } else { names.join(", ") }
        ))
    }
}

/// The thread that watches links.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Closed to end the thread.
    end: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Attaches to the links that are there, then goes on in a thread of its own.
    pub(super) fn start(
        keeper: Keeper,
        shared: Arc<Shared>,
        tables: Arc<Tables>,
        config: &CaptureConfig,
    ) -> Result<Self, CaptureError> {
        let socket = netlink::notifications().map_err(CaptureError::system("netlink notifications"))?;
        let (end, ended) = UnixStream::pair().map_err(CaptureError::system("a socket pair"))?;
        let mut state = State {
            keeper,
            shared,
            tables,
            globs: config.interfaces.clone(),
            with_bridges: config.judge,
            attached: BTreeMap::new(),
        };
        state.scan(false).map_err(CaptureError::system("listing links by netlink"))?;
        if let Some(Err(error)) = state.keeper.attacher().as_mut().map(Attacher::settle) {
            tracing::error!("attachments that an earlier daemon kept are still there: {error}");
        }
        let run = move || {
            let mut looked = Instant::now();
            let mut rest = Duration::ZERO;
            // What comes while it rests is looked at together.
            while !has_ended(&ended, None, rest)
                && !has_ended(&ended, Some(&socket), LOOK.saturating_sub(looked.elapsed()))
            {
                let start = Instant::now();
                let changes = netlink::changes(&socket);
                state.forget(&changes.deleted);
                let repair = changes.overrun || looked.elapsed() >= LOOK;
                if repair {
                    looked = start;
                }
                if let Err(error) = state.scan(repair) {
                    tracing::warn!(%error, "links could not be listed");
                }
                rest = (start.elapsed() * REST).min(LONGEST_REST);
            }
            // What isn't kept goes, the tracing programs too.
            state.keeper.attacher().take();
        };
        let thread = std::thread::Builder::new().name("links".into()).spawn(run);
        let thread = thread.map_err(CaptureError::system("starting a thread"))?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }

    /// Detaches everything.
    pub(super) fn stop(&mut self) {
        self.end = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the link thread failed");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for the end, or else for `socket` to be readable, or else for the time to be up; tells whether it is the end.
fn has_ended(ended: &UnixStream, socket: Option<&Socket>, timeout: Duration) -> bool {
    let mut fds = vec![PollFd::new(ended, PollFlags::IN | PollFlags::HUP)];
    fds.extend(socket.map(|socket| PollFd::new(socket, PollFlags::IN)));
    let woken = poll(&mut fds, Timespec::try_from(timeout).ok().as_ref());
    woken.is_ok() && !fds[0].revents().is_empty()
}

struct State {
    keeper: Keeper,
    shared: Arc<Shared>,
    tables: Arc<Tables>,
    globs: Vec<Glob>,
    with_bridges: bool,
    attached: BTreeMap<u32, Link>,
}

impl State {
    fn scan(&mut self, repair: bool) -> std::io::Result<()> {
        let addresses = netlink::addresses()?;
        let default_routes = netlink::default_route_links()?;
        let (wanted, others) =
            classify(&netlink::links()?, &addresses, &default_routes, &self.globs, self.with_bridges);
        let kept = |link: &Link| {
            let at = wanted.binary_search_by_key(&link.ifindex, |other| other.ifindex);
            at.is_ok_and(|at| same(link, &wanted[at]))
        };
        let gone: Vec<u32> =
            self.attached.values().filter(|link| !kept(link)).map(|link| link.ifindex).collect();
        self.forget(&gone);
        let new_peers = wanted.iter().any(|link| !self.attached.contains_key(&link.ifindex));
        let unknown =
            self.attached.values().any(|link| link.peer_nsid.is_some() && link.peer_netns.is_none());
        let namespaces = if new_peers || unknown { netlink::namespaces() } else { HashMap::new() };
        for mut link in wanted {
            if let Some(old) = self.attached.get_mut(&link.ifindex) {
                old.name = link.name;
                old.peer_netns = old.peer_netns.or_else(|| namespaces.get(&link.peer_nsid?).copied());
                continue;
            }
            link.peer_netns = link.peer_nsid.and_then(|id| namespaces.get(&id).copied());
            self.attach(link);
        }
        if repair {
            self.repair();
        }
        self.publish(&addresses, others);
        Ok(())
    }

    fn forget(&mut self, links: &[u32]) {
        let mut attacher = self.keeper.attacher();
        for ifindex in links.iter().filter(|ifindex| self.attached.remove(ifindex).is_some()) {
            if let Some(attacher) = attacher.as_mut() {
                attacher.detach(*ifindex);
            }
            self.shared.remove_link(*ifindex);
        }
    }

    /// Puts the programs on their links again where somebody took them off, and tries anew where it failed before.
    fn repair(&mut self) {
        let mut owner = self.keeper.attacher();
        let Some(owner) = owner.as_mut() else { return };
        let Some(programs) = owner.program_ids() else { return };
        for link in self.attached.values_mut() {
            let hooks = owner.hooks(link.ifindex, &link.name, programs);
            if let Some(hooks) = hooks.filter(|hooks| hooks.ours) {
                link.chained = hooks.others;
                continue;
            }
            // What the kernel doesn't tell is taken to be in order.
            if hooks.is_none() && link.error.is_none() {
                continue;
            }
            // Both, for what is there would else run twice for a while.
            owner.detach(link.ifindex);
            let known = if link.error.is_some() { self.shared.add_link(link) } else { Ok(()) };
            match known.and_then(|()| owner.attach(link.ifindex, &link.name)) {
                Ok(attached) => {
                    // Once a link: whoever takes them off again and again shall not fill the log.
                    if link.repairs == 0 {
                        tracing::warn!(link = link.name, "the programs were off this link; put on again");
                    }
                    link.repairs = link.repairs.saturating_add(1);
                    (link.attached_by, link.chained, link.error) = (attached.by, attached.chained, None);
                }
                Err(error) => {
                    if link.error.is_none() {
                        tracing::warn!(link = link.name, error, "the programs were taken off; cannot attach");
                        self.shared.remove_link(link.ifindex);
                        link.attached_by = "";
                    }
                    link.error = Some(error);
                }
            }
        }
    }

    fn attach(&mut self, mut link: Link) {
        let began = Instant::now();
        // Known before the first packet can come.
        let result = self.shared.add_link(&link).and_then(|()| {
            let mut attacher = self.keeper.attacher();
            attacher.as_mut().map_or(Ok(Attached::default()), |it| it.attach(link.ifindex, &link.name))
        });
        match result {
            Ok(attached) => {
                link.attached_by = attached.by;
                link.chained = attached.chained;
                self.shared.replaced(attached.replaced);
                self.shared.note_attached(began.elapsed());
            }
            Err(error) => {
                tracing::warn!(link = link.name, error, "cannot attach");
                self.shared.remove_link(link.ifindex);
                link.error = Some(error);
            }
        }
        self.attached.insert(link.ifindex, link);
    }

    fn publish(&self, addresses: &[(u32, IpAddr)], others: Vec<String>) {
        let netns = own_namespace();
        let links: Vec<Link> = self.attached.values().cloned().collect();
        let node_addresses = netlink::own(addresses);
        // An uplink may be a veth too; what is dropped behind it is no business of this node.
        let pods = links.iter().filter(|link| link.kind == LinkKind::Pod);
        let peers = pods.filter_map(|link| link.peer_netns);
        let watched: Vec<Inode> = peers.chain([netns]).collect();
        let tables = self.tables.set_node_addresses(&node_addresses);
        if let Err(error) = tables.and_then(|()| self.tables.set_found_namespaces(&watched)) {
            tracing::warn!(%error, "the programs don't know all local addresses");
        }
        self.shared.links.store(Arc::new(LinkTable { links, others, node_addresses, netns }));
    }
}

/// Whether a link is still the one that was attached to, be it under another name.
fn same(old: &Link, new: &Link) -> bool {
    (old.ifindex, old.kind, old.peer_nsid, old.way) == (new.ifindex, new.kind, new.peer_nsid, new.way)
}

pub(super) fn own_namespace() -> Inode {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino() as u32)
}
