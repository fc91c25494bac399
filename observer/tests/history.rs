//! Flows on the disk: over restarts, after a kill, and on a disk that takes nothing.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_proto::{
    control::{History, counter::Kind},
    flow::Flow,
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
};
use rustix::process::Signal;
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};
use support::{Daemon, OBSERVER, Sums, can_run, demo, disk::Disk, late::until, scaled};

/// A recording's flows, served and kept. What plays it needs no rights.
fn replay(folder: &Path, args: &[&str]) -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/events/demo.rec");
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(file).arg("--history").arg(folder).args(args);
    command
}

fn spawn(command: Command) -> Daemon {
    Daemon::spawn(command, tempfile::tempdir().unwrap())
}

fn history(daemon: &Daemon) -> History {
    daemon.capture_status().history.unwrap()
}

/// The flows of the recording, in each life the same.
fn recorded() -> Vec<Flow> {
    let folder = tempfile::tempdir().unwrap();
    let daemon = spawn(replay(folder.path(), &["--speed", "max"]));
    daemon.log_line("replayed ");
    daemon.flows()
}

/// What is the same in each life.
fn named(flows: &[Flow]) -> Vec<Flow> {
    flows.iter().map(|flow| Flow { uuid: String::new(), ..flow.clone() }).collect()
}

fn ids(flows: &[Flow]) -> BTreeSet<&str> {
    flows.iter().map(|flow| flow.uuid.as_str()).collect()
}

#[test]
fn after_a_restart_flows_from_before_are_shown_once_by_their_ids() {
    let (wanted, folder) = (recorded(), tempfile::tempdir().unwrap());
    let mut before: Vec<Flow> = Vec::new();
    for _ in 0..3 {
        let daemon = spawn(replay(folder.path(), &["--speed", "max"]));
        daemon.log_line("replayed ");
        let flows = daemon.flows();
        assert_eq!(flows.len(), before.len() + wanted.len());
        assert_eq!(flows[..before.len()], before);
        assert_eq!(named(&flows[before.len()..]), named(&wanted));
        assert_eq!(ids(&flows).len(), flows.len());
        // The last of them, from both sides of the restart.
        let number = wanted.len() as u64 + 7;
        if number <= flows.len() as u64 {
            let request = GetFlowsRequest { number, ..GetFlowsRequest::default() };
            assert_eq!(daemon.responses(request).len() as u64, number);
        }
        Sums::of(&daemon.settled()).check();
        let (status, ..) = daemon.end(Signal::TERM);
        assert!(status.success(), "{status}");
        before = flows;
    }
}

#[test]
fn the_command_line_shows_flows_from_before_a_restart() {
    if !can_run("the_command_line_shows_flows_from_before_a_restart") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let args = ["--history", folder.path().to_str().unwrap()];
    let (lab, first) = demo("history", 2, &args);
    first.settled();
    let wanted = first.flows();
    let (status, ..) = first.end(Signal::TERM);
    assert!(status.success(), "{status}");

    let daemon = Daemon::start(&lab, "n1", &args);
    let observe = |args: &[&str]| {
        let binary = Path::new(OBSERVER).with_file_name("observe");
        assert!(binary.exists(), "{} is missing: cargo build -p observe", binary.display());
        let mut command = Command::new(binary);
        command.env_remove("OBSERVE_SERVER").env_remove("HUBBLE_SERVER").stdin(Stdio::null());
        command.arg("--server").arg(format!("unix://{}", daemon.dir.path().join("hubble.sock").display()));
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = observe(&["--since", "1h", "-o", "json"]);
    let missing: Vec<_> = wanted.iter().filter(|flow| !shown.contains(&flow.uuid)).collect();
    assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), wanted.len());
    let dropped = observe(&["--since", "1h", "--verdict", "DROPPED", "-o", "json"]);
    let drops = wanted.iter().filter(|flow| flow.verdict() == observer_proto::flow::Verdict::Dropped);
    assert!(drops.clone().count() > 0 && drops.clone().all(|flow| dropped.contains(&flow.uuid)), "{dropped}");
    assert!(dropped.lines().count() < shown.lines().count());
    let status = observe(&[
        "status",
        "--capture",
        "--server",
        &format!("unix://{}", daemon.dir.path().join("control.sock").display()),
    ]);
    assert!(status.contains("History: "), "{status}");
}

#[test]
fn a_killed_daemon_keeps_what_it_wrote_and_the_next_one_goes_on() {
    let (wanted, folder) = (named(&recorded()), tempfile::tempdir().unwrap());
    let mut before: Vec<Flow> = Vec::new();
    for life in 0..scaled(20, 100) {
        let args = ["--speed", "max", "--history-max-loss", "10ms"];
        let daemon = spawn(replay(folder.path(), &args));
        let mut kept = 0;
        if life % 2 == 0 {
            // All is on the disk, most of it without a piece.
            until("the disk", || {
                (history(&daemon).on_disk as usize >= before.len() + wanted.len()).then_some(())
            });
            kept = wanted.len();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(life * 1237 % 40_000));
        }
        daemon.end(Signal::KILL);
        let next = spawn(replay(folder.path(), &["--speed", "0.001"]));
        let flows = next.flows();
        assert_eq!(history(&next).damaged, 0);
        next.end(Signal::KILL);
        // The first flows of the slow one may be among them.
        assert_eq!(flows[..before.len()], before, "life {life}");
        let new = named(&flows[before.len()..]);
        let killed = new.iter().zip(&wanted).take_while(|(flow, wanted)| flow == wanted).count();
        assert!(killed >= kept, "life {life}: {killed} of {kept}");
        assert!(new[killed..].iter().zip(&wanted).all(|(flow, wanted)| flow == wanted), "life {life}");
        assert_eq!(ids(&flows).len(), flows.len());
        before = flows;
        before.truncate(before.len() - (new.len() - killed));
    }
}

/// A history on a disk of its own, mounted with these options for the daemon alone.
fn mount(options: &str) -> Disk {
    Disk::mount(options, |folder| replay(folder, &["--speed", "max", "--history-max-loss", "20ms"]))
}

/// Suspended, with all flows in memory, until the disk takes what it is given: then nothing is lost, and the log said it
/// twice.
fn goes_on(disk: &Disk, options: &str) {
    let daemon = &disk.daemon;
    daemon.log_line("replayed ");
    let seen = daemon.seen();
    assert!(history(daemon).suspended);
    disk.remount(options);
    daemon.log_line("the history is written again after ");
    until("the disk", || (history(daemon).on_disk == seen).then_some(()));
    assert!(!history(daemon).suspended);
    let status = daemon.settled();
    Sums::of(&status).check();
    let lost =
        status.counters.iter().filter(|counter| counter.stage == "history" && counter.kind() == Kind::Lost);
    assert!(lost.clone().all(|counter| counter.value == 0), "{:?}", lost.collect::<Vec<_>>());
    assert_eq!(daemon.flows().len() as u64, seen);
    assert_eq!(daemon.log().matches("cannot be written: ").count(), 1, "{}", daemon.log());
}

#[test]
fn a_full_disk_gets_what_waits_when_it_has_room() {
    if !can_run("a_full_disk_gets_what_waits_when_it_has_room") {
        return;
    }
    let disk = mount("size=8k");
    disk.daemon.log_line("the history cannot be written: No space left on device");
    goes_on(&disk, "size=64m");
}

#[test]
fn a_disk_that_is_read_only_gets_what_waits_when_it_is_not() {
    if !can_run("a_disk_that_is_read_only_gets_what_waits_when_it_is_not") {
        return;
    }
    let disk = mount("ro,size=64m");
    disk.daemon.log_line("the history cannot be written: Read-only file system");
    goes_on(&disk, "rw");
}

#[test]
fn a_daemon_ends_though_its_disk_is_full_and_says_what_is_lost() {
    if !can_run("a_daemon_ends_though_its_disk_is_full_and_says_what_is_lost") {
        return;
    }
    let disk = mount("size=8k");
    disk.daemon.log_line("the history cannot be written: ");
    disk.daemon.log_line("replayed ");
    let log = disk.daemon.log_handle();
    let (status, ..) = disk.daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
    until("its last word", || {
        log.lock().unwrap().iter().any(|line| line.contains("flows that were not written")).then_some(())
    });
}

#[test]
fn a_folder_in_use_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let _first = spawn(replay(folder.path(), &[]));
    let dir = tempfile::tempdir().unwrap();
    let output = replay(folder.path(), &["--socket"]).arg(dir.path().join("s")).output().unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let refusal = stderr.lines().last().unwrap_or_default();
    assert!(refusal.contains("another observer keeps its flows there: name another folder"), "{stderr}");
}

#[test]
fn one_who_only_follows_reads_nothing_from_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = spawn(replay(folder.path(), &["--speed", "max"]));
    daemon.log_line("replayed ");
    let number = 3;
    let follower = daemon.follow(GetFlowsRequest { number, follow: true, ..GetFlowsRequest::default() });
    let flow =
        |response: ResponseTypes| if let ResponseTypes::Flow(flow) = response { Some(flow) } else { None };
    let got: Vec<_> = (0..number).map(|_| follower.until("a flow", flow)).collect();
    let all = daemon.flows();
    assert_eq!(got, all[all.len() - number as usize..]);
}
