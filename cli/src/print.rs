//! Which printer a response goes to, and on which stream it comes out.

use crate::{
    args::{FormatArgs, MessageArgs},
    output::{self, LineWidth},
};
use observer_proto::{
    encoded::{Held, Outline},
    json::{self, Mask, MessageType},
    observer::GetFlowsResponse,
    text::{self, Dict, Joined, Line, Shown, Stream, Table, Wide},
    time::TimeFormat,
};
use prost::{Message as _, Name as _};
use std::{
    io::{self, Write},
    time::Instant,
};

/// Switches `-o json` to the form of the oldest Hubble, which had no response around a flow.
const COMPAT: (&str, &str) = ("HUBBLE_COMPAT", "legacy-json-output");

/// The value of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Compact,
    Dict,
    Json,
    /// JSON that no compatibility switch changes.
    JsonPb,
    Table,
    /// Observer's own.
    Wide,
}

impl Format {
    /// Hubble's names, `JSON` among them, and one of our own.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        match name {
            "compact" => Ok(Self::Compact),
            "dict" => Ok(Self::Dict),
            "json" | "JSON" => Ok(Self::Json),
            "jsonpb" => Ok(Self::JsonPb),
            "tab" | "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            _ => Err(format!("invalid output format: {name}")),
        }
    }
}

enum Layout {
    Compact,
    Dict(Dict),
    /// Rows wait for the end, their widths are not known before.
    Table(Table),
    /// A request of HTTP is one line with its response.
    Wide(Wide, LineWidth, Joined),
    Json {
        kind: MessageType,
        legacy: bool,
        writer: json::Writer,
        encoded: Vec<u8>,
        line: Vec<u8>,
    },
}

/// Prints the responses of one stream.
pub(crate) struct Printer {
    layout: Layout,
    options: text::Options,
    silent_errors: bool,
    /// What a text needs of a response.
    printed: Option<Mask>,
    /// That, encoded; its memory and that of the record being written are used again.
    kept: Vec<u8>,
    text: Line,
}

impl Printer {
    /// The error is Hubble's text.
    pub(crate) fn new(
        args: &FormatArgs,
        messages: MessageArgs,
        debug: bool,
        follow: bool,
    ) -> Result<Self, String> {
        let options = text::Options {
            colors: output::color(&args.color),
            translate: args.ip_translation && !args.numeric,
            node_names: args.print_node_name,
            policy_names: args.print_policy_names,
            debug,
            time: TimeFormat::named(&args.time_format),
        };
        let layout = match Format::named(&args.output)? {
            Format::Compact => Layout::Compact,
            Format::Dict => Layout::Dict(Dict::new(options)),
            Format::Table if follow => {
                return Err("table output format is not compatible with follow mode".to_owned());
            }
            Format::Table => Layout::Table(Table::flows(options)),
            Format::Wide => {
                let width = LineWidth::of_stdout();
                Layout::Wide(Wide::new(options, width.cells()), width, Joined::default())
            }
            format @ (Format::Json | Format::JsonPb) => {
                let name = GetFlowsResponse::full_name();
                let legacy = format == Format::Json
                    && std::env::var(COMPAT.0)
                        .is_ok_and(|v| v.split(',').any(|option| option.eq_ignore_ascii_case(COMPAT.1)));
                Layout::Json {
                    kind: MessageType::named(&name).ok_or_else(|| format!("no descriptor of {name}"))?,
                    legacy,
                    writer: json::Writer::new(),
                    encoded: Vec::new(),
                    line: Vec::new(),
                }
            }
        };
        let printed = if matches!(layout, Layout::Json { .. }) { None } else { text::printed() };
        Ok(Self {
            layout,
            options,
            silent_errors: messages.silent_errors,
            printed,
            kept: Vec::new(),
            text: Line::default(),
        })
    }

    /// The fields that are printed; none: all.
    pub(crate) fn printed(&self) -> Option<&Mask> {
        self.printed.as_ref()
    }

    /// Says something of the stream itself, for people.
    pub(crate) fn say(&self, text: &str) {
        if !self.silent_errors {
            eprintln!("{text}");
        }
    }

    /// As [`Self::response`], of one that is not decoded yet. `json`: what a writer makes of it, if that is known.
    pub(crate) fn encoded(
        &mut self,
        response: &[u8],
        outline: &Outline<'_>,
        json: Option<&[u8]>,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<()> {
        match (outline.held, &mut self.layout, &self.printed) {
            (Held::Nothing, ..) => Ok(()),
            (Held::Flow | Held::LostEvents, Layout::Json { kind, legacy: false, writer, line, .. }, _) => {
                line.clear();
                match json {
                    Some(json) => line.extend_from_slice(json),
                    None => writer.write(*kind, response, line).map_err(io::Error::other)?,
                }
                line.push(b'\n');
                out.write_all(line)
            }
            (Held::Flow, Layout::Compact | Layout::Dict(_) | Layout::Table(_), _) => {
                let (options, mut result) = (self.options, Ok(()));
                let mut show = |flow: &Shown<'_>| result = self.shown(flow, out);
                Shown::read(options, outline.inner, &mut show).map_err(io::Error::other)?;
                result
            }
            (Held::Flow, _, Some(printed)) => {
                self.kept.clear();
                printed.keep(response, &mut self.kept).map_err(io::Error::other)?;
                let response = GetFlowsResponse::decode(self.kept.as_slice()).map_err(io::Error::other)?;
                self.response(&response, out, err)
            }
            _ => {
                let response = GetFlowsResponse::decode(response).map_err(io::Error::other)?;
                self.response(&response, out, err)
            }
        }
    }

    /// Whether lines are JSON that any field may be missing from.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.layout, Layout::Json { legacy: false, .. })
    }

    /// Writes one response: flows and lost events to `out`, what a relay says of its nodes to `err`.
    pub(crate) fn response(
        &mut self,
        response: &GetFlowsResponse,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<()> {
        match text::stream(response, self.options.debug) {
            Some(Stream::Out) => self.record(response, Stream::Out, out),
            Some(Stream::Err) if !self.silent_errors => self.record(response, Stream::Err, err),
            Some(Stream::Err) | None => Ok(()),
        }
    }

    /// Writes one flow in one of Hubble's layouts, without a message of it.
    fn shown(&mut self, flow: &Shown<'_>, out: &mut impl Write) -> io::Result<()> {
        self.text.clear();
        match &mut self.layout {
            Layout::Table(table) => {
                table.flow(flow);
                Ok(())
            }
            Layout::Dict(dict) => dict.flow(flow, &mut self.text),
            _ => text::shown(self.options, flow, &mut self.text),
        }
        .map_err(io::Error::other)?;
        out.write_all(self.text.as_bytes())
    }

    fn record(&mut self, response: &GetFlowsResponse, stream: Stream, to: &mut impl Write) -> io::Result<()> {
        self.text.clear();
        match (&mut self.layout, stream) {
            (Layout::Json { kind, legacy, writer, encoded, line }, _) => {
                line.clear();
                if *legacy {
                    if !json::legacy(writer, response, line).map_err(io::Error::other)? {
                        return Ok(());
                    }
                } else {
                    encoded.clear();
                    response.encode(encoded).map_err(io::Error::other)?;
                    writer.write(*kind, encoded, line).map_err(io::Error::other)?;
                }
                line.push(b'\n');
                return to.write_all(line);
            }
            (Layout::Table(table), Stream::Out) => {
                table.flows_response(response);
                return Ok(());
            }
            (Layout::Wide(table, width, joined), Stream::Out) => {
                table.resize(width.cells());
                let (text, mut result) = (&mut self.text, Ok(()));
                joined.take(response, Instant::now(), &mut |response| {
                    result = result.and_then(|()| table.flows_response(response, text));
                });
                result
            }
            (Layout::Dict(dict), _) => dict.flows_response(response, &mut self.text),
            (Layout::Compact, _) | (Layout::Table(_) | Layout::Wide(..), Stream::Err) => {
                text::flows_response(self.options, response, &mut self.text)
            }
        }
        .map_err(io::Error::other)?;
        to.write_all(self.text.as_bytes())
    }

    /// When [`Self::print_due`] has something to print, if nothing comes before.
    pub(crate) fn due(&self) -> Option<Instant> {
        if let Layout::Wide(.., joined) = &self.layout { joined.due() } else { None }
    }

    /// Writes what has waited long enough.
    pub(crate) fn print_due(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.give_up(Some(Instant::now()), out)
    }

    fn give_up(&mut self, now: Option<Instant>, out: &mut impl Write) -> io::Result<()> {
        let Layout::Wide(table, width, joined) = &mut self.layout else { return Ok(()) };
        table.resize(width.cells());
        self.text.clear();
        let (text, mut result) = (&mut self.text, Ok(()));
        joined.give_up(now, &mut |response| {
            result = result.and_then(|()| table.flows_response(response, text));
        });
        result.map_err(io::Error::other)?;
        out.write_all(self.text.as_bytes())
    }

    /// Writes what waited for the end.
    pub(crate) fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        if let Layout::Table(table) = &self.layout {
            self.text.clear();
            table.write(&mut self.text).map_err(io::Error::other)?;
            out.write_all(self.text.as_bytes())?;
        }
        self.give_up(None, out)
    }
}
