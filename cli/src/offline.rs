//! `observe --input-file`: filters and prints what files hold, as Hubble does: times are those of the responses, losses
//! and states of nodes pass a filter as flows that hold nothing.

use crate::{
    Failure,
    input::{Input, Skipped},
    output::Output,
    print::Printer,
};
use observer_proto::{
    encoded::{Held, Outline},
    filter::Filters,
    flow::Flow,
    observer::GetFlowsRequest,
    text::{sanitize::clean, status::grouped},
};
use prost::Message as _;
use prost_types::Timestamp;
use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::{Duration, Instant},
};

/// The most that `--last` may ask for, since they are kept until the end. Hubble's own limit.
const LAST: u64 = 1_000_000;

pub(crate) fn run(files: &[PathBuf], request: &GetFlowsRequest, printer: Printer) -> Result<(), Failure> {
    let mut input = Input::open(files)?;
    let wanted = Wanted::new(request)?;
    // A filter may ask for more than is printed.
    if wanted.filters.pass_all()
        && let Some(printed) = printer.printed()
    {
        input = input.keeping(printed.clone());
    }
    let outcome = show(&mut input, &wanted, printer);
    if !matches!(outcome, Err(Failure::PipeClosed)) {
        eprint!("{}", notes(input.skipped()));
    }
    outcome
}

/// Which responses are printed.
struct Wanted {
    filters: Filters,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    number: Number,
}

#[derive(Clone, Copy)]
enum Number {
    All,
    First(u64),
    Last(usize),
}

impl Wanted {
    /// The error is Hubble's text.
    fn new(request: &GetFlowsRequest) -> Result<Self, String> {
        let filters =
            Filters::compile(&request.whitelist, &request.blacklist).map_err(|error| error.to_string())?;
        let number = match request.number {
            0 | u64::MAX => Number::All,
            number if request.first => Number::First(number),
            number if number > LAST => return Err(format!("--last must be <= 1_000_000, got {number}")),
            number => Number::Last(number as usize),
        };
        Ok(Self { filters, since: request.since, until: request.until, number })
    }

    fn matches(&self, outline: &Outline<'_>) -> bool {
        let time = outline.time.unwrap_or_default();
        let time = (time.seconds, time.nanos);
        let is_after = |bound: &Option<Timestamp>| bound.is_some_and(|b| time > (b.seconds, b.nanos));
        let is_before = |bound: &Option<Timestamp>| bound.is_some_and(|b| time < (b.seconds, b.nanos));
        if is_before(&self.since) || is_after(&self.until) {
            return false;
        }
        let flow = match outline.held {
            _ if self.filters.pass_all() => return true,
            Held::Flow => Flow::decode(outline.inner).unwrap_or_default(),
            _ => Flow::default(),
        };
        self.filters.matches(&flow)
    }
}

fn show(input: &mut Input, wanted: &Wanted, mut printer: Printer) -> Result<(), Failure> {
    let mut out = Output::new(false)?;
    let mut progress = Progress::new(input);
    let mut last = VecDeque::new();
    let mut shown = 0;
    let failed = loop {
        if let Number::First(number) = wanted.number
            && shown == number
        {
            break None;
        }
        // Who writes the input may take a break: what is known should show.
        if out.dirty && input.may_wait() {
            out.flush()?;
        }
        progress.show(input);
        match input.advance() {
            Ok(true) => {}
            Ok(false) => break None,
            Err(text) => break Some(Failure::Text(text)),
        }
        let response = input.encoded();
        let outline = outline(response)?;
        if !wanted.matches(&outline) {
            continue;
        }
        if let Number::Last(number) = wanted.number {
            if last.len() == number {
                last.pop_front();
            }
            last.push_back(response.to_vec());
        } else {
            printer.encoded(response, &outline, input.json(), &mut out, &mut io::stderr())?;
            shown += 1;
        }
    };
    progress.clear();
    for response in &last {
        printer.encoded(response, &outline(response)?, None, &mut out, &mut io::stderr())?;
    }
    printer.finish(&mut out)?;
    out.flush()?;
    failed.map_or(Ok(()), Err)
}

fn outline(response: &[u8]) -> Result<Outline<'_>, Failure> {
    Outline::of(response).map_err(|error| Failure::Text(error.to_string()))
}

/// What was passed over, in a line each.
pub(crate) fn notes(skipped: &Skipped) -> String {
    let mut text = String::new();
    let mut note = |what: &str, place: &str| {
        text.push_str(what);
        // What is wrong with a line may quote it. Writing to a string can't fail.
        let _ = clean(place, &mut text);
        text.push('\n');
    };
    if let Some(first) = &skipped.first {
        let (some, all) = (grouped(skipped.unreadable), grouped(skipped.lines));
        note(&format!("skipped {some} of {all} lines, which hold no flow; the first is "), first);
    }
    if let Some(unknown) = &skipped.unknown {
        note("passed over what this version does not know, the first in ", unknown);
    }
    text
}

/// How far the files are read, for who waits; nothing where the flows themselves show it, or nobody looks.
struct Progress {
    is_shown: bool,
    calls: u32,
    next: Instant,
}

impl Progress {
    const EVERY: Duration = Duration::from_millis(200);
    /// A look at the clock costs as much as some lines.
    const CALLS: u32 = 1024;

    fn new(input: &Input) -> Self {
        let is_shown = io::stderr().is_terminal()
            && !io::stdout().is_terminal()
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            && input.read_of().is_some();
        Self { is_shown, calls: 0, next: Instant::now() + Self::EVERY }
    }

    fn show(&mut self, input: &Input) {
        self.calls = self.calls.wrapping_add(1);
        if !self.is_shown || !self.calls.is_multiple_of(Self::CALLS) || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + Self::EVERY;
        if let Some((read, size)) = input.read_of() {
            let lines = grouped(input.skipped().lines);
            let percent = (read.saturating_mul(100)).checked_div(size).unwrap_or(100);
            // A terminal that can't be written to is no reason to end.
            let _ = write!(io::stderr(), "\r{percent:>3} % read, {lines} lines\x1b[K");
        }
    }

    fn clear(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
