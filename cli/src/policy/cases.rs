//! The table of `observe policy test`: connections with the verdicts that they should have. docs/policy-cases.md has the
//! form.

use super::{Judge, Judgement, end, listed::one_line, port, request};
use observer_policy::model::Policy;
use observer_proto::control::{
    ExplainPolicyRequest, PolicySide, explain_policy_response::Outcome, policy_side::Verdict,
};
use std::{fs, path::Path};

/// A larger file is no table.
const MAX_FILE: u64 = 16 << 20;

/// What a table says, line by line.
pub(crate) struct Cases {
    pub(crate) file: String,
    lines: Vec<(u64, Line)>,
}

enum Line {
    Case(Box<Case>),
    /// Policies of these files don't count from here on.
    Without(Vec<String>),
}

/// A connection, and what should become of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Case {
    /// As it was written, without what is expected.
    pub(crate) asked: String,
    pub(crate) expected: String,
    pub(crate) request: ExplainPolicyRequest,
}

/// A case that was judged.
pub(crate) struct Run {
    pub(crate) line: u64,
    pub(crate) case: Case,
    pub(crate) found: String,
    pub(crate) judgement: Judgement,
}

impl Run {
    pub(crate) fn is_good(&self) -> bool {
        self.found == self.case.expected
    }
}

const CONNECTION: &[&str] = &["open", "allow", "requests", "deny", "default-deny"];
const OUTCOME: &[&str] = &["allow", "requests", "deny"];
const REQUEST: &[&str] = &["pass", "refuse"];

impl Cases {
    /// Reads a file; the error is one line with the place.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let file = path.display().to_string();
        let failed = |error: std::io::Error| format!("{file}: {error}");
        if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
            return Err(format!("{file}: more than {} MiB; split it", MAX_FILE >> 20));
        }
        Self::parse(&file, &fs::read_to_string(path).map_err(failed)?)
    }

    fn parse(file: &str, text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let (number, line) = (n as u64 + 1, line.trim());
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed = match line.strip_prefix("without ") {
                Some(files) => Ok(Line::Without(files.split_ascii_whitespace().map(str::to_owned).collect())),
                None if line == "without" => Ok(Line::Without(Vec::new())),
                None => case(line).map(|case| Line::Case(Box::new(case))),
            };
            let parsed = parsed.map_err(|why| format!("{file}:{number}: {}", one_line(&why)))?;
            lines.push((number, parsed));
        }
        let cases = lines.iter().filter(|(_, line)| matches!(line, Line::Case(_))).count();
        if cases == 0 {
            return Err(format!(
                "{file}: no case; write lines such as 'shop/web -> shop/db 5432/TCP = allow'"
            ));
        }
        Ok(Self { file: file.to_owned(), lines })
    }

    /// Judges each by the policies. An end that nobody knows is an error with its line.
    pub(crate) fn run(self, judge: &mut Judge, policies: &[Policy]) -> Result<Vec<Run>, String> {
        judge.set(policies.to_vec());
        let mut runs = Vec::new();
        for (line, what) in self.lines {
            let at = |why: String| format!("{}:{line}: {}", self.file, one_line(&why));
            match what {
                Line::Without(files) => {
                    let is_of = |policy: &Policy, name: &str| {
                        policy.file.as_deref().is_some_and(|file| file.ends_with(name))
                    };
                    if let Some(name) = files.iter().find(|name| !policies.iter().any(|p| is_of(p, name))) {
                        return Err(at(format!("no policy comes from a file {name}")));
                    }
                    let kept = policies.iter().filter(|policy| !files.iter().any(|name| is_of(policy, name)));
                    judge.set(kept.cloned().collect());
                }
                Line::Case(case) => {
                    let judgement = judge.explain(&case.request).map_err(at)?;
                    let found = found(&case, &judgement);
                    runs.push(Run { line, case: *case, found, judgement });
                }
            }
        }
        Ok(runs)
    }
}

/// `FROM -> TO PORT/PROTOCOL [REQUEST] = VERDICT`
fn case(line: &str) -> Result<Case, String> {
    let form = "write it as 'shop/web -> shop/db 5432/TCP = allow'";
    let (asked, expected) =
        line.rsplit_once(" = ").ok_or_else(|| format!("no ' = ' with a verdict; {form}"))?;
    let (from, rest) =
        asked.split_once(" -> ").ok_or_else(|| format!("no ' -> ' between two ends; {form}"))?;
    let mut words = rest.trim().splitn(3, ' ');
    let (to, place) = (words.next().unwrap_or_default(), words.next());
    let (protocol, number) = port(place.ok_or_else(|| format!("no port behind the destination; {form}"))?)?;
    let request = words.next().map(request).transpose()?;
    let expected = expectation(expected, request.is_some())?;
    Ok(Case {
        asked: asked.trim().to_owned(),
        expected,
        request: ExplainPolicyRequest {
            source: Some(end(from.trim())),
            destination: Some(end(to)),
            protocol: protocol.into(),
            port: number.into(),
            request,
        },
    })
}

/// Checked, in the form in which verdicts are told.
fn expectation(text: &str, of_request: bool) -> Result<String, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let by_sides = parts.iter().all(|part| part.starts_with("out ") || part.starts_with("in "));
    let known = match (of_request, by_sides) {
        (true, _) => REQUEST,
        (false, true) => CONNECTION,
        (false, false) => OUTCOME,
    };
    let wrong = |word: &str| format!("{word:?} is no verdict here; write one of {}", known.join(", "));
    if !by_sides {
        return if known.contains(&text.trim()) {
            Ok(text.trim().to_owned())
        } else {
            Err(wrong(text.trim()))
        };
    }
    let mut sides: Vec<(&str, &str)> = Vec::new();
    for part in parts {
        let (side, verdict) = part.split_once(' ').unwrap_or((part, ""));
        let verdict = verdict.trim();
        if !known.contains(&verdict) {
            return Err(wrong(verdict));
        }
        if sides.iter().any(|(other, _)| *other == side) {
            return Err(format!("{side} is there twice; write it once"));
        }
        sides.push((side, verdict));
    }
    sides.sort_by_key(|(side, _)| *side == "in");
    Ok(sides.iter().map(|(side, verdict)| format!("{side} {verdict}")).collect::<Vec<_>>().join(", "))
}

/// What came of it, in the words of what was expected.
fn found(case: &Case, judgement: &Judgement) -> String {
    let by_sides = case.expected.contains(' ');
    if !by_sides {
        let word = match (judgement.outcome(), case.request.request.is_some()) {
            (Outcome::Allowed | Outcome::SomeRequests, true) => "pass",
            (_, true) => "refuse",
            (Outcome::Allowed, false) => "allow",
            (Outcome::SomeRequests, false) => "requests",
            (_, false) => "deny",
        };
        return word.to_owned();
    }
    let sides = [("out", &judgement.egress), ("in", &judgement.ingress)];
    let told = sides.into_iter().filter_map(|(name, side)| {
        let side = side.as_ref().filter(|side| side.judged)?;
        Some(format!("{name} {}", word(side)))
    });
    told.collect::<Vec<_>>().join(", ")
}

fn word(side: &PolicySide) -> &'static str {
    match (side.request_allowed, side.verdict()) {
        (Some(true), _) => "pass",
        (Some(false), _) => "refuse",
        (None, Verdict::Open) => "open",
        (None, Verdict::Allowed) => "allow",
        (None, Verdict::SomeRequests) => "requests",
        (None, Verdict::Denied) => "deny",
        (None, Verdict::DefaultDenied) => "default-deny",
        (None, Verdict::Unknown) => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_line_is_named_with_what_would_be_right() {
        for (line, expected) in [
            ("a/b -> c/d 80/TCP", "no ' = ' with a verdict; write it as"),
            ("a/b c/d 80/TCP = allow", "no ' -> ' between two ends; write it as"),
            ("a/b -> c/d = allow", "no port behind the destination; write it as"),
            ("a/b -> c/d 80/XCP = allow", "\"80/XCP\" is no port"),
            ("a/b -> c/d 80/TCP = open", "\"open\" is no verdict here; write one of allow, requests, deny"),
            ("a/b -> c/d 80/TCP GET / = allow", "\"allow\" is no verdict here; write one of pass, refuse"),
            ("a/b -> c/d 80/TCP GET x = pass", "\"GET x\" is no request"),
            ("a/b -> c/d 80/TCP = out open, in maybe", "\"maybe\" is no verdict here; write one of open,"),
            ("a/b -> c/d 80/TCP = out open, out open", "out is there twice"),
        ] {
            let told = Cases::parse("cases.txt", &format!("# table\n\n{line}\n")).err().unwrap_or_default();
            assert!(told.starts_with("cases.txt:3: ") && told.contains(expected), "{line}: {told}");
        }
        assert!(Cases::parse("cases.txt", "# nothing\n").is_err_and(|told| told.contains("no case")));
    }

    #[test]
    fn verdicts_are_read_in_any_order() {
        let read = case("a/b  ->  10.0.0.1 53/UDP QUERY x.y  = in refuse ,out pass").unwrap();
        assert_eq!(
            (read.expected.as_str(), read.request.protocol, read.request.port),
            ("out pass, in refuse", 17, 53)
        );
    }
}
