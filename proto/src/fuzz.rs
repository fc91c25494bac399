//! What must hold for any text and message from outside; called by the fuzzer and by a test with its corpora. Each
//! function panics where something does not hold.
#![expect(clippy::missing_panics_doc, reason = "they do nothing else")]
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use crate::{
    filter::{Filters, parse, parse_raw},
    flow::{Flow, FlowFilter},
    json::{self, MessageType, Writer},
    observer::{GetFlowsRequest, GetFlowsResponse},
    text::{self, Dict, Options, Table, Wide, sanitize},
};
use prost::Message as _;
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
        crate::observer::get_flows_response::ResponseTypes::Flow(flow) => Some(flow),
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

/// A line of JSON, as exports have it.
pub fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(response) = json::read::<GetFlowsResponse>(text) else { return };
    // A message may hold what has no JSON: an Any of a type that is not known, a year beyond 9999.
    let Ok(line) = json::line(&response) else { return };
    let again = json::read::<GetFlowsResponse>(&line).expect("what was written can be read");
    assert_eq!(json::line(&again).as_ref(), Ok(&line));
}

/// A response, as a server sends it, printed in every format.
pub fn print(data: &[u8]) {
    let kind = MessageType::named("observer.GetFlowsResponse").unwrap();
    let mut line = Vec::new();
    let written = Writer::new().write(kind, data, &mut line).map(|()| line);
    let Ok(response) = GetFlowsResponse::decode(data) else { return };
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
        let (mut compact, mut dict, mut table) = (String::new(), String::new(), String::new());
        text::flows_response(options, &response, &mut compact).unwrap();
        assert!(compact.lines().count() <= 1, "{compact:?}");
        Dict::new(options).flows_response(&response, &mut dict).unwrap();
        let mut rows = Table::flows(options);
        rows.flows_response(&response);
        rows.write(&mut table).unwrap();
        assert!(table.lines().count() <= 2, "{table:?}");
        let mut wide = String::new();
        Wide::new(options, plain.then_some(WIDTH)).flows_response(&response, &mut wide).unwrap();
        assert!(wide.lines().count() <= 2, "{wide:?}");
        assert!(!plain || wide.lines().all(|line| line.width() <= WIDTH), "{wide:?}");
        for out in [compact, dict, table, wide] {
            let bad = out.chars().find(|c| *c != '\n' && sanitize::is_unsafe(*c));
            assert_eq!(bad, None, "{out:?}");
        }
    }
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
