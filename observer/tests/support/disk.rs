//! A daemon that has a small disk of its own to write to.

use super::Daemon;
use std::{path::Path, process::Command};
use tempfile::TempDir;

/// The disk is a tmpfs in a mount namespace that only the daemon is in.
pub(crate) struct Disk {
    pub(crate) daemon: Daemon,
    pub(crate) folder: TempDir,
}

impl Disk {
    /// With these options of tmpfs; `daemon` makes the command for a folder on it.
    pub(crate) fn mount(options: &str, daemon: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = "mount -t tmpfs -o \"$1\" none \"$2\" || exit 99; shift 2; exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, "sh", options]).arg(folder.path());
        let daemon = daemon(folder.path());
        command.arg(daemon.get_program()).args(daemon.get_args());
        Self { daemon: Daemon::spawn(command, tempfile::tempdir().unwrap()), folder }
    }

    pub(crate) fn remount(&self, options: &str) {
        let pid = self.daemon.pid().as_raw_nonzero().to_string();
        let options = format!("remount,{options}");
        let mut command = Command::new("nsenter");
        command.args(["-t", &pid, "-m", "mount", "-o", &options]).arg(self.folder.path());
        assert!(command.status().unwrap().success());
    }
}
