//! What the printed flows look like: cases 6, 27, 28 and 29.

use crate::{
    flows::{Known, value},
    programs::{Client, Ran, replayed, testdata},
    tally::{Outcome, Tally, ensure, same},
};
use std::fs;

/// The goldens that the tests of our printers stand on are what this very program prints.
#[test]
fn the_goldens_are_hubbles() {
    let (hubble, mut tally) = (Client::hubble("unix:///nonexistent"), Tally::default());
    let golden = |name: &str| fs::read_to_string(testdata("hubble-api/goldens").join(name)).unwrap();
    for (name, flags) in [
        ("compact", "-o compact"),
        ("compact-color", "-o compact --color always"),
        ("compact-numeric", "-o compact --numeric"),
        ("dict", "-o dict"),
        ("tab", "-o table"),
        ("tab-node", "-o tab --print-node-name"),
        ("json", "-o json"),
        ("json", "-o jsonpb"),
    ] {
        let input = golden("flows.in.jsonl");
        let ran = hubble.run_with(&format!("observe --input-file - --all {flags}"), &[], input.as_bytes());
        let outcome = same("stdout", &ran.stdout, &golden(&format!("flows.{name}.out")));
        tally.case("27", &format!("hubble observe --input-file {flags} (goldens)"), outcome);
    }
}

#[test]
fn every_layout_of_a_recording() {
    let daemon = replayed("demo", &[]);
    let (known, mut tally) = (Known::of(&daemon), Tally::default());
    for flags in [
        "-o compact",
        "-o compact --color always",
        "-o compact --numeric",
        "-o compact --print-node-name",
        "-o compact --time-format RFC3339Nano",
        "-o compact --time-format RFC1123Z",
        "-o compact --use-default-field-masks=false",
        "-o dict",
        "-o dict --print-node-name --color always",
        "-o table",
        "-o tab --print-node-name --numeric",
        "-o json",
        "-o jsonpb",
    ] {
        let outcome = known.differ(flags).and_then(Ran::clean).map(|_| ());
        tally.case("27", &format!("hubble observe --all {flags}"), outcome);
    }
    let lines = known.hubble.run("observe --all --time-format RFC3339Milli", &[]).clean();
    let golden = fs::read_to_string(testdata("events/demo.txt")).unwrap();
    let outcome = lines.and_then(|lines| same("stdout", &lines, &golden));
    tally.case("27", "hubble observe --all --time-format RFC3339Milli (testdata/events/demo.txt)", outcome);

    tally.case("6", "hubble observe --last 100 -o json | hubble observe --input-file -", read_again(&known));
    tally.case("28", "hubble observe -o json --field-mask", masked(&known));
    tally.case("28", "observe --use-default-field-masks", text_by_our_mask(&known));
    tally.case("28", "hubble observe --field-mask bogus", mask_refused(&known));
    let with_extensions = known.json.lines().filter(|line| line.contains("google.protobuf.Struct")).count();
    let outcome = ensure(with_extensions > 0, || "no flow has extensions".to_owned());
    tally.case("29", "hubble observe -o json of flows with extensions", outcome);
}

/// What a daemon has exported Hubble's own program reads as it reads the daemon's answers.
#[test]
fn an_exported_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.log");
    let daemon = replayed("demo", &["--export-file-path", file.to_str().unwrap()]);
    let (known, mut tally) = (Known::of(&daemon), Tally::default());
    let (status, ..) = daemon.end(rustix::process::Signal::TERM);
    assert!(status.success(), "{status}");
    let exported = fs::read_to_string(&file).unwrap();
    let read =
        known.hubble.run_with("observe --input-file - --all -o json", &[], exported.as_bytes()).clean();
    let outcome = read.and_then(|read| same("stdout", &read, &known.json));
    tally.case("export", "hubble observe --input-file (an exported file)", outcome);
}

/// Our default mask leaves out nothing that any text shows.
fn text_by_our_mask(known: &Known) -> Outcome {
    for format in ["compact", "dict", "table", "wide"] {
        let run = |more: &str| {
            let flags = format!("observe --all -o {format} --print-node-name --print-policy-names {more}");
            known.observe.run(&flags, &[]).clean()
        };
        same("stdout", &run("--use-default-field-masks")?, &run("--use-default-field-masks=false")?)?;
    }
    Ok(())
}

/// The same text from the server and from its own JSON.
fn read_again(known: &Known) -> Outcome {
    let json = known.hubble.run("observe --last 100 -o json", &[]).clean()?;
    ensure(json.lines().count() == 100, || format!("{} lines", json.lines().count()))?;
    let text = known.hubble.run("observe --last 100 -o compact", &[]).clean()?;
    let again = known.hubble.run_with("observe --input-file - -o compact", &[], json.as_bytes()).clean()?;
    same("stdout", &again, &text)
}

fn masked(known: &Known) -> Outcome {
    let mask = "--field-mask source.pod_name,verdict";
    let masked = known.hubble.run(&format!("observe --all -o json {mask}"), &[]).clean()?;
    // A parent is there even where nothing in it is left, as in Hubble; times and node are the masked flow's.
    let wanted = known.json.lines().fold(String::new(), |text, line| {
        let flow = &value(line)["flow"];
        let pod =
            flow["source"].get("pod_name").map_or_else(String::new, |pod| format!(r#""pod_name":{pod}"#));
        text + &format!("{{\"flow\":{{\"verdict\":{},\"source\":{{{pod}}}}}}}\n", flow["verdict"])
    });
    let ours = known.observe.run(&format!("observe --all -o json {mask}"), &[]).clean()?;
    same("stdout of observe", &ours, &masked)?;
    let all = known.hubble.run("observe --all -o json", &[]).clean()?;
    ensure(all == known.json, || "flows came meanwhile".to_owned())?;
    same("stdout", &masked, &wanted)
}

fn mask_refused(known: &Known) -> Outcome {
    let ran = known.hubble.run("observe -o json --field-mask bogus", &[]);
    ensure(ran.code == Some(1) && ran.stdout.is_empty() && ran.stderr.contains("bogus"), || {
        format!("{ran:?}")
    })
}
