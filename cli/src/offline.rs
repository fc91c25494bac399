//! `observe --input-file`: filters and prints what files hold, as Hubble does: times are those of the responses, losses
//! and states of nodes pass a filter as flows that hold nothing.

use crate::{
    Failure,
    args::Flows,
    input::{Input, Skipped},
    output::Output,
    print::Printer,
    select,
};
use observer_proto::{
    filter::Filters,
    flow::Flow,
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
    text::{sanitize::clean, status::grouped},
};
use prost_types::Timestamp;
use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Write as _},
    sync::LazyLock,
    time::{Duration, Instant},
};

/// The most that `--last` may ask for, since they are kept until the end. Hubble's own limit.
const LAST: u64 = 1_000_000;

pub(crate) fn run(flows: &Flows) -> Result<(), Failure> {
    let printer = Printer::new(&flows.format, flows.messages, flows.select.follow)?;
    let request = select::request(&flows.select, flows.filters.clone())?;
    let mut input = Input::open(&flows.select.input_file)?;
    let wanted = Wanted::new(&request)?;
    let outcome = show(&mut input, &wanted, printer);
    if !matches!(outcome, Err(Failure::PipeClosed))
        && let Some(text) = summary(input.skipped())
    {
        eprintln!("{text}");
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

    fn matches(&self, response: &GetFlowsResponse) -> bool {
        static NOTHING: LazyLock<Flow> = LazyLock::new(Flow::default);
        let time = response.time.unwrap_or_default();
        let time = (time.seconds, time.nanos);
        let is_after = |bound: &Option<Timestamp>| bound.is_some_and(|b| time > (b.seconds, b.nanos));
        let is_before = |bound: &Option<Timestamp>| bound.is_some_and(|b| time < (b.seconds, b.nanos));
        if is_before(&self.since) || is_after(&self.until) {
            return false;
        }
        self.filters.pass_all()
            || self.filters.matches(match &response.response_types {
                Some(ResponseTypes::Flow(flow)) => flow,
                _ => &*NOTHING,
            })
    }
}

fn show(input: &mut Input, wanted: &Wanted, mut printer: Printer) -> Result<(), Failure> {
    let mut out = Output::new(false);
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
        match input.next() {
            Ok(Some(response)) if wanted.matches(&response) => {
                if let Number::Last(number) = wanted.number {
                    if last.len() == number {
                        last.pop_front();
                    }
                    last.push_back(response);
                } else {
                    printer.response(&response, &mut out, &mut io::stderr().lock())?;
                    shown += 1;
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(text) => break Some(Failure::Text(text)),
        }
    };
    progress.clear();
    for response in &last {
        printer.response(response, &mut out, &mut io::stderr().lock())?;
    }
    printer.finish(&mut out)?;
    out.flush()?;
    failed.map_or(Ok(()), Err)
}

/// One line of what was passed over, if anything was.
fn summary(skipped: &Skipped) -> Option<String> {
    let first = skipped.first.as_deref()?;
    let mut text = format!(
        "skipped {} of {} lines, which hold no flow; the first is ",
        grouped(skipped.unreadable),
        grouped(skipped.lines)
    );
    // What is wrong with a line may quote it.
    clean(first, &mut text).ok()?;
    Some(text)
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
