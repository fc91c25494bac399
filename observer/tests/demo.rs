//! `make demo`'s script shows in each of its phases what it is for: flows and drops, what policies would deny, what they deny.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::unique_prefix;
use std::{path::Path, process::Command};
use support::{OBSERVER, can_run};

/// For all three phases.
const SECONDS: u32 = 18;

/// What is printed from the first line that contains `begin` to the next that contains `end`.
fn part<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no '{begin}' in:\n{text}"));
    rest.split_once(end).map_or(rest, |(part, _)| part)
}

/// Each of these words stands in one line together with the others.
fn has(text: &str, words: &[&str]) {
    let is_there = text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(is_there, "no line with {words:?} in:\n{text}");
}

#[test]
fn each_phase_shows_what_it_is_for() {
    if !can_run("demo") {
        return;
    }
    let programs = Path::new(OBSERVER).parent().unwrap();
    for name in ["observe", "observer-lab"] {
        let path = programs.join(name);
        assert!(path.exists(), "{} is missing: build it with `cargo build -p {name}`", path.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let exported = folder.path().join("flows.json");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo"))
        .env("DEMO_BIN", programs)
        .env("DEMO_PREFIX", unique_prefix("demo"))
        .env("DEMO_SECONDS", SECONDS.to_string())
        .env("DEMO_EXPORT", &exported)
        .env_remove("DEMO_REPLAY")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("LIVE\n"), "{text}");

    let observe = part(&text, "=== phase observe", "=== phase");
    has(observe, &["web/frontend-app", "payments/payments-api", "FORWARDED"]);
    has(observe, &["DROPPED"]);
    let audit = part(&text, "=== phase audit", "=== phase");
    has(audit, &["policy-verdict", "web/frontend-app", "AUDIT"]);
    let enforce = part(&text, "=== phase enforce", "\n=== ");
    has(enforce, &["policy-verdict", "DENIED", "web/frontend-app"]);
    has(enforce, &["DROPPED", "Policy denied", "web/frontend-app"]);
    has(enforce, &["http-request", "DROPPED", "GET", "/api/v1/unknown"]);
    has(enforce, &["dns-request", "DROPPED", "api.partner.example"]);
    let requests = part(&text, "=== the last requests of HTTP and DNS", "\n=== ");
    has(requests, &["FORWARDED", "200", "GET", "/api/v1/charges"]);
    has(requests, &["DROPPED", "403", "GET", "/api/v1/unknown"]);
    let wide = part(&text, "=== the last drops from web/frontend-app to payments/payments-api", "\n=== ");
    has(wide, &["L4-NEW", "DROPPED", "Policy denied at egress"]);

    // As somebody would look at the file, and read it again.
    let verdicts = Command::new("jq").args(["-e", ".flow.verdict"]).arg(&exported).output().unwrap();
    assert!(verdicts.status.success(), "{}", String::from_utf8_lossy(&verdicts.stderr));
    let verdicts = String::from_utf8(verdicts.stdout).unwrap();
    assert!(
        verdicts.lines().all(|verdict| verdict.starts_with('"')),
        "a line without a verdict:\n{verdicts}"
    );
    let read = Command::new(programs.join("observe"))
        .args(["--output", "json", "--input-file"])
        .arg(&exported)
        .output()
        .unwrap();
    let count = String::from_utf8(read.stdout).unwrap().lines().count();
    assert_eq!((count, &*String::from_utf8_lossy(&read.stderr)), (verdicts.lines().count(), ""));
    assert!(count > 100, "{count} flows were exported");
}
