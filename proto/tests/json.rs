//! JSON against what Hubble's own printer printed, byte for byte, and against hostile input.

use observer_proto::{
    flow::Flow,
    json::{self, MessageType, WriteError, Writer},
    observer::{
        GetAgentEventsResponse, GetDebugEventsResponse, GetFlowsRequest, GetFlowsResponse,
        ServerStatusResponse, get_flows_response::ResponseTypes,
    },
    relay::NodeState,
};
use proptest::prelude::*;
use prost::Message as _;

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../testdata/hubble-api/goldens/", $name))
    };
}

fn lines<M: prost::Message + prost::Name + Default>(text: &str) -> Vec<M> {
    text.lines().map(|line| json::read(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

fn written<M: prost::Message + prost::Name>(messages: &[M]) -> String {
    let mut writer = Writer::new();
    let mut out = Vec::new();
    for message in messages {
        writer.message(message, &mut out).expect("golden");
        out.push(b'\n');
    }
    String::from_utf8(out).expect("golden")
}

fn same(actual: &str, expected: &str) {
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected);
    }
    assert_eq!(actual, expected);
}

#[test]
fn flows() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for response in lines::<GetFlowsResponse>(golden!("flows.in.jsonl")) {
        match &response.response_types {
            Some(ResponseTypes::NodeStatus(status)) => {
                if status.state_change() != NodeState::NodeConnected {
                    err.push(response);
                }
            }
            _ => out.push(response),
        }
    }
    same(&written(&out), golden!("flows.json.out"));
    same(&written(&err), golden!("flows.json.err"));
}

#[test]
fn legacy_flows() {
    let mut writer = Writer::new();
    let mut out = Vec::new();
    for response in lines::<GetFlowsResponse>(golden!("flows.in.jsonl")) {
        if json::legacy(&mut writer, &response, &mut out).expect("golden") {
            out.push(b'\n');
        }
    }
    same(std::str::from_utf8(&out).expect("golden"), golden!("flows.legacy.out"));
}

#[test]
fn agent_debug_and_status() {
    same(&written(&lines::<GetAgentEventsResponse>(golden!("agent.in.jsonl"))), golden!("agent.json.out"));
    same(&written(&lines::<GetDebugEventsResponse>(golden!("debug.in.jsonl"))), golden!("debug.json.out"));
    same(&written(&lines::<ServerStatusResponse>(golden!("status.in.jsonl"))), golden!("status.json.out"));
}

#[test]
fn what_was_written_reads_back_as_the_same() {
    let first = lines::<GetFlowsResponse>(golden!("flows.in.jsonl"));
    let text = written(&first);
    assert_eq!(lines::<GetFlowsResponse>(&text), first);
    same(&written(&lines::<GetFlowsResponse>(&text)), &text);
}

#[test]
fn extensions_hold_a_struct() {
    let json = concat!(
        r#"{"extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":"#,
        r#"{"\u003c":true,"Z":null,"a":[1,"x",{"b":-0}],"n":1e+21,"s":"\u0026"}}}"#
    );
    let flow: Flow = json::read(json).expect("golden");
    assert_eq!(json::line(&flow).expect("golden"), json);
}

#[test]
fn an_any_of_an_unknown_type_is_an_error_and_leaves_nothing_behind() {
    let extensions = Some(prost_types::Any { type_url: "type.googleapis.com/x.Y".into(), value: vec![] });
    let flow = Flow { uuid: "u".into(), extensions, ..Flow::default() };
    let mut out = b"before".to_vec();
    let error = Writer::new().message(&flow, &mut out).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"google.protobuf.Any: unable to resolve "type.googleapis.com/x.Y": not found"#
    );
    assert_eq!(out, b"before");
}

#[test]
fn unknown_enum_numbers_print_as_numbers_and_unknown_fields_not_at_all() {
    let flow = Flow { verdict: 99, drop_reason_desc: -1, ..Flow::default() };
    let mut bytes = flow.encode_to_vec();
    // Field 5000, a varint; then a group 5001 with a field in it.
    bytes.extend([0xc0, 0xb8, 0x02, 0x01, 0xcb, 0xb8, 0x02, 0x08, 0x01, 0xcc, 0xb8, 0x02]);
    let mut out = Vec::new();
    Writer::new().write(MessageType::named("flow.Flow").expect("golden"), &bytes, &mut out).expect("golden");
    assert_eq!(out, br#"{"verdict":99,"drop_reason_desc":-1}"#);
}

#[test]
fn messages_in_pieces_are_merged_and_the_last_of_a_oneof_wins() {
    let kind = MessageType::named("flow.Flow").expect("golden");
    let piece = |json: &str| json::read::<Flow>(json).expect("golden").encode_to_vec();
    let mut out = Vec::new();
    let bytes = [
        piece(r#"{"IP":{"source":"a"},"l4":{"TCP":{"source_port":1}},"node_labels":["x"]}"#),
        piece(r#"{"IP":{"source":"b","destination":"c"},"l4":{"UDP":{}},"node_labels":["y"]}"#),
    ]
    .concat();
    Writer::new().write(kind, &bytes, &mut out).expect("golden");
    assert_eq!(
        std::str::from_utf8(&out).expect("golden"),
        r#"{"IP":{"source":"b","destination":"c"},"l4":{"UDP":{}},"node_labels":["x","y"]}"#
    );
}

#[test]
fn repeated_numbers_are_read_packed_and_apart() {
    let kind = MessageType::named("flow.FlowFilter").expect("golden");
    // verdict = 5: packed [1, 2], then a single 7; reply = 15: an empty packed list.
    let bytes = [0x2a, 0x02, 0x01, 0x02, 0x28, 0x07, 0x7a, 0x00];
    let mut out = Vec::new();
    Writer::new().write(kind, &bytes, &mut out).expect("golden");
    assert_eq!(out, br#"{"verdict":["FORWARDED","DROPPED","TRANSLATED"]}"#);
}

#[test]
fn times_have_no_three_six_or_nine_digits() {
    for (seconds, nanos, expected) in [
        (0, 0, "1970-01-01T00:00:00Z"),
        (0, 100_000_000, "1970-01-01T00:00:00.100Z"),
        (-1, 1_000, "1969-12-31T23:59:59.000001Z"),
        (1_767_608_130, 123_456_789, "2026-01-05T10:15:30.123456789Z"),
        (-62_135_596_800, 0, "0001-01-01T00:00:00Z"),
        (253_402_300_799, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
    ] {
        let time = prost_types::Timestamp { seconds, nanos };
        assert_eq!(json::line(&time).expect("golden"), format!("\"{expected}\""));
    }
    for (seconds, nanos) in [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
        let time = prost_types::Timestamp { seconds, nanos };
        assert!(matches!(json::line(&time), Err(WriteError::NoJson(_))), "{seconds} {nanos}");
    }
}

#[test]
fn durations_and_masks() {
    for (seconds, nanos, expected) in [(0, 0, "0s"), (-1, -500_000_000, "-1.500s"), (60, 1, "60.000000001s")]
    {
        let duration = prost_types::Duration { seconds, nanos };
        assert_eq!(json::line(&duration).expect("golden"), format!("\"{expected}\""));
    }
    let mixed = prost_types::Duration { seconds: 1, nanos: -1 };
    assert!(matches!(json::line(&mixed), Err(WriteError::NoJson(_))));
    let mask = |path: &str| GetFlowsRequest {
        field_mask: Some(prost_types::FieldMask { paths: vec!["uuid".into(), path.into()] }),
        ..GetFlowsRequest::default()
    };
    assert_eq!(
        json::line(&mask("source.pod_name")).expect("golden"),
        r#"{"field_mask":"uuid,source.podName"}"#
    );
    for path in ["IP", "a__b", "a_"] {
        assert!(matches!(json::line(&mask(path)), Err(WriteError::NoJson(_))), "{path}");
    }
}

#[test]
fn nesting_has_a_bound() {
    // google.protobuf.Value { list_value: ListValue { values: [ ... ] } }, deeper and deeper.
    let mut bytes = vec![0x20, 0x01];
    let kind = MessageType::named("google.protobuf.Value").expect("golden");
    let mut deepest = 0;
    for depth in 1..2_000 {
        for tag in [0x0a, 0x32] {
            let mut outer = vec![tag];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        match Writer::new().write(kind, &bytes, &mut Vec::new()) {
            Ok(()) => deepest = depth,
            Err(error) => assert_eq!(error, WriteError::Depth),
        }
    }
    assert_eq!(deepest, 50);
}

proptest! {
    #[test]
    fn the_writer_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut writer = Writer::new();
        for name in ["observer.GetFlowsResponse", "flow.Flow", "flow.FlowFilter", "google.protobuf.Struct"] {
            let mut out = Vec::new();
            if writer.write(MessageType::named(name).unwrap(), &bytes, &mut out).is_ok() {
                serde_json::from_slice::<serde_json::Value>(&out).unwrap();
            } else {
                prop_assert!(out.is_empty());
            }
        }
    }

    /// Real messages with a few bytes changed get further than noise does.
    #[test]
    fn the_writer_takes_damaged_messages(
        line in 0_usize..22,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let line = golden!("flows.in.jsonl").lines().nth(line).unwrap();
        let mut bytes = json::read::<GetFlowsResponse>(line).unwrap().encode_to_vec();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let kind = MessageType::named("observer.GetFlowsResponse").unwrap();
        let mut out = Vec::new();
        if Writer::new().write(kind, &bytes, &mut out).is_ok() {
            serde_json::from_slice::<serde_json::Value>(&out).unwrap();
        }
    }

    /// Where prost reads a message at all, the writer says the same as it.
    #[test]
    fn damaged_messages_mean_what_prost_says(
        line in 0_usize..22,
        change in (any::<proptest::sample::Index>(), any::<u8>()),
    ) {
        let line = golden!("flows.in.jsonl").lines().nth(line).unwrap();
        let mut bytes = json::read::<GetFlowsResponse>(line).unwrap().encode_to_vec();
        let at = change.0.index(bytes.len());
        bytes[at] = change.1;
        if let Ok(message) = GetFlowsResponse::decode(bytes.as_slice()) {
            let kind = MessageType::named("observer.GetFlowsResponse").unwrap();
            let mut out = Vec::new();
            let written = Writer::new().write(kind, &bytes, &mut out).map(|()| out);
            let again = json::line(&message).map(String::into_bytes);
            prop_assert_eq!(written, again);
        }
    }
}
