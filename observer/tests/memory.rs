//! Half an hour of too much of everything at a memory limit of 256 MiB: a flood, pods that come and go, readers that are
//! too slow. `make soak` runs it; MEMORY_SECONDS sets how long, after a warm-up.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::{Lab, unique_prefix};
use observer_proto::observer::GetFlowsRequest;
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use support::{
    Daemon, Follower, OBSERVER, Sums,
    late::{Late, server},
    scenario,
};

const LIMIT: u64 = 256 << 20;
/// Before the time that is judged: the statistics remember so long, and until then they grow.
const WARM_UP: Duration = Duration::from_mins(15);
/// What the last samples may differ by from the first ones after the warm-up.
const DRIFT: f64 = 0.05;
const FOLLOWERS: usize = 20;
/// So many come and go at the same time until the warm-up is over, so that what is remembered of those that are gone (some
/// thousands of events, rows and owners of addresses) is full by then; one at a time after it.
const CHURNS: u32 = 4;

/// A control group with a memory limit, of version 2 or 1; removed when dropped.
struct Group {
    dir: PathBuf,
    usage: &'static str,
}

impl Group {
    fn make() -> Self {
        let name = format!("observer-memory-{}", std::process::id());
        let versions = [
            ("/sys/fs/cgroup", "memory.max", "memory.current"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ];
        // With version 1 the first of these is an ordinary directory.
        let is_group = |root: &&str| Path::new(root).join("cgroup.procs").exists();
        for (root, limit, usage) in versions.into_iter().filter(|(root, ..)| is_group(root)) {
            let dir = Path::new(root).join(&name);
            std::fs::create_dir(&dir).unwrap();
            let group = Self { dir, usage };
            if std::fs::write(group.dir.join(limit), LIMIT.to_string()).is_ok() {
                return group;
            }
        }
        panic!("no memory controller in /sys/fs/cgroup");
    }

    /// A command that starts what is appended inside of it.
    fn command(&self, lab: &Lab) -> Command {
        let mut command = lab.command_in("n1", "sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.dir).arg(OBSERVER);
        command
    }

    /// All of the daemon's and of the kernel's for it, in bytes.
    fn usage(&self) -> u64 {
        std::fs::read_to_string(self.dir.join(self.usage)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// Resident memory of the daemon, in bytes.
fn resident(daemon: &Daemon) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid().as_raw_nonzero()));
    let text = text.expect("the daemon is there: it was not killed");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Ends the other threads, also where this one fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    resident: u64,
    usage: u64,
    files: usize,
}

#[test]
fn memory_stays_where_it_is() {
    let text = std::env::var("MEMORY_SECONDS").unwrap_or_else(|_| "1800".to_owned());
    let seconds = text.parse().expect("MEMORY_SECONDS: a whole number of seconds is needed");
    let mut lab = Lab::up(&scenario("flood.toml"), &unique_prefix("memory")).unwrap();
    let group = Group::make();
    let dir = tempfile::tempdir().unwrap();
    lab.write_inventory(&dir.path().join("inventory.yaml")).unwrap();
    let mut command = group.command(&lab);
    command.args(["--node-name", "n1", "--aggregation", "low", "--inventory"]);
    command.arg(dir.path().join("inventory.yaml"));
    let daemon = Daemon::spawn(command, dir);

    for mut traffic in lab.scenario().traffic.clone() {
        traffic.count = (traffic.name == "flood").then_some(u64::MAX);
        traffic.interval_ms = 20;
        lab.play(traffic).unwrap();
    }
    let everything = GetFlowsRequest { follow: true, ..GetFlowsRequest::default() };
    let followers: Vec<Follower> = (0..FOLLOWERS).map(|_| daemon.follow(everything.clone())).collect();
    let ended = AtomicBool::new(false);
    let samples = std::thread::scope(|scope| {
        for number in 0..CHURNS {
            let (lab, ended) = (&lab, &ended);
            scope.spawn(move || come_and_go(lab, number, ended, (number > 0).then_some(WARM_UP)));
        }
        for (number, follower) in followers.into_iter().enumerate() {
            let ended = &ended;
            scope.spawn(move || read_slowly(number, &follower, ended));
        }
        let _ended = Ending(&ended);
        std::thread::sleep(WARM_UP);
        sample(&daemon, &group, Duration::from_secs(seconds))
    });
    lab.stop_traffic();
    let sums = Sums::of(&daemon.settled());
    sums.check();
    eprintln!("{} flows, {} lost and told", sums.flows, sums.lost());
    assert!(daemon.stop().0.success());
    judge(&samples);
}

/// At most five pods a second, until all ends or the time is over.
fn come_and_go(lab: &Lab, number: u32, ended: &AtomicBool, longest: Option<Duration>) {
    let (server, start) = (server(lab), Instant::now());
    for round in 0_u32.. {
        if ended.load(Ordering::Relaxed) || longest.is_some_and(|longest| start.elapsed() >= longest) {
            return;
        }
        let (name, address) = (format!("m{number}x{round}"), 100 + number * 30 + round % 30);
        let late = Late::new(lab, &name, &format!("10.244.1.{address}"));
        late.up();
        late.attached();
        late.send(0, server);
        late.down();
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The first reads nothing at all; the others stop for seconds, and throw away what they get in between.
fn read_slowly(number: usize, follower: &Follower, ended: &AtomicBool) {
    let shut = follower.gate.lock().unwrap();
    let mut shut = Some(shut);
    while !ended.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_secs(1 + number as u64 % 5));
        if number > 0 {
            shut = if shut.is_some() { None } else { Some(follower.gate.lock().unwrap()) };
        }
        follower.responses.try_iter().for_each(drop);
    }
    drop(shut);
}

fn sample(daemon: &Daemon, group: &Group, length: Duration) -> Vec<Sample> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while start.elapsed() < length {
        std::thread::sleep((length / 180).max(Duration::from_secs(1)));
        let sample = Sample { resident: resident(daemon), usage: group.usage(), files: daemon.open_files() };
        if samples.len() % 10 == 0 {
            let [rss, usage] = [sample.resident, sample.usage].map(|bytes| bytes as f64 / f64::from(1 << 20));
            eprintln!(
                "{:>5} s: {rss:.1} MiB resident, {usage:.1} MiB in the group, {} files",
                start.elapsed().as_secs(),
                sample.files
            );
        }
        samples.push(sample);
    }
    samples
}

/// When the store and the statistics are full: the first quarter is compared with the last.
fn judge(samples: &[Sample]) {
    let quarter = samples.len() / 4;
    let (early, late) = (&samples[..quarter], &samples[samples.len() - quarter..]);
    let median = |samples: &[Sample], value: fn(&Sample) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(value).collect();
        values.sort_unstable();
        values[values.len() / 2] as f64
    };
    let most = samples.iter().map(|sample| sample.usage).max().unwrap();
    let [before, after] = [early, late].map(|samples| median(samples, |sample| sample.resident));
    let [open_before, open_after] =
        [early, late].map(|samples| median(samples, |sample| sample.files as u64));
    eprintln!(
        "resident {:.1} MiB, later {:.1} MiB: {:+.1} %; at most {:.0} of {} MiB in the group; files {open_before}, later {open_after}",
        before / f64::from(1 << 20),
        after / f64::from(1 << 20),
        100.0 * (after / before - 1.0),
        most as f64 / f64::from(1 << 20),
        LIMIT >> 20
    );
    assert!((after / before - 1.0).abs() < DRIFT, "resident memory drifts");
    // A pod that is there is two attachments, and one more may be on its way out.
    assert!((open_after - open_before).abs() <= 4.0, "files are kept open");
}
