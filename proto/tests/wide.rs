//! The streaming table against what it printed before, by width. `UPDATE_GOLDENS=1` writes the goldens anew.

use observer_proto::{
    json,
    observer::GetFlowsResponse,
    text::{Joined, Options, Wide},
    time::TimeFormat,
};
use std::{fs, path::PathBuf, time::Instant};
use unicode_width::UnicodeWidthStr as _;

const FLOWS: &str = include_str!("../../testdata/wide/flows.in.jsonl");
const HUBBLES: &str = include_str!("../../testdata/hubble-api/goldens/flows.in.jsonl");

fn lines(text: &str) -> Vec<GetFlowsResponse> {
    text.lines().map(|line| json::read(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn print(options: Options, width: Option<usize>, flows: &[GetFlowsResponse]) -> String {
    let (mut table, mut joined, now) = (Wide::new(options, width), Joined::default(), Instant::now());
    let mut out = String::new();
    let mut line = |response: &GetFlowsResponse| table.flows_response(response, &mut out).expect("a string");
    for response in flows {
        joined.take(response, now, &mut line);
    }
    joined.give_up(None, &mut line);
    out
}

fn same(actual: &str, golden: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/wide").join(golden);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&file, actual).expect("the golden");
    }
    let expected = fs::read_to_string(&file).expect("the golden");
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected, "{golden}");
    }
    assert_eq!(actual, expected, "{golden}");
}

#[test]
fn by_width() {
    let (options, flows) = (Options::default(), lines(FLOWS));
    for (width, golden) in
        [(Some(120), "120.out"), (Some(80), "80.out"), (Some(40), "40.out"), (None, "pipe.out")]
    {
        same(&print(options, width, &flows), golden);
    }
}

#[test]
fn options_that_change_other_layouts() {
    let (options, flows) = (Options::default(), lines(FLOWS));
    same(&print(Options { colors: true, ..options }, Some(120), &flows), "120-color.out");
    same(&print(Options { translate: false, ..options }, Some(120), &flows), "120-numeric.out");
    let all = Options { node_names: true, policy_names: true, time: TimeFormat::Rfc3339Milli, ..options };
    same(&print(all, Some(160), &flows), "160-node-policy-time.out");
    same(&print(all, Some(80), &flows), "80-node-policy-time.out");
}

/// Whatever is sent, with whatever options: no line wraps, and the verdict is whole.
#[test]
fn a_line_fits_and_keeps_its_verdict() {
    let verdicts = "FORWARDED|DROPPED|AUDIT|REDIRECTED|TRACED|UNKNOWN|ALLOWED|DENIED|EVENTS LOST|VERDICT";
    let verdict = regex::Regex::new(verdicts).expect("a pattern");
    let flows = [lines(FLOWS), lines(HUBBLES)].concat();
    for width in 40..170 {
        for time in [TimeFormat::StampMilli, TimeFormat::Rfc1123Z] {
            for node_names in [false, true] {
                let options = Options { node_names, policy_names: true, time, ..Options::default() };
                for line in print(options, Some(width), &flows).lines() {
                    assert!(line.width() <= width, "{width} {time:?}: {line}");
                    assert!(verdict.is_match(line), "{width} {time:?}: {line}");
                }
            }
        }
    }
}

#[test]
fn colours_take_no_room() {
    let flows = lines(FLOWS);
    let color = regex::Regex::new("\u{1b}\\[[0-9]*m").expect("a pattern");
    for width in [40, 80, 120] {
        let colored = print(Options { colors: true, ..Options::default() }, Some(width), &flows);
        assert_eq!(color.replace_all(&colored, ""), print(Options::default(), Some(width), &flows));
    }
}

#[test]
fn a_header_comes_first_and_after_a_change_of_width() {
    let flow = &lines(FLOWS)[0];
    let mut table = Wide::new(Options::default(), Some(120));
    let mut out = String::new();
    for width in [120, 120, 80, 80] {
        table.resize(Some(width));
        table.flows_response(flow, &mut out).expect("a string");
    }
    let headers: Vec<usize> =
        out.lines().enumerate().filter(|(_, line)| line.starts_with("TIME")).map(|(at, _)| at).collect();
    assert_eq!((headers, out.lines().count()), (vec![0, 3], 6), "{out}");
}
