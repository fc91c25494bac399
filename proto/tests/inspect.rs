//! What is loaded in the kernel, as tables (testdata/inspect): whole, and where they must fit. `UPDATE_GOLDENS=1` writes the
//! goldens anew.

use observer_proto::{
    answers::inspect::text,
    control::{InspectResponse, InspectedProgram, inspect_request::What},
    json,
};
use std::{fs, path::PathBuf};
use unicode_width::UnicodeWidthStr as _;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/inspect").join(name)
}

fn same(actual: &str, golden: &str) {
    let file = file(golden);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&file, actual).expect("the golden");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected, "{golden}");
    }
    assert_eq!(actual, expected, "{golden}");
}

const ALL: [(What, &str); 7] = [
    (What::Programs, "programs"),
    (What::Links, "links"),
    (What::Maps, "maps"),
    (What::Rings, "rings"),
    (What::Ipcache, "ipcache"),
    (What::Flows, "flows"),
    (What::Policy, "policy"),
];

#[test]
fn every_table_whole_and_narrow() {
    let line = fs::read_to_string(file("answer.json")).expect("the answer");
    // One answer to all questions: each table takes what is its own.
    let answer: InspectResponse = json::read(&line).expect("an answer");
    for (what, name) in ALL {
        same(&text(what, &answer, None), &format!("{name}.txt"));
        let narrow = text(what, &answer, Some(80));
        same(&narrow, &format!("{name}-80.txt"));
        for width in [40, 60, 80, 100, 120, 160] {
            let text = text(what, &answer, Some(width));
            let table = text.lines().take_while(|line| !line.is_empty());
            // Notes are sentences.
            let rows = table.filter(|line| line.contains("  "));
            assert!(rows.clone().count() > 1, "{name}: {text}");
            for row in rows {
                assert!(row.width() <= width.max(72), "{name} at {width}: {row}");
            }
        }
    }
    // What is read back is what was written.
    assert_eq!(
        json::read::<InspectResponse>(&json::line(&answer).expect("JSON")).expect("an answer"),
        answer
    );
}

#[test]
fn nothing_is_said_to_be_nothing() {
    let empty = InspectResponse::default();
    for (what, expected) in [
        (What::Links, "no programs on links\n"),
        (What::Maps, "no maps\n"),
        (What::Rings, "no rings\n"),
        (What::Ipcache, "no addresses\n"),
        (What::Flows, "no connections\n"),
        (What::Policy, "no policy selects what was asked about: all of its connections are allowed\n"),
        (What::Unknown, ""),
    ] {
        assert_eq!(text(what, &empty, None), expected);
    }
}

/// The kernel keeps what it counted once.
#[test]
fn runs_of_an_earlier_time_are_told_as_such() {
    let note = |runs| {
        let program = InspectedProgram { runs, ..InspectedProgram::default() };
        text(What::Programs, &InspectResponse { programs: vec![program], ..InspectResponse::default() }, None)
    };
    assert!(note(0).contains("\nthe kernel does not count runs now: `observe"), "{}", note(0));
    assert!(
        note(44).contains("\nthe kernel does not count runs now, those shown are of when it did: `observe"),
        "{}",
        note(44)
    );
}
