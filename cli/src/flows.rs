//! `observe flows`: asks, and prints until the stream or the user ends it.

use crate::{
    Failure,
    args::{Flows, ServerArgs},
    connect::{Target, is_broken},
    hint, offline,
    output::{self, Output},
    print::Printer,
    rpc, select,
};
use observer_proto::observer::{
    GetFlowsResponse, get_flows_response::ResponseTypes, observer_client::ObserverClient,
};
use std::{
    future::{pending, ready},
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Code, Streaming};

/// How long nothing may match before the hint.
const HINT_AFTER: Duration = Duration::from_secs(5);

/// A flow with long L7 records is far below this; gRPC's own default is the same.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

pub(crate) async fn run(server: &ServerArgs, flows: Flows) -> Result<(), Failure> {
    if !flows.select.input_file.is_empty() {
        return offline::run(&flows);
    }
    let mut printer = Printer::new(&flows.format, flows.messages, flows.select.follow)?;
    let request = select::request(&flows.select, flows.filters.clone())?;
    let target = Target::choose(server)?;
    let mut out = Output::new(request.follow);
    let shown = async {
        let channel = target.connect().await?;
        let mut client = ObserverClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        let wants_hint = io::stderr().is_terminal() && hint::applies(&flows.filters);
        let mut hint = Box::pin(async {
            if wants_hint { hint::gather(channel, &flows.filters).await } else { pending().await }
        });
        let stream = match client.get_flows(request).await {
            Ok(response) => response.into_inner(),
            Err(status) if status.code() == Code::Cancelled && !is_broken(&status) => return Ok(()),
            Err(status) => return Err(Failure::Text(target.failed(&status).await)),
        };
        let matched = show(stream, &mut printer, &mut out, hint.as_mut()).await?;
        // An answer that is empty at once deserves the hint as much as a silent stream.
        if matched == Matched::Nothing && wants_hint {
            hint::say(hint.await);
        }
        Ok(())
    };
    tokio::select! {
        result = shown => result?,
        // Hubble's rule: an interrupted observe has done its work.
        result = ended_by_signal() => result?,
        () = output::reader_gone() => return Err(Failure::PipeClosed),
    }
    printer.finish(&mut out)?;
    Ok(out.flush()?)
}

async fn ended_by_signal() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matched {
    Nothing,
    /// Flows came, or the hint was given already.
    Something,
}

async fn show(
    mut stream: Streaming<GetFlowsResponse>,
    printer: &mut Printer,
    out: &mut Output,
    mut hint: std::pin::Pin<&mut impl Future<Output = Option<String>>>,
) -> Result<Matched, Failure> {
    let mut silence = Box::pin(tokio::time::sleep(HINT_AFTER));
    let mut silent = true;
    let mut matched = Matched::Nothing;
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            // Nothing is waiting: what was written must show. Under load many lines share one system call.
            () = ready(()), if out.live && out.dirty => {
                out.flush()?;
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
                if matches!(response.response_types, Some(ResponseTypes::Flow(_))) {
                    matched = Matched::Something;
                }
                printer.response(&response, out, &mut io::stderr().lock())?;
            }
            Ok(None) => return Ok(matched),
            Err(status) if status.code() == Code::Cancelled => return Ok(Matched::Something),
            Err(status) => {
                // What came before the error was asked for, too.
                printer.finish(out)?;
                out.flush()?;
                return Err(Failure::Text(rpc::text(&status)));
            }
        }
    }
}
