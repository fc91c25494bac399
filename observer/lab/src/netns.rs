//! Network namespaces by name: entering one with a thread, running a tool in one.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{LabError, Result};

/// Where `ip netns` keeps its namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// The file of a named namespace.
pub fn path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Moves the calling thread, and only it, into a namespace.
pub fn enter(name: &str) -> Result<()> {
    let what = || format!("entering network namespace {name}");
    let file = File::open(path(name)).map_err(LabError::system(what()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| LabError::system(what())(errno.into()))
}

/// Runs `work` on a thread of its own inside of a namespace, and waits for it.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            enter(name)?;
            work()
        });
        // A panic of `work` is passed on, as if it had run on this thread.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A command that runs `program` in the namespace of `file`. It uses nsenter, not `ip netns exec`, which would remount
/// /sys and so hide BTF, tracefs and bpffs.
pub fn command_in(file: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", file.display())).arg("--").arg(program);
    command
}

/// Feeds `script` to a tool in the calling thread's namespace; `place` is for the error text.
pub(crate) fn feed(tool: &'static str, arguments: &[&str], script: &str, place: &str) -> Result<()> {
    let what = || format!("running {tool}");
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::system(what()))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(LabError::system(what()))?;
    if output.status.success() {
        return written.map_err(LabError::system(what()));
    }
    let message = String::from_utf8_lossy(&output.stderr).lines().take(2).collect::<Vec<_>>().join(" ");
    Err(LabError::Tool { tool, place: place.into(), message })
}

/// Writes sysctls of the calling thread's namespace; names a kernel lacks are skipped (`optional`) or an error.
pub(crate) fn sysctl(name: &str, value: &str, optional: bool) -> Result<()> {
    match std::fs::write(format!("/proc/sys/net/{name}"), value) {
        Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(LabError::system(format!("setting net/{name} to {value}"))),
    }
}
