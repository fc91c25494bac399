//! Files of flows: what they hold, and what becomes of them on a disk that takes nothing.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_proto::{
    control::counter::Kind,
    json,
    observer::{ExportEvent, GetFlowsRequest, export_event::ResponseTypes},
};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use support::{Daemon, OBSERVER, PATIENCE, can_run, disk::Disk};

/// A recording's flows, served and exported. What plays it needs no rights.
fn replay(args: &[&str]) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/events/demo.rec");
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(file).args(["--speed", "max"]).args(args);
    command
}

/// What the server has, as lines.
fn served(daemon: &Daemon) -> String {
    daemon.log_line("replayed ");
    let request = GetFlowsRequest { number: u64::MAX, ..GetFlowsRequest::default() };
    let responses = daemon.responses(request);
    responses.iter().map(|response| json::line(response).unwrap() + "\n").collect()
}

fn until<T>(what: &str, daemon: &Daemon, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: it did not come; log:\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A counter of the exporter that flags describe.
fn count(daemon: &Daemon, kind: Kind, cause: &str) -> u64 {
    let status = daemon.capture_status();
    let counter = status
        .counters
        .iter()
        .find(|counter| counter.stage == "export static" && counter.kind() == kind && counter.cause == cause);
    counter.map_or(0, |counter| counter.value)
}

#[test]
fn a_file_and_standard_output_have_what_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (file, stdout) = (dir.path().join("logs/events.log"), dir.path().join("stdout"));
    let config = dir.path().join("flowlogs.yaml");
    fs::write(&config, "flowLogs: [{name: out, filePath: stdout}]").unwrap();
    let args =
        ["--export-file-path", file.to_str().unwrap(), "--flowlogs-config-path", config.to_str().unwrap()];
    let mut command = replay(&args);
    command.stdout(File::create(&stdout).unwrap());
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    let served = served(&daemon);
    let (status, ..) = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
    for exported in [&file, &stdout] {
        assert_eq!(fs::read_to_string(exported).unwrap(), served, "{}", exported.display());
    }
    for line in served.lines() {
        let event: ExportEvent = json::read(line).unwrap();
        let Some(ResponseTypes::Flow(flow)) = event.response_types else { panic!("{line}") };
        assert!(flow.verdict > 0 && line.len() < 16_000, "{line}");
    }
    // Whoever reads it knows only JSON.
    let jq = Command::new("jq").args(["-es", "all(.[]; .flow.verdict)"]).arg(&file).output().unwrap();
    assert!(jq.status.success(), "{}", String::from_utf8_lossy(&jq.stderr));
}

#[test]
fn hangup_opens_the_file_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, renamed) = (dir.path().join("events.log"), dir.path().join("renamed"));
    let args = ["--export-file-path", file.to_str().unwrap()];
    let daemon = Daemon::spawn(replay(&args), tempfile::tempdir().unwrap());
    let served = served(&daemon);
    let written =
        || (count(&daemon, Kind::Delivered, "lines") == served.lines().count() as u64).then_some(());
    until("all lines", &daemon, written);
    fs::rename(&file, &renamed).unwrap();
    rustix::process::kill_process(daemon.pid(), Signal::HUP).unwrap();
    until("a new file", &daemon, || file.exists().then_some(()));
    assert_eq!(fs::read_to_string(&renamed).unwrap(), served);
    let (status, ..) = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
}

/// Exports to a disk of its own, mounted with these options for the daemon alone.
fn mount(options: &str) -> Disk {
    Disk::mount(options, |folder| {
        replay(&["--export-file-path", folder.join("events.log").to_str().unwrap()])
    })
}

/// As the daemon sees it.
fn file(disk: &Disk) -> PathBuf {
    let inside = disk.folder.path().join("events.log");
    let root = format!("/proc/{}/root", disk.daemon.pid().as_raw_nonzero());
    Path::new(&root).join(inside.strip_prefix("/").unwrap())
}

/// The disk takes what it is given from now on: all is written, nothing is lost, and the log said it twice.
fn goes_on(disk: &Disk) {
    let daemon = &disk.daemon;
    daemon.log_line("writes again after ");
    let served = served(daemon);
    let lines = served.lines().count() as u64;
    until("all lines", daemon, || (count(daemon, Kind::Delivered, "lines") == lines).then_some(()));
    assert_eq!(fs::read_to_string(file(disk)).unwrap(), served);
    support::Sums::of(&daemon.settled()).check();
    for cause in ["overwritten before they were written", "not written at the end"] {
        assert_eq!(count(daemon, Kind::Lost, cause), 0, "{cause}");
    }
    let told = daemon.log().matches("cannot write: ").count();
    assert_eq!(told, 1, "{}", daemon.log());
}

#[test]
fn a_full_disk_holds_whole_lines_and_gets_the_rest_later() {
    if !can_run("a_full_disk_holds_whole_lines_and_gets_the_rest_later") {
        return;
    }
    let disk = mount("size=64k");
    disk.daemon.log_line("cannot write: No space left on device");
    let served = served(&disk.daemon);
    let there = fs::read_to_string(file(&disk)).unwrap();
    assert!(there.ends_with('\n') && there.len() > 32 << 10 && served.starts_with(&there), "{there}");
    let waiting = count(&disk.daemon, Kind::Delivered, "waiting to be written");
    assert!(waiting > 0);
    disk.remount("size=64m");
    goes_on(&disk);
}

#[test]
fn a_disk_that_is_read_only_gets_all_when_it_is_not() {
    if !can_run("a_disk_that_is_read_only_gets_all_when_it_is_not") {
        return;
    }
    let disk = mount("ro,size=64m");
    disk.daemon.log_line("cannot write: Read-only file system");
    disk.remount("rw");
    goes_on(&disk);
}

#[test]
fn a_daemon_ends_though_its_disk_is_full() {
    if !can_run("a_daemon_ends_though_its_disk_is_full") {
        return;
    }
    let disk = mount("size=64k");
    disk.daemon.log_line("cannot write: ");
    let (status, ..) = disk.daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
}
