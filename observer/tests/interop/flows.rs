//! GetFlows against Hubble's own filters: what the daemon answers is what `hubble` makes of all flows.

use crate::{
    cases::{CASES, CASES_OF_PAYLOAD, Must},
    programs::{Client, replayed, socket, testdata},
    support::{Daemon, can_run, demo},
    tally::{Outcome, Tally, ensure, same},
};
use std::fs;

/// A daemon's flows as Hubble's JSON, up to a time: later ones don't count.
pub(crate) struct Known {
    pub(crate) hubble: Client,
    pub(crate) observe: Client,
    pub(crate) json: String,
    until: String,
}

impl Known {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        let (hubble, observe) = (Client::hubble(socket(daemon)), Client::observe(socket(daemon)));
        let all = hubble.run("observe --all -o json", &[]).clean().unwrap();
        let until = value(all.lines().last().unwrap())["time"].as_str().unwrap().to_owned();
        let json = hubble.run("observe --all -o json --until", &[&until]).clean().unwrap();
        assert!(json.lines().count() > 100, "{} flows", json.lines().count());
        Self { hubble, observe, json, until }
    }

    /// What the flags select by the server, and by Hubble's own code of all flows, given as a file.
    pub(crate) fn differ(&self, flags: &str) -> Result<crate::programs::Ran, String> {
        // The limits come first: a flag without its value must stand at the end.
        let limits = format!("observe --all --until {} {flags}", self.until);
        let served = self.hubble.run(&limits, &[]);
        let own = self.hubble.run_with(
            &format!("observe --input-file - {}", &limits[7..]),
            &[],
            self.json.as_bytes(),
        );
        same("stdout beside Hubble's own filters", &served.stdout, &own.stdout)?;
        same("stderr beside Hubble's own filters", &served.stderr, &own.stderr)?;
        ensure(served.code == own.code, || {
            format!("exit code {:?}, Hubble's own filters {:?}", served.code, own.code)
        })?;
        let ours = self.observe.run(&limits, &[]);
        same("stdout of observe beside hubble's", &ours.stdout, &served.stdout)?;
        same("stderr of observe beside hubble's", &ours.stderr, &served.stderr)?;
        ensure(ours.code == served.code, || {
            format!("exit code of observe {:?}, of hubble {:?}", ours.code, served.code)
        })?;
        Ok(served)
    }

    fn case(&self, flags: &str, must: Must) -> Outcome {
        let served = self.differ(&format!("-o json {flags}"))?;
        let (found, all) = (served.stdout.lines().count(), self.json.lines().count());
        match must {
            Must::Agree => Ok(()),
            Must::All => ensure(found == all, || format!("{found} of {all} flows")),
            Must::BeEmpty => {
                ensure(found == 0 && served.code == Some(0), || format!("{found} flows: {served:?}"))
            }
            Must::Fail(text) => {
                same("stderr", &served.stderr, &format!("{text}\n"))?;
                ensure(served.code == Some(1), || format!("exit code {:?}", served.code))
            }
            Must::Have(texts) => {
                ensure((1..all).contains(&found), || format!("{found} of {all} flows"))?;
                let without =
                    served.stdout.lines().find(|line| !texts.iter().all(|text| line.contains(text)));
                ensure(without.is_none(), || format!("{texts:?} are not in {without:?}"))
            }
        }
    }
}

pub(crate) fn value(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn filters_on_a_recording() {
    let daemon = replayed("demo", &[]);
    let (known, mut tally) = (Known::of(&daemon), Tally::default());
    for (number, flags, must) in CASES {
        tally.case(number, &format!("hubble observe {flags} (replay)"), known.case(flags, *must));
    }
    one_uuid(&known, &mut tally);
    one_address_however_it_is_written(&known, &mut tally);
    raw_filters_come_back(&known, &mut tally);
    cel_is_refused(&known, &mut tally);
    selectors(&known, &mut tally);
}

#[test]
fn filters_on_live_traffic() {
    if !can_run("filters_on_live_traffic") {
        return;
    }
    let (_lab, daemon) = demo("interop", 2, &["--l7", "all"]);
    daemon.settled();
    let (known, mut tally) = (Known::of(&daemon), Tally::default());
    for (number, flags, must) in CASES.iter().chain(CASES_OF_PAYLOAD) {
        tally.case(number, &format!("hubble observe {flags} (live)"), known.case(flags, *must));
    }
    one_uuid(&known, &mut tally);
}

/// Every set of flags of testdata/hubble-api: what it selects or how it is refused.
#[test]
fn every_flag_of_the_filters() {
    let daemon = replayed("drops", &[]);
    let (known, mut tally) = (Known::of(&daemon), Tally::default());
    let goldens = fs::read_to_string(testdata("hubble-api/filter-goldens.tsv")).unwrap();
    let mut sets: Vec<&str> = goldens.lines().skip(1).filter_map(|line| line.split('\t').nth(1)).collect();
    sets.dedup();
    // It is refused here, and has a case of its own.
    sets.retain(|flags| !flags.contains("cel-expression"));
    assert!(sets.len() > 100, "{} sets of flags", sets.len());
    for flags in sets {
        tally.case("flags", flags, known.differ(flags).map(|_| ()));
    }
}

fn one_uuid(known: &Known, tally: &mut Tally) {
    let third = value(known.json.lines().nth(2).unwrap());
    let uuid = third["flow"]["uuid"].as_str().unwrap();
    let found = known.differ(&format!("-o json --uuid {uuid}"));
    let outcome = found
        .and_then(|ran| same("stdout", &ran.stdout, &format!("{}\n", known.json.lines().nth(2).unwrap())));
    tally.case("22", "hubble observe --uuid", outcome);
}

/// Not as in Hubble, which compares texts and so finds nothing by the longer one.
fn one_address_however_it_is_written(known: &Known, tally: &mut Tally) {
    let of = |ip: &str| known.hubble.run(&format!("observe --all -o json --to-ip {ip}"), &[]).clean();
    let outcome = of("fd00:10:244:1::14").and_then(|short| {
        ensure(!short.is_empty(), || "nothing".to_owned())?;
        same("stdout", &of("FD00:10:244:1:0:0:0:14")?, &short)
    });
    tally.case("19", "hubble observe --to-ip in another writing", outcome);
}

fn raw_filters_come_back(known: &Known, tally: &mut Tally) {
    let flags = "--pod payments/ --not --to-port 8080 --verdict FORWARDED";
    let raw = known.hubble.run(&format!("observe --print-raw-filters {flags}"), &[]);
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    fs::write(file.path(), &raw.stdout).unwrap();
    let path = file.path().to_str().unwrap();
    let (direct, by_file) = (
        known.hubble.run(&format!("observe --all -o json {flags}"), &[]),
        known.hubble.run("observe --all -o json --config", &[path]),
    );
    let ours = known.observe.run(&format!("observe --print-raw-filters {flags}"), &[]);
    let ours_by_file = known.observe.run("observe --all -o json --config", &[path]);
    let outcome = ensure(!direct.stdout.is_empty() && direct.code == Some(0), || format!("{direct:?}"))
        .and_then(|()| same("stdout", &by_file.stdout, &direct.stdout))
        .and_then(|()| same("raw filters of observe", &ours.stdout, &raw.stdout))
        .and_then(|()| same("stdout of observe by the file", &ours_by_file.stdout, &direct.stdout));
    tally.case("26", "hubble observe --print-raw-filters > f.yaml; hubble observe --config f.yaml", outcome);
}

fn cel_is_refused(known: &Known, tally: &mut Tally) {
    let ran = known.hubble.run("observe --cel-expression _flow.verdict==1", &[]);
    // Of the code Unknown: any other is printed before the text.
    let outcome = ensure(
        ran.code == Some(1)
            && ran.stderr.contains("CEL")
            && !ran.stderr.contains("rpc error")
            && ran.stderr.lines().count() == 1,
        || format!("{ran:?}"),
    );
    tally.case("25", "hubble observe --cel-expression", outcome);
}

/// Which part of the flows: cases 5 to 8, 11 and 12.
fn selectors(known: &Known, tally: &mut Tally) {
    let all: Vec<&str> = known.json.lines().collect();
    let time = |n: usize| value(all[n])["time"].as_str().unwrap().to_owned();
    let (early, late) = (time(100), time(200));
    let between = |line: &str| {
        let time = value(line)["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        time >= early.parse().unwrap() && time <= late.parse().unwrap()
    };
    let range: Vec<&str> = all.iter().copied().filter(|line| between(line)).collect();
    for (number, flags, wanted) in [
        ("5", String::new(), &all[all.len() - 20..]),
        ("6", "--last 100".into(), &all[all.len() - 100..]),
        ("7", "--first 5".into(), &all[..5]),
        ("8", "--all".into(), &all[..]),
        ("11", format!("--since {early} --until {late}"), &range[..]),
        ("11", format!("--since {early} --first 3"), &range[..3]),
        ("11", format!("--since {early} --until {late} --last 3"), &range[..3]),
        ("11", format!("--until {late} --first 7"), &all[..7]),
    ] {
        let ran = known.hubble.run(&format!("observe -o json {flags}"), &[]);
        let wanted = wanted.iter().fold(String::new(), |text, line| text + line + "\n");
        let outcome = ran.clean().and_then(|stdout| same("stdout", &stdout, &wanted));
        tally.case(number, &format!("hubble observe {flags}"), outcome);
    }
    let ran = known.hubble.run("observe --first 1 --follow", &[]);
    let outcome = same("stderr", &ran.stderr, "cannot set both --first and --follow\n");
    tally.case("12", "hubble observe --first 1 --follow", outcome);
}
