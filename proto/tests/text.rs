//! Text against what Hubble's own printer printed, byte for byte.

use observer_proto::{
    flow::{Flow, LostEvent},
    json,
    observer::{GetFlowsResponse, ServerStatusResponse},
    text::{self, Dict, Options, Stream, Table},
    time::TimeFormat,
};

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../testdata/hubble-api/goldens/", $name))
    };
}

fn lines<M: prost::Message + prost::Name + Default>(text: &str) -> Vec<M> {
    text.lines().map(|line| json::read(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn flows(options: Options) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for response in lines::<GetFlowsResponse>(golden!("flows.in.jsonl")) {
        match text::stream(&response, options.debug) {
            Some(Stream::Out) => text::flows_response(options, &response, &mut out).expect("golden"),
            Some(Stream::Err) => text::flows_response(options, &response, &mut err).expect("golden"),
            None => {}
        }
    }
    (out, err)
}

fn same(actual: &str, expected: &str) {
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected);
    }
    assert_eq!(actual, expected);
}

#[test]
fn flows_compact() {
    let (out, err) = flows(Options::default());
    same(&out, golden!("flows.compact.out"));
    same(&err, golden!("flows.compact.err"));
}

/// The one difference: Hubble lets a colour sequence that it uses itself pass from the data, here it never does.
#[test]
fn flows_compact_in_colour() {
    let golden = golden!("flows.compact-color.out");
    let escaped = golden.replace("<c> \u{1b}[31mred", "<c> ^[[31mred");
    assert_eq!(escaped.len(), golden.len() + 1);
    same(&flows(Options { colors: true, ..Options::default() }).0, &escaped);
}

#[test]
fn flows_compact_numeric() {
    same(&flows(Options { translate: false, ..Options::default() }).0, golden!("flows.compact-numeric.out"));
}

#[test]
fn flows_compact_with_nodes_policies_and_debug() {
    let options = Options { node_names: true, policy_names: true, debug: true, ..Options::default() };
    let (out, err) = flows(options);
    same(&out, golden!("flows.compact-node-policy-debug.out"));
    same(&err, golden!("flows.compact-node-policy-debug.err"));
}

#[test]
fn agent_events() {
    let mut out = String::new();
    for response in lines(golden!("agent.in.jsonl")) {
        text::agent_event(Options::default(), &response, &mut out).expect("golden");
    }
    same(&out, golden!("agent.compact.out"));
}

#[test]
fn debug_events() {
    let mut out = String::new();
    for response in lines(golden!("debug.in.jsonl")) {
        text::debug_event(Options::default(), &response, &mut out).expect("golden");
    }
    same(&out, golden!("debug.compact.out"));
}

#[test]
fn status() {
    let mut out = String::new();
    for status in lines::<ServerStatusResponse>(golden!("status.in.jsonl")) {
        text::status::compact(&status, &mut out).expect("golden");
    }
    same(&out, golden!("status.compact.out"));
}

#[test]
fn flows_dict() {
    let (mut out, mut err) = (String::new(), String::new());
    let mut dict = Dict::new(Options::default());
    for response in lines::<GetFlowsResponse>(golden!("flows.in.jsonl")) {
        match text::stream(&response, false) {
            Some(Stream::Out) => dict.flows_response(&response, &mut out).expect("golden"),
            Some(Stream::Err) => dict.flows_response(&response, &mut err).expect("golden"),
            None => {}
        }
    }
    same(&out, golden!("flows.dict.out"));
    same(&err, golden!("flows.dict.err"));
}

#[test]
fn flows_table() {
    for (node_names, golden) in [(false, golden!("flows.tab.out")), (true, golden!("flows.tab-node.out"))] {
        let mut table = Table::flows(Options { node_names, ..Options::default() });
        for response in lines(golden!("flows.in.jsonl")) {
            table.flows_response(&response);
        }
        let mut out = String::new();
        table.write(&mut out).expect("golden");
        same(&out, golden);
    }
    // Node states of a table are lines of the compact layout.
    same(&flows(Options::default()).1, golden!("flows.tab.err"));
}

#[test]
fn events_dict_and_table() {
    let mut out = String::new();
    let (mut dict, mut table) = (Dict::new(Options::default()), Table::agent_events(Options::default()));
    for response in lines(golden!("agent.in.jsonl")) {
        dict.agent_event(&response, &mut out).expect("golden");
        table.agent_event(&response);
    }
    same(&out, golden!("agent.dict.out"));
    out.clear();
    table.write(&mut out).expect("golden");
    same(&out, golden!("agent.tab.out"));

    out.clear();
    let (mut dict, mut table) = (Dict::new(Options::default()), Table::debug_events(Options::default()));
    for response in lines(golden!("debug.in.jsonl")) {
        dict.debug_event(&response, &mut out).expect("golden");
        table.debug_event(&response);
    }
    same(&out, golden!("debug.dict.out"));
    out.clear();
    table.write(&mut out).expect("golden");
    same(&out, golden!("debug.tab.out"));
}

#[test]
fn status_dict_and_table() {
    let (mut dict, mut table) = (String::new(), String::new());
    for status in lines::<ServerStatusResponse>(golden!("status.in.jsonl")) {
        text::status::dict(&status, &mut dict).expect("golden");
        text::status::table(&status, &mut table).expect("golden");
    }
    same(&dict, golden!("status.dict.out"));
    same(&table, golden!("status.tab.out"));
}

fn one(options: Options, json: &str) -> String {
    let mut out = String::new();
    text::flow(options, &json::read::<Flow>(json).expect("golden"), &mut out).expect("golden");
    out
}

/// What the goldens don't hold: unknown numbers, missing parts, names that would deceive.
#[test]
fn odd_flows() {
    let options = Options::default();
    for (json, expected) in [
        ("{}", "N/A:  (unknown) <>  (unknown) UNKNOWN VERDICT_UNKNOWN ()\n"),
        (
            r#"{"event_type":{"type":4,"sub_type":14},"verdict":77}"#,
            "N/A:  (unknown) <>  (unknown) 14 77 ()\n",
        ),
        (
            r#"{"event_type":{"type":1,"sub_type":389},"verdict":"ERROR"}"#,
            "N/A:  (unknown) <>  (unknown) Policy denied ERROR ()\n",
        ),
        (
            r#"{"event_type":{"type":5},"policy_match_type":9,"verdict":"REDIRECTED"}"#,
            "N/A:  (unknown) <>  (unknown) policy-verdict:unknown TRAFFIC_DIRECTION_UNKNOWN ALLOWED ()\n",
        ),
        (
            r#"{"event_type":{"type":3},"debug_capture_point":"DBG_CAPTURE_DELIVERY"}"#,
            "N/A:  (unknown) <>  (unknown) DBG_CAPTURE_DELIVERY VERDICT_UNKNOWN ()\n",
        ),
        (
            r#"{"l7":{"type":"SAMPLE"},"auth_type":7,"Summary":"x"}"#,
            "N/A:  (unknown) <>  (unknown) l7-sample VERDICT_UNKNOWN (x; Auth: 7)\n",
        ),
        (
            r#"{"l7":{"type":"REQUEST","dns":{}},"source":{"identity":11}}"#,
            "N/A:  (ID:11) <>  (unknown) dns-request  VERDICT_UNKNOWN ()\n",
        ),
        (
            r#"{"IP":{"source":"::1","destination":"1.2.3.4"},"l4":{"TCP":{"source_port":70000}},"source":{"pod_name":"p"}}"#,
            "N/A: p:70000 (unknown) <> 1.2.3.4 (unknown) UNKNOWN VERDICT_UNKNOWN ()\n",
        ),
        (
            r#"{"IP":{},"source":{"namespace":"a","pod_name":"p"},"source_service":{"namespace":"b","name":"s"}}"#,
            "N/A: b/p (unknown) <>  (unknown) UNKNOWN VERDICT_UNKNOWN ()\n",
        ),
        (
            r#"{"IP":{"source":"x\nJan  5"},"destination_names":["a\u001b[2Jb","\u202ec"],"Summary":"\tq"}"#,
            "N/A: x\\nJan  5 (unknown) <> a^[[2Jb,\\u{202e}c (unknown) UNKNOWN VERDICT_UNKNOWN (\\tq)\n",
        ),
    ] {
        assert_eq!(one(options, json), expected, "{json}");
    }
}

#[test]
fn a_colour_sequence_in_the_data_never_passes() {
    let json = r#"{"IP":{"source":"\u001b[36mfake\u001b[0m"}}"#;
    let text = one(Options { colors: true, ..Options::default() }, json);
    assert!(text.contains("\u{1b}[36m^[[36mfake^[[0m\u{1b}[0m"), "{text}");
}

#[test]
fn lost_events_with_numbers_nobody_knows() {
    let lost = LostEvent { source: 9, num_events_lost: 4, ..LostEvent::default() };
    let options = Options { time: TimeFormat::Rfc3339, ..Options::default() };
    let time = prost_types::Timestamp { seconds: 0, nanos: 0 };
    let mut out = String::new();
    text::lost_events(options, Some(&time), &lost, &mut out).expect("golden");
    assert_eq!(out, "1970-01-01T00:00:00Z EVENTS LOST: 9 CPU(0) 4\n");
}
