//! Flows from a server: asks, and prints until the stream or the user ends it. Following outlives a connection.

use crate::{
    Failure,
    connect::{Connection, Target, is_broken},
    hint,
    output::{self, Output},
    print::Printer,
    resume::{Backoff, Resume, Turn},
    rpc,
    stream::{self, Encoded, Flows},
};
use observer_proto::{
    encoded::{Held, Outline},
    observer::GetFlowsRequest,
    relay::{NodeState, NodeStatusEvent},
    time::TimeFormat,
};
use prost::Message as _;
use prost_types::Timestamp;
use std::{
    error::Error as _,
    future::{pending, ready},
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, sleep_until},
};
use tonic::{Code, Status};

/// How long nothing may match before the hint.
const HINT_AFTER: Duration = Duration::from_secs(5);

pub(crate) async fn run(target: Target, request: GetFlowsRequest, printer: Printer) -> Result<(), Failure> {
    let mut session = Session::new(target, request, printer)?;
    tokio::select! {
        result = session.run() => result?,
        // Hubble's rule: an interrupted observe has done its work.
        result = ended_by_signal() => result?,
        () = output::reader_gone() => return Err(Failure::PipeClosed),
    }
    session.finish()
}

/// Ctrl-C, or a request to end.
pub(crate) async fn ended_by_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

/// One run, over as many connections as it takes.
struct Session {
    target: Target,
    request: GetFlowsRequest,
    printer: Printer,
    out: Output,
    /// For who follows.
    resume: Option<Resume>,
    backoff: Backoff,
    /// Since when there is no connection.
    lost: Option<Instant>,
    /// Whether the server's version was spoken of.
    warned: bool,
    /// Whether somebody wants to know why nothing matches.
    wants_hint: bool,
    /// Whether somebody still wants to know what to do about nodes that are missing.
    wants_nodes_hint: bool,
}

/// How a stream ended.
enum End {
    /// All was told.
    Done,
    /// The connection broke; the reason.
    Lost(String),
}

impl Session {
    fn new(target: Target, request: GetFlowsRequest, printer: Printer) -> io::Result<Self> {
        Ok(Self {
            out: Output::new(request.follow)?,
            resume: request.follow.then(Resume::default),
            backoff: Backoff::default(),
            lost: None,
            warned: false,
            wants_hint: io::stderr().is_terminal() && hint::applies(&request.whitelist, &request.blacklist),
            wants_nodes_hint: io::stderr().is_terminal(),
            target,
            request,
            printer,
        })
    }

    async fn run(&mut self) -> Result<(), Failure> {
        let mut channel = self.target.connect().await?;
        loop {
            match self.stream(channel).await? {
                End::Done => return Ok(()),
                End::Lost(why) => self.lose(&why)?,
            }
            channel = loop {
                sleep(self.backoff.next()).await;
                if let Ok(channel) = self.target.connect().await {
                    break channel;
                }
            };
        }
    }

    /// Says that the connection broke, once for each time it does; or ends, if nobody follows.
    fn lose(&mut self, why: &str) -> Result<(), Failure> {
        // What came before was asked for, too.
        self.printer.finish(&mut self.out)?;
        self.out.flush()?;
        let Some(resume) = &mut self.resume else { return Err(Failure::Text(why.to_owned())) };
        if self.lost.is_none() {
            self.lost = Some(Instant::now());
            self.printer.say(&format!("lost the connection to {}: {why}; trying again", self.target));
        }
        if let Some(since) = resume.again() {
            self.request.since = Some(since);
            self.request.number = 0;
        }
        Ok(())
    }

    /// Asks, and prints what comes.
    async fn stream(&mut self, channel: Connection) -> Result<End, Failure> {
        let asked = (self.wants_hint, channel.clone(), self.request.clone());
        let mut hint = Box::pin(async move {
            let (wants_hint, channel, request) = asked;
            if wants_hint { hint::gather(channel, &request.whitelist).await } else { pending().await }
        });
        let Flows { stream, warning } = match stream::flows(channel, self.request.clone()).await {
            Ok(flows) => flows,
            Err(status) if status.code() == Code::Cancelled && !is_broken(&status) => return Ok(End::Done),
            Err(status) if self.lost.is_some() && may_pass(&status) => {
                return Ok(End::Lost(rpc::text(&status)));
            }
            Err(status) => return Err(Failure::Text(self.target.failed(&status).await)),
        };
        if let Some(warning) = warning.filter(|_| !std::mem::replace(&mut self.warned, true)) {
            self.printer.say(&warning);
        }
        if let Some(lost) = self.lost.take() {
            let seconds = lost.elapsed().as_secs_f64();
            self.printer.say(&format!("connected to {} again after {seconds:.1} s", self.target));
        }
        let (matched, end) = self.show(stream, hint.as_mut()).await?;
        // An answer that is empty at once deserves the hint as much as a silent stream.
        if matched == Matched::Nothing && matches!(end, End::Done) && self.wants_hint {
            hint::say(hint.await);
        }
        Ok(end)
    }

    async fn show(
        &mut self,
        mut stream: Encoded,
        mut hint: std::pin::Pin<&mut impl Future<Output = Option<String>>>,
    ) -> Result<(Matched, End), Failure> {
        let mut silence = Box::pin(sleep(HINT_AFTER));
        let mut silent = true;
        let mut matched = Matched::Nothing;
        loop {
            let due = self.printer.due();
            let message = tokio::select! {
                biased;
                message = stream.message() => message,
                () = async { sleep_until(due.unwrap_or_else(Instant::now).into()).await }, if due.is_some() => {
                    self.printer.print_due(&mut self.out)?;
                    continue;
                }
                // Nothing is waiting: what was written must show. Under load many lines share one system call.
                () = ready(()), if self.out.live && self.out.dirty => {
                    self.out.flush()?;
                    continue;
                }
                () = &mut silence, if silent && matched == Matched::Nothing => {
                    silent = false;
                    continue;
                }
                text = &mut hint, if !silent && matched == Matched::Nothing => {
                    hint::say(text);
                    matched = Matched::Something;
                    continue;
                }
            };
            match message {
                Ok(Some(response)) => {
                    self.backoff.reset();
                    if self.response(&response)? == Held::Flow {
                        matched = Matched::Something;
                    }
                }
                // Who follows is told no end, but for the server's own.
                Ok(None) if self.request.follow => {
                    return Ok((matched, End::Lost("the server ended the stream".to_owned())));
                }
                Ok(None) => return Ok((matched, End::Done)),
                // A server that dies may reset the stream as cancelled.
                Err(status) if may_pass(&status) => return Ok((matched, End::Lost(rpc::text(&status)))),
                Err(status) if status.code() == Code::Cancelled => {
                    return Ok((Matched::Something, End::Done));
                }
                Err(status) => {
                    self.printer.finish(&mut self.out)?;
                    self.out.flush()?;
                    return Err(Failure::Text(rpc::text(&status)));
                }
            }
        }
    }

    /// Prints one response, unless it was printed before the connection broke.
    fn response(&mut self, response: &[u8]) -> Result<Held, Failure> {
        let outline = Outline::of(response).map_err(|error| Failure::Text(error.to_string()))?;
        match self.resume.as_mut().map_or(Turn::Show, |resume| resume.turn(&outline)) {
            Turn::Known => return Ok(outline.held),
            Turn::Gap(from, to) => self.printer.say(&gap(from, to)),
            Turn::Show => {}
        }
        self.printer.encoded(response, &outline, None, &mut self.out, &mut io::stderr())?;
        if outline.held == Held::NodeStatus && self.wants_nodes_hint && tells_of_missing(outline.inner) {
            self.wants_nodes_hint = false;
            self.printer.say("hint: `observe list nodes` shows the state of each node");
        }
        Ok(outline.held)
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.printer.finish(&mut self.out)?;
        Ok(self.out.flush()?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matched {
    Nothing,
    /// Flows came, or the hint was given already.
    Something,
}

/// Whether an encoded state of nodes is that some can't be reached.
fn tells_of_missing(status: &[u8]) -> bool {
    NodeStatusEvent::decode(status).is_ok_and(|status| {
        matches!(status.state_change(), NodeState::NodeUnavailable | NodeState::NodeError)
    })
}

/// Whether another try may go better: it was the connection that failed, of which a status has the cause and a server's
/// own word has none; or the server is about to end.
pub(crate) fn may_pass(status: &Status) -> bool {
    status.source().is_some() || status.code() == Code::Unavailable
}

fn gap(from: Option<Timestamp>, to: Timestamp) -> String {
    let text = |time: &Timestamp| {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = TimeFormat::Rfc3339Milli.write(Some(time), &mut text);
        text
    };
    let from = from.map_or_else(String::new, |from| format!("from {} ", text(&from)));
    format!("gap: flows {from}until {} may be missing, the server does not have them any more", text(&to))
}
