//! What must hold for any text and message from outside; called by the fuzzer and by a test with its corpora. Each
//! function panics where something does not hold.
#![expect(clippy::missing_panics_doc, reason = "they do nothing else")]
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use crate::{
    filter::{Filters, parse, parse_raw},
    flow::{Flow, FlowFilter},
    json::{self, MessageType, Reader, Writer},
    observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
    text::{self, Dict, Options, Shown, Table, Wide, sanitize},
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use std::sync::LazyLock;
use unicode_width::UnicodeWidthStr as _;

/// Cells of the terminal.
const WIDTH: usize = 80;

/// Flags of the command line, one a line: the name, a blank, the value.
pub fn flags(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let arguments = text.lines().map(|line| line.split_once(' ').unwrap_or((line, "true")));
    if let Ok(lists) = parse(arguments) {
        filters(&lists.whitelist, &lists.blacklist, FLOWS.iter());
    }
}

/// A request's filters and a flow to ask them about. The first two bytes are the length of the request.
pub fn filter(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((request, flow)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let (Ok(request), Ok(flow)) = (GetFlowsRequest::decode(request), Flow::decode(flow)) else { return };
    filters(&request.whitelist, &request.blacklist, FLOWS.iter().chain([&flow]));
}

/// Flows with something in every field that a filter may ask for, and one with nothing.
static FLOWS: LazyLock<Vec<Flow>> = LazyLock::new(|| {
    let lines = include_str!("../../testdata/hubble-api/goldens/flows.in.jsonl").lines();
    let responses = lines.map(|line| json::read::<GetFlowsResponse>(line).unwrap());
    let flows = responses.filter_map(|response| match response.response_types? {
        ResponseTypes::Flow(flow) => Some(flow),
        _ => None,
    });
    flows.chain([Flow::default()]).collect()
});

fn filters<'a>(
    whitelist: &[FlowFilter],
    blacklist: &[FlowFilter],
    flows: impl Iterator<Item = &'a Flow> + Clone,
) {
    for filter in whitelist.iter().chain(blacklist) {
        let line = json::line(filter).unwrap();
        assert_eq!(parse_raw(&line).as_deref(), Ok(std::slice::from_ref(filter)), "read back from {line}");
    }
    let whole = match Filters::compile(whitelist, blacklist) {
        Ok(filters) => filters,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let alone = |list: &[FlowFilter]| -> Vec<Filters> {
        let compiled = list.iter().map(|filter| Filters::compile(std::slice::from_ref(filter), &[]));
        compiled.collect::<Result<_, _>>().expect("each compiled with the others")
    };
    let (white, black) = (alone(whitelist), alone(blacklist));
    assert_eq!(whole.pass_all(), white.is_empty() && black.is_empty());
    for flow in flows {
        let allowed = white.is_empty() || white.iter().any(|filter| filter.matches(flow));
        let denied = black.iter().any(|filter| filter.matches(flow));
        assert_eq!(whole.matches(flow), allowed && !denied, "{flow:?}");
    }
}

/// A line of JSON, as exports have it. What is read is what a reader by reflection reads, where that reads it at all.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let kind = MessageType::named("observer.GetFlowsResponse").unwrap();
    let mut encoded = Vec::new();
    let mut reader = Reader::discarding();
    let passed_over = reader.read(kind, text, &mut encoded);
    let is_as_written = reader.is_as_written();
    if is_as_written {
        let mut line = Vec::new();
        Writer::new().write(kind, &encoded, &mut line).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), text, "not as it is written");
    }
    // What was read before makes no difference.
    let mut again = Vec::new();
    assert_eq!(reader.read(kind, text, &mut again), passed_over);
    assert_eq!((again, reader.is_as_written()), (encoded.clone(), is_as_written));
    assert!(passed_over.is_ok() || encoded.is_empty(), "after an error nothing is left");
    let strict = json::read::<GetFlowsResponse>(text);
    assert_eq!(strict.is_ok(), passed_over == Ok(None), "strict is what passes over nothing");
    let Ok(response) = strict else { return };
    assert_eq!(GetFlowsResponse::decode(encoded.as_slice()).as_ref(), Ok(&response));
    if let Some(reflected) = reflected(text) {
        // As JSON, where an Any's encoding has no say.
        assert_eq!(json::line(&response), json::line(&reflected));
    }
    // A message may hold what has no JSON: an Any of a type that is not known, a year beyond 9999.
    let Ok(line) = json::line(&response) else { return };
    let again = json::read::<GetFlowsResponse>(&line).expect("what was written can be read");
    assert_eq!(json::line(&again).as_ref(), Ok(&line));
}

fn reflected(text: &str) -> Option<GetFlowsResponse> {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(crate::DESCRIPTORS).unwrap());
    let descriptor = POOL.get_message_by_name("observer.GetFlowsResponse").unwrap();
    let mut json = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(descriptor, &mut json).ok()?;
    json.end().ok()?;
    message.transcode_to().ok()
}

fn same(flow: &Flow, encoded: &[u8]) {
    let mut read = |shown: &Shown<'_>| assert_eq!(*shown, Shown::of(flow), "not what prost reads");
    Shown::read(text::ALL, encoded, &mut read).unwrap();
}

/// A response, as a server sends it, printed in every format.
pub fn print(data: &[u8]) {
    if let Ok(flow) = Flow::decode(data) {
        same(&flow, data);
    }
    let kind = MessageType::named("observer.GetFlowsResponse").unwrap();
    let mut line = Vec::new();
    let mut writer = Writer::new();
    let written = writer.write(kind, data, &mut line).map(|()| line);
    // What was written before makes no difference.
    let mut again = Vec::new();
    assert_eq!(writer.write(kind, data, &mut again).map(|()| again), written);
    let Ok(response) = GetFlowsResponse::decode(data) else { return };
    let mut kept = Vec::new();
    text::printed().unwrap().keep(data, &mut kept).unwrap();
    let kept = GetFlowsResponse::decode(kept.as_slice()).unwrap();
    if let Some(ResponseTypes::Flow(flow)) = &response.response_types {
        same(flow, &flow.encode_to_vec());
    }
    assert_eq!(written, json::line(&response).map(String::into_bytes), "not what prost reads");
    if let Ok(line) = written {
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice::<serde_json::Value>(&line).unwrap();
    }
    for plain in [true, false] {
        let options = Options {
            translate: plain,
            node_names: !plain,
            policy_names: !plain,
            debug: !plain,
            ..Options::default()
        };
        let layouts_of_all = layouts(options, plain, &response);
        let [compact, _, table, wide] = &layouts_of_all;
        assert!(compact.lines().count() <= 1, "{compact:?}");
        assert!(table.lines().count() <= 2, "{table:?}");
        assert!(wide.lines().count() <= 2, "{wide:?}");
        assert!(!plain || wide.lines().all(|line| line.width() <= WIDTH), "{wide:?}");
        for (out, kept) in layouts_of_all.into_iter().zip(layouts(options, plain, &kept)) {
            assert_eq!(out, kept, "a layout prints what is not kept for it");
            let bad = out.chars().find(|c| *c != '\n' && sanitize::is_unsafe(*c));
            assert_eq!(bad, None, "{out:?}");
        }
    }
}

fn layouts(options: Options, plain: bool, response: &GetFlowsResponse) -> [String; 4] {
    let [mut compact, mut dict, mut table, mut wide] = [const { String::new() }; 4];
    text::flows_response(options, response, &mut compact).unwrap();
    Dict::new(options).flows_response(response, &mut dict).unwrap();
    let mut rows = Table::flows(options);
    rows.flows_response(response);
    rows.write(&mut table).unwrap();
    Wide::new(options, plain.then_some(WIDTH)).flows_response(response, &mut wide).unwrap();
    [compact, dict, table, wide]
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// A corpus and what holds for it.
    type Check = (&'static str, fn(&[u8]));

    #[test]
    fn the_corpora_hold() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../observer/fuzz/corpus");
        let checks: [Check; 4] = [
            ("flags", super::flags),
            ("filter", super::filter),
            ("json", super::json),
            ("print", super::print),
        ];
        for (name, check) in checks {
            let files: Vec<_> =
                fs::read_dir(corpora.join(name)).unwrap().map(|f| f.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                println!("{}", file.display());
                check(&fs::read(file).unwrap());
            }
        }
    }
}
