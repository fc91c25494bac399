//! `observe --aggregate-by`: counts in place of flows.

use super::{Piece, REDRAW, Screen, Server, from_files, from_server, once};
use crate::{
    Failure,
    args::{MaskArgs, SelectArgs},
    output, select,
    session::ended_by_signal,
    settings::Settings,
};
use observer_proto::{
    answers::{
        about::{About, CountedBy},
        aggregate::Aggregate,
        fields,
    },
    filter::FilterLists,
};
use std::{cell::RefCell, path::PathBuf, time::Instant};

/// Rows of a table; JSON has all.
const ROWS: usize = 200;

/// Counts what the selectors and filters name; where no selector is given, all flows that there are.
pub(crate) async fn run(
    settings: &Settings,
    fields: &str,
    files: &[PathBuf],
    select: &SelectArgs,
    filters: FilterLists,
    format: &str,
) -> Result<(), Failure> {
    let invalid = |why| format!("invalid argument {fields:?} for \"--aggregate-by\" flag: {why}");
    let fields = fields::parse(fields).map_err(invalid)?;
    let is_json = match format {
        "compact" | "wide" | "table" | "tab" => false,
        "json" | "JSON" | "jsonpb" => true,
        other => {
            return Err(format!(
                "output format {other} is not available with --aggregate-by; use table or json"
            )
            .into());
        }
    };
    let is_open = select.first == 0 && select.last == 0 && !select.follow;
    let all = SelectArgs { all: is_open || select.all, ..select.clone() };
    let mut request = select::flows(&all, &MaskArgs::default(), !files.is_empty(), || Ok(filters.clone()))?;
    if request.since.is_some() || request.until.is_some() {
        request.number = if is_open { 0 } else { request.number };
    }
    let is_file = !files.is_empty();
    let counted_by = if is_file { CountedBy::File } else { CountedBy::Client };
    let about = About { counted_by, ..About::default() };
    let counts = RefCell::new(Aggregate::new(fields, about, request.since));
    let mut screen = Screen::new();
    let answer = |screen: &Screen| {
        let counts = counts.borrow();
        if is_json {
            counts.report(usize::MAX).json()
        } else {
            counts.report(screen.rows(ROWS)).text(screen.width())
        }
    };
    let take = |piece: Piece<'_>| match piece {
        Piece::Flow(flow) => counts.borrow_mut().flow(flow),
        Piece::Lost(lost) => counts.borrow_mut().lost(lost),
    };
    if is_file {
        from_files(files, &filters, (request.since, request.until), |piece| {
            take(piece);
            Ok(())
        })?;
        return once(&answer(&screen));
    }
    let is_live = select.follow && screen.is_live() && !is_json;
    let mut next = Instant::now() + REDRAW;
    let server = Server::connect(settings).await?;
    let counted = from_server(&server, request, |piece| {
        take(piece);
        if is_live && Instant::now() >= next {
            next = Instant::now() + REDRAW;
            let text = answer(&screen);
            screen.draw(&text)?;
        }
        Ok(())
    });
    tokio::select! {
        result = counted => result?,
        result = ended_by_signal() => result?,
        () = output::reader_gone() => return Err(Failure::PipeClosed),
    }
    if is_live {
        let text = answer(&screen);
        screen.draw(&text)
    } else {
        once(&answer(&screen))
    }
}
