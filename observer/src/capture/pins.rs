//! What stays in the kernel when the daemon goes: its links, and the tables of connections, as files of the BPF file system.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::MapData;
use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use super::Inode;
use super::error::chain;
use super::links::own_namespace;

const BPFFS: &str = "/sys/fs/bpf";
/// Of linux/magic.h.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// The folder of all daemons; each has one in it, named by the inode of its network namespace.
const OURS: &str = "observer";
/// To be raised with every change of what stands in the tables that are kept: those of another version are not gone on with.
const ABI: u32 = 5;
/// The tables that the next daemon's programs go on with.
pub(super) const TABLES: [&str; 2] = ["SHORT_FLOW_TABLE", "FLOW_TABLE"];
/// How the name of a link's file begins. It goes on with the link's index and the side; a dot is not allowed.
const LINK: &str = "link-";

/// The files of one network namespace, whether there are any or not.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    folder: PathBuf,
}

/// A link that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PinnedAt {
    pub(super) ifindex: u32,
    pub(super) path: PathBuf,
}

impl Pins {
    /// Those of the calling thread's network namespace.
    pub(super) fn here() -> Self {
        Self::of(own_namespace())
    }

    fn of(namespace: Inode) -> Self {
        Self { folder: Path::new(BPFFS).join(OURS).join(namespace.to_string()) }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the folders, and mounts the file system where it isn't.
    fn make(&self) -> Result<(), String> {
        let is_mounted = statfs(BPFFS).is_ok_and(|found| found.f_type as u32 == BPF_FS_MAGIC);
        if !is_mounted {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
            mount("bpffs", BPFFS, "bpf", flags, None)
                .map_err(|error| format!("cannot mount the BPF file system at {BPFFS}: {error}"))?;
        }
        let tables = self.tables();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&tables);
        made.map_err(|error| format!("cannot make the folder {}: {error}", tables.display()))
    }

    /// Whether anything is kept.
    pub(super) fn is_there(&self) -> bool {
        self.folder.exists()
    }

    /// Makes the folders, and keeps tables there in place of those that are kept.
    pub(super) fn keep(&self, tables: &[(&'static str, MapData)]) -> Result<(), String> {
        self.make()?;
        for (name, table) in tables {
            let path = self.table(name);
            let removed = remove_file(&path).map_err(|error| chain(&error));
            let pinned = removed.and_then(|()| table.pin(&path).map_err(|error| chain(&error)));
            pinned.map_err(|error| format!("cannot keep it as {}: {error}", path.display()))?;
        }
        Ok(())
    }

    fn tables(&self) -> PathBuf {
        self.folder.join(format!("tables-v{ABI}"))
    }

    /// The tables that are kept.
    pub(super) fn tables_there(&self) -> Vec<(&'static str, PathBuf)> {
        let all = TABLES.map(|name| (name, self.table(name)));
        all.into_iter().filter(|(_, path)| path.exists()).collect()
    }

    /// Where a table is, or would be.
    pub(super) fn table(&self, name: &str) -> PathBuf {
        self.tables().join(name)
    }

    /// Where one of the two attachments to a link is, or would be; `side` is `ingress` or `egress`.
    pub(super) fn link(&self, ifindex: u32, side: &str) -> PathBuf {
        self.folder.join(format!("{LINK}{ifindex}-{side}"))
    }

    /// All links that are kept.
    pub(super) fn links(&self) -> Vec<PinnedAt> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut links: Vec<PinnedAt> = files
            .filter_map(|file| {
                let name = file.file_name();
                let (ifindex, _) = name.to_str()?.strip_prefix(LINK)?.split_once('-')?;
                Some(PinnedAt { ifindex: ifindex.parse().ok()?, path: file.path() })
            })
            .collect();
        links.sort_unstable();
        links
    }

    /// Takes all files away, and with them what nothing else holds.
    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Takes a file away, if it is there.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
