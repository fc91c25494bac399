//! A recording gives the flows that were seen live, on this machine and on any other.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, unique_prefix};
use observer_proto::{
    flow::Flow,
    observer::{GetFlowsRequest, get_flows_response::ResponseTypes},
    text,
    time::TimeFormat,
};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use support::{Daemon, OBSERVER, can_run, empty_node, scenario};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/events")
}

/// `make events` names the folder in which recordings and goldens are made anew.
fn make_into() -> Option<PathBuf> {
    std::env::var_os("OBSERVER_MAKE_EVENTS").map(PathBuf::from)
}

/// `observer record` in the lab's node, serving too.
fn record(lab: &Lab, file: &Path) -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let inventory = dir.path().join("inventory.yaml");
    lab.write_inventory(&inventory).unwrap();
    let mut command = lab.command_in("n1", OBSERVER);
    command.arg("record").arg(file).args(["--node-name", "n1", "--inventory"]).arg(inventory);
    Daemon::spawn(command, dir)
}

/// A daemon that has played all of a recording.
fn replayed(file: &Path) -> Daemon {
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(file).args(["--speed", "max"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    daemon.log_line("replayed ");
    daemon
}

/// Records onto a disk of 64 KiB that is there for this command alone, and brings what is on it to the other file.
fn record_to_a_small_disk(lab: &Lab, disk: &Path, brought: &Path) -> Output {
    let script = "mount -t tmpfs -o size=64k none \"$1\" || exit 99; from=$1/full.rec; to=$2; shift 2
        setpriv --pdeathsig KILL \"$@\" record \"$from\" --aggregation none --seconds 60; code=$?
        cp \"$from\" \"$to\"; exit $code";
    let mut command = lab.command_in("n1", "unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).args([disk, brought, Path::new(OBSERVER)]);
    command.stdin(Stdio::null()).output().unwrap()
}

/// Which flow it is is the daemon's own affair.
fn without_uuid(flow: Flow) -> Flow {
    Flow { uuid: String::new(), ..flow }
}

/// Plays a scenario while it is recorded and served; then the recording tells what was served.
fn a_recording_gives_the_flows_that_were_seen(name: &str, play: impl FnOnce(&mut Lab, &Daemon)) {
    if !can_run(name) {
        return;
    }
    // The names of namespaces are in the recording.
    let prefix = make_into().map_or_else(|| unique_prefix("rec"), |_| format!("events-{name}"));
    let mut lab = Lab::up(&scenario(&format!("{name}.toml")), &prefix).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(format!("{name}.rec"));
    let daemon = record(&lab, &file);
    let since = Some(prost_types::Timestamp::default());
    let follower = daemon.follow(GetFlowsRequest { follow: true, since, ..GetFlowsRequest::default() });
    play(&mut lab, &daemon);
    // What is captured until the end is in both, so nothing is waited for.
    let (status, ..) = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
    let flow = |response: observer_proto::observer::GetFlowsResponse| match response.response_types {
        Some(ResponseTypes::Flow(flow)) => without_uuid(flow),
        other => panic!("no flow but {other:?}"),
    };
    let live: Vec<Flow> = follower.responses.iter().map_while(Result::ok).map(flow).collect();

    let daemon = replayed(&file);
    let again: Vec<Flow> = daemon.flows().into_iter().map(without_uuid).collect();
    assert!(!daemon.log().contains("cut at byte"), "{}", daemon.log());
    assert!(live.len() > 200, "{} flows", live.len());
    for (live, again) in live.iter().zip(&again) {
        assert_eq!(live, again);
    }
    assert_eq!(live.len(), again.len());
    let sums = support::Sums::of(&daemon.settled());
    sums.check();
    assert_eq!((sums.lost(), sums.flows), (0, again.len() as u64), "{sums:?}");
    if let Some(folder) = make_into() {
        fs::copy(&file, folder.join(format!("{name}.rec"))).unwrap();
        fs::write(folder.join(format!("{name}.txt")), lines(&again)).unwrap();
        if name == "drops" {
            // What the fuzzer begins with; of an older version all of it would be refused.
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/recording");
            let bytes = fs::read(&file).unwrap();
            fs::write(corpus.join("drops-start"), &bytes[..3000]).unwrap();
            fs::write(corpus.join("drops"), bytes).unwrap();
        }
    }
}

#[test]
fn drops_are_the_same() {
    a_recording_gives_the_flows_that_were_seen("drops", |lab, _| {
        lab.start_traffic().unwrap();
        lab.wait_traffic();
    });
}

#[test]
fn services_names_and_guesses_are_the_same() {
    a_recording_gives_the_flows_that_were_seen("demo", |lab, daemon| {
        if make_into().is_some() {
            // As the demo shows it.
            lab.start_traffic().unwrap();
            std::thread::sleep(Duration::from_secs(20));
            lab.stop_traffic();
            return;
        }
        play_all(lab);
        // Names that change while they are looked up.
        let inventory = daemon.dir.path().join("inventory.yaml");
        let text = fs::read_to_string(&inventory).unwrap();
        let renamed = text.replace(r#""app": "frontend-app""#, r#""app": "renamed""#);
        fs::write(inventory.with_extension("new"), renamed).unwrap();
        fs::rename(inventory.with_extension("new"), &inventory).unwrap();
        let mut ping = lab.scenario().traffic.iter().find(|traffic| traffic.name == "ping").unwrap().clone();
        (ping.count, ping.delay_ms, ping.interval_ms) = (None, 0, 1);
        lab.play(ping).unwrap();
        daemon.log_line("inventory reloaded");
        lab.stop_traffic();
        play_all(lab);
        daemon.flows_until(|flows| {
            let is_renamed =
                |end: &observer_proto::flow::Endpoint| end.labels.contains(&"k8s:app=renamed".to_owned());
            let renamed = flows.iter().filter_map(|flow| flow.source.as_ref()).any(is_renamed);
            (!renamed).then(|| "the new label".to_owned())
        });
    });
}

/// Each kind of the lab's traffic, five times.
fn play_all(lab: &mut Lab) {
    for mut traffic in lab.scenario().traffic.clone() {
        (traffic.count, traffic.interval_ms, traffic.delay_ms) = (Some(5), 0, 0);
        lab.play(traffic).unwrap();
    }
    lab.wait_traffic();
}

/// Flows as `observe` prints them.
fn lines(flows: &[Flow]) -> String {
    let options = text::Options { time: TimeFormat::Rfc3339Milli, ..text::Options::default() };
    let mut lines = String::new();
    for flow in flows {
        text::flow(options, flow, &mut lines).unwrap();
    }
    lines
}

#[test]
fn the_recordings_of_the_lab_are_played_on_any_machine() {
    if make_into().is_some() {
        return;
    }
    let mut played = 0;
    for entry in fs::read_dir(testdata()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "rec") {
            continue;
        }
        let daemon = replayed(&file);
        let (flows, wanted) =
            (lines(&daemon.flows()), fs::read_to_string(file.with_extension("txt")).unwrap());
        for (number, (line, wanted)) in flows.lines().zip(wanted.lines()).enumerate() {
            assert_eq!(line, wanted, "{}: flow {number}", file.display());
        }
        assert_eq!(flows.lines().count(), wanted.lines().count(), "{}", file.display());
        played += 1;
    }
    assert!(played >= 2, "{played} recordings");
}

fn run(args: &[&str]) -> Output {
    Command::new(OBSERVER).args(args).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_file_that_cannot_be_played_is_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let path = file.to_str().unwrap();
    let whole = fs::read(testdata().join("drops.rec")).unwrap();
    for (content, wanted) in [
        (None, "No such file or directory"),
        (Some(b"pods: []\n".to_vec()), "is no recording"),
        (Some([&whole[..8], &[200, 0], &whole[10..]].concat()), "is a recording of format 200"),
        (Some(whole[..40].to_vec()), "holds nothing that can be played"),
    ] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let output = run(&["--replay", path, "--socket", dir.path().join("s").to_str().unwrap()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.starts_with(&format!("observer: {path}")) && error.contains(wanted), "{error}");
    }
    let output = run(&["--replay", path, "--aggregation", "none"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
    assert!(error.contains("cannot be used with"), "{error}");
}

#[test]
fn a_torn_recording_is_played_as_far_as_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("torn");
    let whole = fs::read(testdata().join("drops.rec")).unwrap();
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let daemon = replayed(&file);
    assert!(
        daemon.log_line("cut at byte").contains("torn: the file ends in the middle: cut at byte "),
        "{}",
        daemon.log()
    );
    let all = fs::read_to_string(testdata().join("drops.txt")).unwrap();
    let flows = lines(&daemon.flows());
    assert!(!flows.is_empty() && all.starts_with(&flows) && flows.len() < all.len(), "{} bytes", flows.len());
}

#[test]
fn recording_needs_no_socket_and_says_what_it_wrote() {
    if !can_run("recording_needs_no_socket") {
        return;
    }
    let lab = empty_node("recline");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("empty.rec");
    let mut command = lab.command_in("n1", OBSERVER);
    let output = command.arg("record").arg(&file).args(["--seconds", "1"]).output().unwrap();
    let (said, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    assert!(said.starts_with(&file.display().to_string()) && said.lines().count() == 1, "{said}");
    assert!(said.contains(" events in ") && said.ends_with(" 0 lost in the kernel\n"), "{said}");
    assert!(said.contains(&format!(" {} bytes;", file.metadata().unwrap().len())), "{said}");
    let totals = observer::recording::read_all(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(totals.cut, None);

    let mut command = lab.command_in("n1", OBSERVER);
    let output = command.args(["record", "/dev/full", "--seconds", "1"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let last = error.lines().last().unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(last.starts_with("observer: cannot record to /dev/full: No space left"), "{error}");
}

#[test]
fn a_disk_that_is_full_ends_the_recording_and_what_is_on_it_is_played() {
    if !can_run("a_disk_that_is_full_ends_the_recording_and_what_is_on_it_is_played") {
        return;
    }
    let mut lab = Lab::up(&scenario("flood.toml"), &unique_prefix("full")).unwrap();
    let mut flood = lab.scenario().traffic.iter().find(|traffic| traffic.name == "flood").unwrap().clone();
    (flood.count, flood.rate) = (Some(1_000_000), Some(20_000));
    lab.play(flood).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (disk, file) = (dir.path().join("disk"), dir.path().join("brought.rec"));
    fs::create_dir(&disk).unwrap();
    let output = record_to_a_small_disk(&lab, &disk, &file);
    lab.stop_traffic();

    let log = String::from_utf8(output.stderr).unwrap();
    let told: Vec<&str> = log.lines().filter(|line| line.starts_with("observer: ")).collect();
    assert_eq!((output.status.code(), told.len()), (Some(1), 1), "{log}");
    assert_eq!(log.lines().last(), told.first().copied(), "{log}");
    let wanted = format!("observer: cannot record to {}/full.rec: No space left on device", disk.display());
    assert!(told[0].starts_with(&wanted), "{log}");
    let bytes =
        told[0].split_once("; its first ").and_then(|(_, rest)| rest.strip_suffix(" bytes can be played"));
    let bytes: u64 = bytes.unwrap_or_else(|| panic!("{log}")).parse().unwrap();

    let daemon = replayed(&file);
    let cut = daemon.log_line("cut at byte");
    assert!(cut.ends_with(&format!("cut at byte {bytes}")), "{cut}, not {bytes}");
    let totals = observer::recording::read_all(&fs::read(&file).unwrap()).unwrap();
    assert!(totals.records > 1000, "{totals:?}");
    let sums = support::Sums::of(&daemon.settled());
    sums.check();
    assert_eq!(daemon.seen(), sums.flows);
    assert!(sums.flows > 1000, "{sums:?}");
}
