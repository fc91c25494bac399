//! Counts cases; one that fails doesn't hide the others.

use std::fmt::Write as _;

/// What a case found wrong.
pub(crate) type Outcome = Result<(), String>;

/// The cases of one test.
#[derive(Default)]
pub(crate) struct Tally {
    failed: String,
}

impl Tally {
    /// One case: its number in Hubble's acceptance list, or a word for what stands beside it; what is done.
    pub(crate) fn case(&mut self, number: &str, what: &str, outcome: Outcome) {
        let name = format!("{number} {what}");
        match outcome {
            Ok(()) => println!("interop: ok {name}"),
            Err(problem) => _ = writeln!(self.failed, "{name}: {problem}"),
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.failed.is_empty(), "\n{}", self.failed);
        }
    }
}

/// The first difference of two texts by lines.
pub(crate) fn same(what: &str, found: &str, wanted: &str) -> Outcome {
    if found == wanted {
        return Ok(());
    }
    let (found_lines, wanted_lines) = (found.lines().count(), wanted.lines().count());
    let at = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    let at = at.unwrap_or(found_lines.min(wanted_lines));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(nothing)").to_owned();
    Err(format!(
        "{what}: {found_lines} lines, wanted {wanted_lines}; line {}\n  found  {}\n  wanted {}",
        at + 1,
        line(found),
        line(wanted)
    ))
}

/// Whether a text has the form of a template: a `*` stands for anything within a line, a line `...` for any lines.
pub(crate) fn like(what: &str, found: &str, template: &str) -> Outcome {
    let lines: Vec<&str> = found.lines().collect();
    let wanted: Vec<&str> = template.lines().map(str::trim_start).filter(|line| !line.is_empty()).collect();
    if lines_fit(&lines, &wanted) {
        return Ok(());
    }
    Err(format!("{what}: found\n{found}wanted\n{}", wanted.join("\n")))
}

fn lines_fit(lines: &[&str], wanted: &[&str]) -> bool {
    match (lines, wanted) {
        ([], []) => true,
        (_, ["...", rest @ ..]) => (0..=lines.len()).any(|skipped| lines_fit(&lines[skipped..], rest)),
        ([line, lines @ ..], [pattern, rest @ ..]) => fits(line, pattern) && lines_fit(lines, rest),
        _ => false,
    }
}

fn fits(line: &str, pattern: &str) -> bool {
    // What the template leaves out at the start of a line is for its own layout.
    let mut parts = pattern.split('*');
    let Some(mut left) = line.trim_start().strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return left.is_empty() };
    for part in middle {
        let Some((_, behind)) = left.split_once(part) else { return false };
        left = behind;
    }
    left.ends_with(last)
}

/// A condition of a case.
pub(crate) fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(problem()) }
}
