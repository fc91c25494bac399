//! A daemon that is killed while it writes, renames and packs: another process, this very program.

use super::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
};

/// Names the folder of the process that is killed, and tells that it is one.
const FOLDER: &str = "OBSERVER_TEST_EXPORT_UNTIL_KILLED";
/// Which one it is.
const LIFE: &str = "OBSERVER_TEST_EXPORT_LIFE";
const FILE: &str = "events.log";

/// Exports until it is killed. By itself it does nothing.
#[test]
fn exports_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let life: u16 = std::env::var(LIFE).unwrap().parse().unwrap();
    let mut bed = Bed::new(65_536);
    let path = Path::new(&folder).join(FILE);
    let file = LogFile { path: path.clone(), most_bytes: 30_000, backups: 10_000, compress: true };
    let _exports = bed.start_one(Exporter { to: Target::File(file), ..to(&path) });
    for number in 0.. {
        let mut sample = numbered(number);
        sample.record.source_port = life;
        bed.writer.add(&sample.flow());
        if number % 256 == 0 {
            bed.writer.publish();
            // It must not be overwritten before it is written.
            until("the exporter", || bed.counts("static").written + 10_000 > number);
        }
    }
}

#[test]
fn a_killed_daemon_leaves_each_line_in_one_file_and_one_torn_at_most() {
    let lives: u16 = if std::env::var_os("SOAK").is_some() { 100 } else { 20 };
    let folder = tempfile::tempdir().unwrap();
    // Full files, in whatever form.
    let full = || {
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.map(|name| name.into_string().unwrap().split(".log").next().unwrap().to_owned());
        names.collect::<BTreeSet<_>>().len()
    };
    for life in 0..lives {
        let before = full();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "export::tests::killed::exports_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(LIFE, life.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // At a moment that depends on nothing here, after some files were full; the first may have another's lines alone.
        until("full files", || full() >= before + 2 + usize::from(life % 3));
        std::thread::sleep(Duration::from_micros(u64::from(life) * 613 % 5000));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The next daemon ends what they left half done.
    let bed = Bed::new(1024);
    let path = folder.path().join(FILE);
    let file = LogFile { path: path.clone(), most_bytes: 30_000, backups: 10_000, compress: true };
    let exports = bed.start_one(Exporter { to: Target::File(file), ..to(&path) });
    let names = || -> Vec<PathBuf> {
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    let is_done = |path: &PathBuf| *path == folder.path().join(FILE) || path.extension().unwrap() == "gz";
    until("nothing is half done", || names().iter().all(is_done));
    bed.end(exports);

    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut torn = 0;
    for path in names() {
        for line in text(&path).lines() {
            let Ok(event) = json::read::<ExportEvent>(line) else {
                torn += 1;
                continue;
            };
            let Some(ResponseTypes::Flow(flow)) = event.response_types else { panic!("{line}") };
            let port = line
                .split("\"source_port\":")
                .nth(1)
                .map_or(0, |rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap());
            numbers.entry(port).or_default().push(number(&flow));
        }
    }
    assert!(torn <= lives, "{torn} torn lines of {lives} lives");
    assert_eq!(numbers.len(), usize::from(lives));
    for (life, numbers) in numbers {
        let wanted: Vec<u64> = (0..numbers.len() as u64).collect();
        assert_eq!(numbers, wanted, "of life {life}");
    }
}
