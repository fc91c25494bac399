//! A daemon that is killed while it writes: another process, this very program.

use super::*;
use std::process::{Command, Stdio};

/// Names the folder of the process that is killed, and tells that it is one.
const FOLDER: &str = "OBSERVER_TEST_HISTORY_UNTIL_KILLED";

fn small(folder: &Path) -> HistoryConfig {
    // Files are full soon.
    HistoryConfig { most_bytes: 4 << 20, ..config(folder) }
}

/// Writes until it is killed. By itself it does nothing.
#[test]
fn writes_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut life = Life::begin(&small(Path::new(&folder)), 16_384);
    let first = life.history.first();
    for number in first.. {
        let mut flow = numbered(number & 0xffff);
        flow.record.packets = number;
        life.writer.add(&flow.flow());
        if number % 64 == 0 {
            life.writer.publish();
            // It must not be overwritten before it is taken.
            life.until("the keeper", |counts| first + counts.written + counts.waiting + 8192 > number);
        }
    }
}

#[test]
fn a_killed_daemon_leaves_whole_pieces() {
    let lives: u64 = if std::env::var_os("SOAK").is_some() { 100 } else { 20 };
    let folder = TempDir::new().unwrap();
    let written = || {
        files(folder.path()).iter().map(|file| fs::metadata(file).map_or(0, |meta| meta.len())).sum::<u64>()
    };
    for life in 0..lives {
        let before = written();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "history::tests::killed::writes_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At a moment that depends on nothing here, after something was written.
        let deadline = Instant::now() + PATIENCE;
        while written() <= before + 1000 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(life * 7613 % 50_000));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (history, _keeper) = History::open(&small(folder.path())).unwrap();
    let (all, lost) = kept(&history);
    let numbered =
        all.iter().map(|(sequence, _)| sequence >> 40).collect::<std::collections::BTreeSet<_>>().len()
            as u64;
    // Some are killed before they have written anything of their own.
    assert!(numbered > lives / 4, "{numbered} of {lives} lives");
    assert_eq!((lost, history.counts().damaged, history.counts().foreign), (0, 0, 0));
    assert!(all.len() > 1000 && all.is_sorted_by(|one, next| one.0 < next.0));
    // Of each life what was kept is its beginning: nothing is missing in between.
    for pair in all.windows(2) {
        let [(one, packets), (next, _)] = pair else { unreachable!() };
        assert_eq!(one, packets);
        assert!(*next == one + 1 || next & ((1 << 40) - 1) == 0, "{one:x} {next:x}");
    }
}
