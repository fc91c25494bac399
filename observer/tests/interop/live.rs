//! What goes on while it is watched: cases 9 to 13, and those that depend on the time of day.

use crate::{
    flows::value,
    programs::{Client, socket},
    support::{Daemon, can_run, demo, scenario},
    tally::{Outcome, Tally, ensure, like, same},
};
use observer_lab::{Lab, unique_prefix};
use std::{
    io::{BufRead as _, BufReader},
    time::Instant,
};

#[test]
fn following_live_traffic() {
    if !can_run("following_live_traffic") {
        return;
    }
    let (mut lab, daemon) = demo("follow", 2, &[]);
    daemon.settled();
    let hubble = Client::hubble(socket(&daemon));
    let mut tally = Tally::default();
    tally.case("9", "hubble observe -f", only_new(&mut lab, &hubble));
    for flags in ["--last 10", "--since 1m"] {
        let outcome = history_first(&mut lab, &daemon, &hubble, flags);
        tally.case("10", &format!("hubble observe -f {flags}"), outcome);
    }
    tally.case("11", "hubble observe --since 2m --until 1m", relative_times(&hubble));
    tally.case("30", "hubble list namespaces -o wide", namespaces(&hubble));
}

/// Pings until it is told to stop; nothing tells from outside when a stream has begun.
fn ping(lab: &mut Lab) {
    let mut ping = lab.scenario().traffic.iter().find(|traffic| traffic.name == "ping").unwrap().clone();
    (ping.count, ping.delay_ms, ping.interval_ms) = (None, 0, 20);
    lab.play(ping).unwrap();
}

fn only_new(lab: &mut Lab, hubble: &Client) -> Outcome {
    let before = hubble.run("observe --all -o json", &[]).clean()?;
    let mut follower = hubble.start("observe -f -o json --protocol icmp");
    ping(lab);
    for _ in 0..20 {
        let line = follower.line().ok_or("no line")?;
        ensure(!before.lines().any(|old| old == line), || format!("an old flow: {line}"))?;
    }
    lab.stop_traffic();
    let (code, stderr) = follower.interrupt();
    ensure(code == Some(0) && stderr.is_empty(), || format!("after Ctrl-C: {code:?} {stderr}"))
}

fn history_first(lab: &mut Lab, daemon: &Daemon, hubble: &Client, flags: &str) -> Outcome {
    daemon.settled();
    let asked = "--protocol tcp --port 8080";
    let look = || hubble.run(&format!("observe --all -o json {asked}"), &[]).clean();
    let mut all = look()?;
    let mut follower = loop {
        let count = if flags == "--last 10" { 10 } else { all.lines().count() };
        let mut follower = hubble.start(&format!("observe -f -o json {asked} {flags}"));
        let history: Option<Vec<String>> = (0..count).map(|_| follower.line()).collect();
        let history = history.ok_or("no line")?;
        // A connection's last totals are told a while after its end.
        let now = look()?;
        if now == all {
            let wanted: Vec<&str> = all.lines().skip(all.lines().count() - count).collect();
            same("history", &history.join("\n"), &wanted.join("\n"))?;
            break follower;
        }
        all = now;
    };
    let mut charges =
        lab.scenario().traffic.iter().find(|traffic| traffic.name == "charges").unwrap().clone();
    (charges.count, charges.delay_ms, charges.interval_ms) = (Some(1), 0, 0);
    lab.play(charges).unwrap();
    lab.wait_traffic();
    let new = follower.line().ok_or("nothing after the history")?;
    ensure(!all.lines().any(|old| old == new), || format!("an old flow: {new}"))?;
    let (code, stderr) = follower.interrupt();
    ensure(code == Some(0) && stderr.is_empty(), || format!("after Ctrl-C: {code:?} {stderr}"))
}

fn relative_times(hubble: &Client) -> Outcome {
    let all = hubble.run("observe --since 2m -o json", &[]).clean()?;
    ensure(all.lines().count() > 100, || format!("{} flows in two minutes", all.lines().count()))?;
    // The lab is younger than that.
    let old = hubble.run("observe --since 2h --until 1h", &[]).clean()?;
    same("stdout", &old, "")
}

fn namespaces(hubble: &Client) -> Outcome {
    let wanted = "NAMESPACE *CLUSTER
        data *default
        kube-system *default
        monitoring *default
        ops *default
        payments *default
        tenant-a *default
        tenant-b *default
        web *default";
    like("stdout", &hubble.run("list namespaces -o wide", &[]).clean()?, wanted)
}

#[test]
fn a_reader_that_is_too_slow() {
    if !can_run("a_reader_that_is_too_slow") {
        return;
    }
    let mut lab = Lab::up(&scenario("flood.toml"), &unique_prefix("slow")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &["--aggregation", "none", "--max-flows", "1024"]);
    let mut tally = Tally::default();
    tally.case("13", "hubble observe -f, too slow for a small store", losses(&mut lab, &daemon));
}

fn flood(lab: &mut Lab, packets: u64) {
    let mut flood = lab.scenario().traffic.iter().find(|traffic| traffic.name == "flood").unwrap().clone();
    (flood.rate, flood.count) = (Some(20_000), Some(packets));
    lab.play(flood).unwrap();
    lab.wait_traffic();
}

/// Floods while nothing is read, so that pipe, client, connection and store run full in this order; then reads, with more
/// behind it.
fn losses(lab: &mut Lab, daemon: &Daemon) -> Outcome {
    let started = Instant::now();
    let mut follower = Client::hubble(socket(daemon)).start("observe -f -o json");
    let mut stdout = BufReader::new(follower.stdout());
    let mut next = || {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        line
    };
    // The first line says that it follows.
    let mut line = std::thread::scope(|scope| {
        let first = scope.spawn(&mut next);
        while !first.is_finished() {
            flood(lab, 100);
        }
        first.join().unwrap()
    });
    flood(lab, 60_000);
    let (mut lost, mut flows_after) = (0, 0);
    while flows_after < 500 {
        ensure(!line.is_empty(), || format!("the stream ended after {lost} losses"))?;
        let answer = value(&line);
        match answer.get("lost_events") {
            Some(event) => {
                ensure(event["source"] == "HUBBLE_RING_BUFFER", || line.clone())?;
                lost += 1;
            }
            None if lost > 0 => flows_after += 1,
            None => {}
        }
        line = next();
    }
    let seconds = started.elapsed().as_secs() + 1;
    ensure(lost <= seconds, || format!("{lost} times EVENTS LOST in {seconds} s"))
}
