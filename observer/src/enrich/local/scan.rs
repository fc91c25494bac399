//! Finds the network namespaces that have a link to this one, and what runs in them.

use super::{
    LocalError,
    cgroup::{self, Owner},
    netlink::Netlink,
};
use crate::enrich::source::Pod;
use rustix::fd::AsFd as _;
use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
};

/// Namespaces, at most.
pub(super) const MAX_NAMESPACES: usize = 4096;
/// Processes looked at, at most.
const MAX_PROCESSES: usize = 32_768;
/// Where `ip netns` and CNI plugins put names.
const NAMED: &str = "/run/netns";
/// CNI plugins name namespaces `cni-<uuid>`, which no user knows.
const MACHINE_NAMED: &str = "cni-";

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pods: Vec<Pod>,
    /// What could not be had, and why.
    pub(super) troubles: Vec<String>,
}

/// Tells one namespace from another while it lives.
type Inode = (u64, u64);
/// The addresses of namespaces; `None`: has no link to here, or is outside, so nothing more needs to be known of it.
pub(super) type Known = HashMap<Inode, Option<Vec<IpAddr>>>;

struct Namespace {
    ips: Vec<IpAddr>,
    name: Option<String>,
    /// The lowest number: mostly the oldest, a container's first process.
    pid: Option<u32>,
}

/// Namespaces that are not among those `outside` the node. Netlink is not asked for what is `known`.
pub(super) fn scan(
    netlink: &mut Netlink,
    outside: &HashSet<i32>,
    known: &mut Known,
) -> Result<Found, LocalError> {
    let mut found = Found::default();
    let mut ask = |path: &Path, inode| match known.get(&inode) {
        Some(known) => Ok(known.clone().map(Ok)),
        None => addresses(netlink, outside, path, inode),
    };
    // The thread's, not the process's: threads may differ.
    let own = "/proc/thread-self/ns/net";
    let own = inode(own).map_err(|source| LocalError::Proc { path: own.to_owned(), source })?;
    let mut seen: HashMap<Inode, Option<Namespace>> = HashMap::from([(own, None)]);

    let named = fs::read_dir(NAMED).into_iter().flatten().flatten();
    for entry in named.take(MAX_NAMESPACES) {
        let name = entry.file_name().to_string_lossy().into_owned();
        meet(&mut ask, &mut seen, &mut found, &entry.path(), (Some(name), None));
    }
    let processes = processes()?;
    if processes.len() >= MAX_PROCESSES {
        found.troubles.push(format!("only the first {MAX_PROCESSES} processes were looked at"));
    }
    for pid in processes {
        let path = format!("/proc/{pid}/ns/net");
        meet(&mut ask, &mut seen, &mut found, Path::new(&path), (None, Some(pid)));
    }
    if seen.len() >= MAX_NAMESPACES {
        found.troubles.push(format!("only the first {MAX_NAMESPACES} network namespaces were looked at"));
    }

    *known =
        seen.iter().map(|(inode, namespace)| (*inode, namespace.as_ref().map(|n| n.ips.clone()))).collect();
    for ((_, inode), namespace) in seen.into_iter().filter_map(|(inode, n)| Some((inode, n?))) {
        let (owner, command) = namespace.pid.map_or((None, None), whose);
        let Some(Described { kind, name, label }) =
            describe(namespace.name.as_deref(), owner.as_ref(), command.as_deref())
        else {
            continue;
        };
        found.pods.push(Pod {
            // The kernel uses inode numbers again.
            uid: format!("netns:{inode}:{label}"),
            namespace: kind.to_owned(),
            name: name.into(),
            ips: namespace.ips,
            local: true,
            labels: vec![label],
            ..Pod::default()
        });
    }
    Ok(found)
}

/// The addresses in a namespace, or why the kernel doesn't tell; `None` as in [`Known`].
type Asked = Option<io::Result<Vec<IpAddr>>>;

fn addresses(netlink: &mut Netlink, outside: &HashSet<i32>, path: &Path, inode: Inode) -> io::Result<Asked> {
    let file = File::open(path)?;
    // The process may have another namespace by now.
    let same = file.metadata().is_ok_and(|meta| (meta.dev(), meta.ino()) == inode);
    let nsid = if same { netlink.nsid(file.as_fd())? } else { None };
    // A look at hundreds of them shall hold up no flow where there is one CPU for both.
    thread::yield_now();
    // While the file is open: the id of one that is gone is soon another's, and so would be the addresses.
    Ok(nsid.filter(|nsid| !outside.contains(nsid)).map(|nsid| netlink.addresses(Some(nsid))))
}

/// Notes the namespace behind a path.
fn meet(
    ask: &mut impl FnMut(&Path, Inode) -> io::Result<Asked>,
    seen: &mut HashMap<Inode, Option<Namespace>>,
    found: &mut Found,
    path: &Path,
    (name, pid): (Option<String>, Option<u32>),
) {
    // Gone, or not ours to see: kernel threads and processes come and go while we look.
    let Ok(inode) = inode(path) else { return };
    if let Some(known) = seen.get_mut(&inode) {
        if let Some(known) = known {
            known.pid = known.pid.or(pid);
        }
        return;
    }
    if seen.len() >= MAX_NAMESPACES {
        return;
    }
    match ask(path, inode) {
        Ok(None) => {
            seen.insert(inode, None);
        }
        Ok(Some(Ok(ips))) => {
            seen.insert(inode, Some(Namespace { ips, name, pid }));
        }
        Ok(Some(Err(error))) => {
            let who = name.as_deref().unwrap_or("one without a name");
            found.troubles.push(format!("the kernel refuses the addresses of {who}: {error}"));
            seen.insert(inode, None);
        }
        // EINVAL: a plain file under /run/netns, left behind.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Without CAP_SYS_PTRACE: one line for all of them.
        Err(error) if pid.is_some() && error.kind() == io::ErrorKind::PermissionDenied => {
            found.troubles.push(format!("processes of other users may not be looked into: {error}"));
        }
        Err(error) => found.troubles.push(format!("{}: {error}", path.display())),
    }
}

/// What a user knows something by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Described {
    /// Stands for a namespace.
    pub(super) kind: &'static str,
    pub(super) name: String,
    label: String,
}

/// By what a process runs as; `None` if it is gone.
pub(super) fn describe_process(pid: u32) -> Option<Described> {
    let (owner, command) = whose(pid);
    describe(None, owner.as_ref(), command.as_deref())
}

/// The owner of a process's cgroup, and its command.
fn whose(pid: u32) -> (Option<Owner>, Option<String>) {
    (read(pid, "cgroup").as_deref().and_then(cgroup::owner), read(pid, "comm"))
}

/// `None` where nothing is known.
fn describe(name: Option<&str>, owner: Option<&Owner>, command: Option<&str>) -> Option<Described> {
    let known_name = name.filter(|name| !name.starts_with(MACHINE_NAMED));
    let (kind, name, label) = match (known_name, owner, command, name) {
        (Some(name), ..) | (None, None, None, Some(name)) => {
            ("netns", name.to_owned(), format!("netns:name={name}"))
        }
        // 12 digits are what container tools show and take.
        (_, Some(Owner::Container(id)), ..) => {
            ("container", id.chars().take(12).collect(), format!("container:id={id}"))
        }
        (_, Some(Owner::Unit(unit)), ..) => ("systemd", unit.clone(), format!("systemd:unit={unit}")),
        (_, None, Some(command), _) => ("process", command.to_owned(), format!("process:command={command}")),
        (None, None, None, None) => return None,
    };
    Some(Described { kind, name, label })
}

/// All processes, sorted.
pub(super) fn processes() -> Result<Vec<u32>, LocalError> {
    let folder =
        fs::read_dir("/proc").map_err(|source| LocalError::Proc { path: "/proc".to_owned(), source })?;
    let pid = |name: &OsStr| name.to_str()?.parse().ok();
    let pids = folder.flatten().filter_map(|entry| pid(&entry.file_name()));
    let mut pids: Vec<u32> = pids.take(MAX_PROCESSES).collect();
    pids.sort_unstable();
    Ok(pids)
}

fn inode(path: impl AsRef<Path>) -> io::Result<Inode> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// A small file of a process, without the line's end.
fn read(pid: u32, file: &str) -> Option<String> {
    let text = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    let text = String::from_utf8_lossy(&text).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_named_by_what_a_user_knows_it_by() {
        let container = Owner::Container("0123456789abcdef".to_owned());
        let unit = Owner::Unit("nginx.service".to_owned());
        let table = [
            ((Some("blue"), Some(&container), Some("sh")), Some(("netns", "blue", "netns:name=blue"))),
            (
                (Some("cni-7"), Some(&container), Some("pause")),
                Some(("container", "0123456789ab", "container:id=0123456789abcdef")),
            ),
            (
                (None, Some(&unit), Some("nginx")),
                Some(("systemd", "nginx.service", "systemd:unit=nginx.service")),
            ),
            ((None, None, Some("sleep")), Some(("process", "sleep", "process:command=sleep"))),
            ((Some("cni-7"), None, Some("sleep")), Some(("process", "sleep", "process:command=sleep"))),
            ((Some("cni-7"), None, None), Some(("netns", "cni-7", "netns:name=cni-7"))),
            ((None, None, None), None),
        ];
        for ((name, owner, command), expected) in table {
            let got = describe(name, owner, command);
            let got = got.as_ref().map(|got| (got.kind, got.name.as_str(), got.label.as_str()));
            assert_eq!(got, expected, "{name:?} {owner:?} {command:?}");
        }
    }
}
