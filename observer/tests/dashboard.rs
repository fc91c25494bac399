//! The dashboard against the daemon: every view has live facts, and it outlives the daemon.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;
#[path = "../../cli/tests/tmux/mod.rs"]
mod tmux;

use observer_lab::{Lab, unique_prefix};
use std::{os::unix::fs::symlink, path::Path, time::Instant};
use support::{Daemon, OBSERVER, can_run, scenario};
use tmux::Tmux;

/// Puts the socket of another daemon in the place where the dashboard looks.
fn point(place: &Path, daemon: &Daemon) {
    let _ = std::fs::remove_file(place);
    symlink(daemon.dir.path(), place).unwrap();
}

#[test]
fn every_view_has_what_the_daemon_saw() {
    if !can_run("dashboard") {
        return;
    }
    let observe = Path::new(OBSERVER).with_file_name("observe");
    assert!(observe.exists(), "{} is missing: build it with `cargo build -p observe`", observe.display());
    let mut lab = Lab::up(&scenario("drops.toml"), &unique_prefix("tui")).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("run");
    point(&place, &daemon);
    let tmux = Tmux(unique_prefix("tui"));
    let server = format!("unix://{}/hubble.sock", place.display());
    let home = format!("HOME={}", folder.path().display());
    let line = format!(
        "env -u XDG_STATE_HOME -u XDG_CONFIG_HOME {home} OBSERVE_SERVER={server} {} tui; echo ended $?",
        observe.display()
    );
    tmux.start("tui", (120, 36), &line);
    let shows = |texts: &[&str]| tmux.shows("tui", texts);
    let press = |keys: &[&str]| tmux.keys("tui", keys);
    shows(&["LIVE"]);

    press(&["2"]);
    lab.start_traffic().unwrap();
    let began = Instant::now();
    shows(&["NETFILTER_DROP"]);
    eprintln!(
        "a drop stands under its reason {:.1} s after the traffic began",
        began.elapsed().as_secs_f64()
    );
    shows(&["[server stats]"]);
    lab.wait_traffic();
    press(&["m"]);
    let pair = |screen: &str| {
        let has = |line: &str| {
            ["web/client", "shop/server", "NETFILTER_DROP"].iter().all(|part| line.contains(part))
        };
        screen.lines().any(has)
    };
    tmux.until("tui", "the pair under its reason", pair);

    press(&["Enter"]);
    // Rows of before stay until the answer comes.
    let only = |screen: &str, filter: &str, other: &str| {
        screen.contains(filter) && screen.contains(" DROP ") && !screen.contains(other)
    };
    tmux.until("tui", "dropped flows alone", |screen| only(screen, "/ --type drop", " FWD "));
    press(&["Enter"]);
    shows(&["DROPPED", "uuid", "(for Hubble ", "observe -f -o wide --type drop"]);
    press(&["Escape"]);
    // Two at once would be another key.
    shows(&["DESTINATION", "DROP"]);
    press(&["Escape"]);
    shows(&["[2 Drops]", "(none)"]);

    press(&["3"]);
    shows(&["[3 Map]", "web/client", "shop/server", "[server stats]"]);
    press(&["m"]);
    shows(&["rows call columns"]);
    press(&["4"]);
    shows(&["[4 Policy]", "polic"]);
    press(&["5"]);
    shows(&["[5 Talkers]", "web/client", "SENT/s"]);
    press(&["6"]);
    shows(&["[6 Golden]", "start observer with --l7 all"]);
    press(&["7"]);
    shows(&["[7 Nodes]", "n1", "Capture on default/n1", "attached", "lost so far"]);

    press(&["1", "/"]);
    tmux.types("tui", "--verdict DROPPED --prot");
    press(&["Tab"]);
    tmux.types("tui", "udp");
    press(&["Enter"]);
    let filter = "/ --verdict DROPPED --protocol udp";
    tmux.until("tui", "dropped UDP alone", |screen| only(screen, filter, "TCP Flags"));
    press(&["\\"]);
    shows(&["FWD", "(none)"]);
    press(&["Space"]);
    shows(&["PAUSED"]);
    press(&["Space"]);
    shows(&["LIVE"]);

    drop(daemon);
    shows(&["RECONNECTING", "web/client"]);
    let daemon = Daemon::start(&lab, "n1", &[]);
    point(&place, &daemon);
    shows(&["LIVE"]);
    let rows = |screen: &str| {
        let words: Vec<&str> = screen.lines().nth(2).unwrap_or_default().split_whitespace().collect();
        let at = words.iter().position(|word| *word == "rows").unwrap_or(1);
        words[at - 1].replace(',', "").parse::<u64>().unwrap_or(0)
    };
    let before = rows(&tmux.screen("tui"));
    lab.start_traffic().unwrap();
    lab.wait_traffic();
    tmux.until("tui", "rows of the new daemon", |screen| screen.contains("LIVE") && rows(screen) > before);

    press(&["q"]);
    shows(&["ended 0"]);
    assert!(!tmux.is_full_screen("tui"));
}
