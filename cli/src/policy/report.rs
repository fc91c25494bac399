//! What came of a table of cases: for people, for programs, and for CI.

use super::{Run, explained, listed::line};
use observer_proto::{json, text::sanitize::is_unsafe};
use serde::Serialize;
use serde_json::Value;
use std::{fmt::Write as _, io};

/// How it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Layout {
    /// What is not as it should be, and why
    Text,
    /// One object with every case
    Json,
    /// JUnit's XML, which CI systems read
    Junit,
}

/// Every case in a layout.
pub(crate) fn report(layout: Layout, file: &str, runs: &[Run]) -> io::Result<String> {
    match layout {
        Layout::Text => Ok(text(file, runs)),
        Layout::Json => in_json(file, runs),
        Layout::Junit => Ok(junit(file, runs)),
    }
}

fn text(file: &str, runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs.iter().filter(|run| !run.is_good()) {
        let Run { line: at, case, found, .. } = run;
        line(&mut out, format_args!("FAIL {file}:{at}: {}", case.asked));
        line(&mut out, format_args!("  expected {}, found {}", case.expected, found));
        for explained in explained(&case.request, &run.judgement).lines() {
            line(&mut out, format_args!("    {explained}"));
        }
        out.push('\n');
    }
    let failed = runs.iter().filter(|run| !run.is_good()).count();
    line(&mut out, format_args!("{} cases, {} as expected, {failed} not", runs.len(), runs.len() - failed));
    out
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    cases: usize,
    failed: usize,
    results: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    line: u64,
    case: &'a str,
    expected: &'a str,
    found: &'a str,
    ok: bool,
    explanation: Value,
}

fn in_json(file: &str, runs: &[Run]) -> io::Result<String> {
    let results = runs.iter().map(|run| {
        let explanation = json::line(&run.judgement).map_err(io::Error::other)?;
        Ok(Entry {
            line: run.line,
            case: &run.case.asked,
            expected: &run.case.expected,
            found: &run.found,
            ok: run.is_good(),
            explanation: serde_json::from_str(&explanation)?,
        })
    });
    let results = results.collect::<io::Result<Vec<_>>>()?;
    let failed = results.iter().filter(|entry| !entry.ok).count();
    Ok(serde_json::to_string(&Report { file, cases: results.len(), failed, results })? + "\n")
}

fn junit(file: &str, runs: &[Run]) -> String {
    let failed = runs.iter().filter(|run| !run.is_good()).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let (name, count) = (xml(file), runs.len());
    // Writing to a String cannot fail, here and below.
    let _ =
        writeln!(out, "  <testsuite name=\"{name}\" tests=\"{count}\" failures=\"{failed}\" errors=\"0\">");
    for run in runs {
        let (at, asked) = (run.line, xml(&run.case.asked));
        let _ = write!(out, "    <testcase classname=\"{name}\" name=\"{at}: {asked}\"");
        if run.is_good() {
            out.push_str("/>\n");
            continue;
        }
        let message = xml(&format!("expected {}, found {}", run.case.expected, run.found));
        let why = xml(&explained(&run.case.request, &run.judgement));
        let _ = writeln!(out, ">\n      <failure message=\"{message}\">{why}</failure>\n    </testcase>");
    }
    out.push_str("  </testsuite>\n</testsuites>\n");
    out
}

/// XML has no way to write control characters.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            c if is_unsafe(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
