//! Processes as container runtimes, systemd and users start them: in cgroups, and in network namespaces without a name.

use crate::support::late::until;
use observer_lab::{Lab, links::wait_ready};
use rustix::{
    net::{self, AddressFamily, SocketType},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Cgroups of the test's own; gone with this value, whose processes must have ended.
pub(crate) struct Cgroups(PathBuf);

impl Cgroups {
    /// `None`, having said why, where none can be made.
    pub(crate) fn make(test: &str, name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let root = unified.and_then(|line| line.split(' ').nth(4)).map(|mount| Path::new(mount).join(name));
        let problem = match root.as_ref().map(fs::create_dir) {
            Some(Ok(())) => return root.map(Self),
            Some(Err(error)) => format!("{root:?}: {error}"),
            None => "no cgroup2 is mounted".to_owned(),
        };
        assert!(std::env::var_os("CI_NO_SKIP").is_none(), "SKIP: {test}: {problem}");
        eprintln!("SKIP: {test}: {problem}");
        None
    }

    /// Moves a process into the cgroup at `path` below the test's own.
    pub(crate) fn put(&self, pid: u32, path: &str) {
        let folder = self.0.join(path);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        fn remove(folder: &Path) -> io::Result<()> {
            for entry in fs::read_dir(folder)?.flatten() {
                if entry.file_type()?.is_dir() {
                    remove(&entry.path())?;
                }
            }
            fs::remove_dir(folder)
        }
        // What is left shows in the next run's name clash, and a panic here would hide the test's own.
        if let Err(error) = remove(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// A process that does nothing; ends with this value.
pub(crate) struct Idle(Child);

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Idle {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A process that holds a socket.
    pub(crate) fn holding(socket: impl Into<OwnedFd>) -> Self {
        // `tail -f` of nothing waits for ever.
        let mut tail = Command::new("tail");
        tail.args(["-f", "/dev/null"]).stdin(Stdio::from(socket.into())).stdout(Stdio::null());
        Self(tail.spawn().unwrap()).running("tail")
    }

    /// A process that holds a TCP socket in this cgroup, and listens only then.
    pub(crate) fn listening(address: SocketAddr, cgroups: &Cgroups, cgroup: &str) -> Self {
        let domain = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket(domain, SocketType::STREAM, None).unwrap();
        net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        net::bind(&socket, &address).unwrap();
        let holder = Self::holding(socket.try_clone().unwrap());
        cgroups.put(holder.pid(), cgroup);
        // Nobody accepts: connections wait here.
        net::listen(&socket, 1024).unwrap();
        holder
    }

    /// A shell's script in a network namespace without a name; it must end as the command `name`.
    pub(crate) fn in_namespace(script: &str, name: &str) -> Self {
        let mut shell = Command::new("unshare");
        shell.args(["-n", "sh", "-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
        Self(shell.spawn().unwrap()).running(name)
    }

    fn running(self, name: &str) -> Self {
        until("the process runs its command", || (comm(self.pid()).as_deref() == Some(name)).then_some(()));
        self
    }

    /// Its network namespace.
    pub(crate) fn netns(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.pid()).into()
    }

    /// Links it to the node; `number` makes its addresses, see [`addresses`].
    pub(crate) fn link(&self, lab: &Lab, number: u8) {
        let node = format!("--net={}", lab.node_netns("n1").display());
        let inside = format!("--net={}", self.netns().display());
        ip(&node, &format!("link add plain{number} type veth peer name eth0 netns {}", self.pid()));
        for (place, link, end) in [(&node, format!("plain{number}"), 1), (&inside, "eth0".to_owned(), 2)] {
            let [v4, v6] = addresses(number, end);
            ip(place, &format!("addr add {v4}/24 dev {link}"));
            ip(place, &format!("addr add {v6}/64 dev {link} nodad"));
            ip(place, &format!("link set {link} up"));
        }
        for netns in [lab.node_netns("n1"), self.netns()] {
            wait_ready(netns.to_str().unwrap()).unwrap();
        }
    }
}

/// IPv4 and IPv6 of the node's end (1) and the namespace's (2).
pub(crate) fn addresses(number: u8, end: u8) -> [IpAddr; 2] {
    [format!("10.250.{number}.{end}"), format!("fd00:250:{number}::{end}")].map(|text| text.parse().unwrap())
}

/// One datagram of each family from the node, to a port where nobody answers.
pub(crate) fn poke(lab: &Lab, number: u8) {
    inside(&lab.node_netns("n1"), || {
        for (from, to) in addresses(number, 1).into_iter().zip(addresses(number, 2)) {
            UdpSocket::bind((from, 0)).unwrap().send_to(b"hello", (to, 9)).unwrap();
        }
    });
}

/// Runs `work` in a network namespace.
pub(crate) fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(netns).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub(crate) fn comm(pid: u32) -> Option<String> {
    Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned())
}

/// Whether the node has a link of this name.
pub(crate) fn has_link(lab: &Lab, name: &str) -> bool {
    let output = lab.command_in("n1", "ip").args(["link", "show", name]).output().unwrap();
    output.status.success()
}

fn ip(place: &str, arguments: &str) {
    let status =
        Command::new("nsenter").arg(place).args(["--", "ip"]).args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}
