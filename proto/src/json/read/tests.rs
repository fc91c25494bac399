//! The reader against a reader by reflection, and against what Go's protojson is known to take.

use super::*;
use crate::{
    DESCRIPTORS,
    flow::{Flow, FlowFilter},
    json::line,
    observer::{ExportEvent, GetFlowsResponse},
};
use proptest::{prelude::*, sample::Index};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use regex::Regex;
use std::sync::LazyLock;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).unwrap());

const LINES: &str = include_str!("../../../../testdata/hubble-api/goldens/flows.in.jsonl");

/// The message as the other reader reads it.
fn reflected<M: prost::Message + prost::Name + Default>(json: &str, discard: bool) -> Option<M> {
    let descriptor = POOL.get_message_by_name(&M::full_name()).unwrap();
    let options = DeserializeOptions::new().deny_unknown_fields(!discard);
    let mut text = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut text, &options).ok()?;
    text.end().ok()?;
    message.transcode_to().ok()
}

#[test]
fn takes_both_spellings() {
    for json in [r#"{"node_name":"n1","IP":{"source":"::1"}}"#, r#"{"nodeName":"n1","IP":{"source":"::1"}}"#]
    {
        let flow: Flow = read(json).unwrap();
        assert_eq!(flow.node_name, "n1");
        assert_eq!(flow.ip.unwrap().source, "::1");
    }
}

#[test]
fn errors_name_what_is_wrong_and_where() {
    for (json, expected) in [
        (r#"{"pod":"x"}"#, "unknown field \"pod\" (column 2)"),
        (r#"{"verdict":"MAYBE"}"#, "unknown name \"MAYBE\" (column 12)"),
        (r#"{"time":"yesterday"}"#, "\"yesterday\" is no timestamp (column 9)"),
        (r#"{"uuid":"a"} x"#, "something follows the message (column 14)"),
        (r#"{"uuid":"é","uuid":""}"#, "field \"uuid\" stands twice (column 13)"),
        (r#"{"l4":{"TCP":{},"UDP":{}}}"#, "field \"UDP\" excludes one that stands before it (column 17)"),
        (r#"{"drop_reason":-1}"#, "\"-1\" is no number from 0 to 4294967295 (column 16)"),
        (r#"{"uuid":1}"#, "unexpected '1' (column 9)"),
        ("", "the text ends too early (column 1)"),
    ] {
        assert_eq!(read::<Flow>(json).unwrap_err().to_string(), expected, "{json}");
    }
}

/// What Go's protojson takes where others do not, and the other way round.
#[test]
fn accepted_and_refused_as_go_does_it() {
    for (json, expected) in [
        (r#" {"verdict" : 2 , "uuid":null, "l4":null}"#, Some(r#"{"verdict":"DROPPED"}"#)),
        (r#"{"verdict":2e0}"#, Some(r#"{"verdict":"DROPPED"}"#)),
        (r#"{"verdict":"2"}"#, None),
        (r#"{"verdict":null,"is_reply":false}"#, Some(r#"{"is_reply":false}"#)),
        (r#"{"is_reply":{"value":true}}"#, None),
        (r#"{"is_reply":"true"}"#, None),
        (r#"{"uuid":"a","uuid":"a"}"#, None),
        (r#"{"node_name":"a","nodeName":"a"}"#, None),
        (r#"{"l4":{"TCP":null,"UDP":{"source_port":"53"}}}"#, Some(r#"{"l4":{"UDP":{"source_port":53}}}"#)),
        (r#"{"l4":{"TCP":{},"UDP":{}}}"#, None),
        (r#"{"l4":{"UDP":{"source_port":" 53"}}}"#, None),
        (r#"{"l4":{"UDP":{"source_port":5.3e1}}}"#, Some(r#"{"l4":{"UDP":{"source_port":53}}}"#)),
        (r#"{"l4":{"UDP":{"source_port":53e}}}"#, Some(r#"{"l4":{"UDP":{"source_port":53}}}"#)),
        (r#"{"l4":{"UDP":{"source_port":"53e"}}}"#, None),
        (r#"{"l4":{"UDP":{"source_port":4294967296}}}"#, None),
        (r#"{"node_labels":["a",null]}"#, None),
        (r#"{"node_labels":["a",]}"#, None),
        (r#"{"node_labels":null}"#, Some("{}")),
        (r#"{"node_labels":"a"}"#, None),
        (r#"{"time":"2026-01-05T1:15:30,5Z"}"#, Some(r#"{"time":"2026-01-05T01:15:30.500Z"}"#)),
        (r#"{"extensions":{}}"#, Some(r#"{"extensions":{}}"#)),
        (r#"{"extensions":{"@type":"x.Y"}}"#, None),
        (r#"{"extensions":{"value":{}}}"#, None),
        (
            r#"{"extensions":{"value":{"a":[null,"x"]},"@type":"x/google.protobuf.Struct"}}"#,
            Some(r#"{"extensions":{"@type":"x/google.protobuf.Struct","value":{"a":[null,"x"]}}}"#),
        ),
        (r#"{"extensions":{"@type":"x/google.protobuf.Struct","value":{"a":1,"a":2}}}"#, None),
        (r#"{"extensions":{"@type":"x/google.protobuf.Struct","value":{"a":1e999}}}"#, None),
        (
            r#"{"extensions":{"uuid":"u","@type":"flow.Flow"}}"#,
            Some(r#"{"extensions":{"@type":"flow.Flow","uuid":"u"}}"#),
        ),
        (r#"{"[flow.ext]":1}"#, None),
        ("null", None),
        ("[]", None),
        ("{}{}", None),
    ] {
        let found = read::<Flow>(json).ok().map(|flow| line(&flow).unwrap());
        assert_eq!(found.as_deref(), expected, "{json}");
    }
}

#[test]
fn what_is_unknown_may_be_passed_over() {
    for (json, expected, column) in [
        (r#"{"new":{"a":[1]},"uuid":"u"}"#, r#"{"uuid":"u"}"#, Some(2)),
        (r#"{"uuid":"u","verdict":"NEW","Type":"NEW"}"#, r#"{"uuid":"u"}"#, Some(23)),
        (r#"{"[flow.ext]":1}"#, "{}", Some(2)),
        (r#"{"extensions":{"value":{}}}"#, r#"{"extensions":{}}"#, Some(15)),
        (r#"{"uuid":"u"}"#, r#"{"uuid":"u"}"#, None),
    ] {
        let mut encoded = Vec::new();
        let kind = MessageType::named("flow.Flow").unwrap();
        assert_eq!(Reader::discarding().read(kind, json, &mut encoded), Ok(column), "{json}");
        assert_eq!(line(&<Flow as prost::Message>::decode(&encoded[..]).unwrap()).unwrap(), expected);
    }
    for bad in [r#"{"new":{"a":[1}}"#, r#"{"new":1,"uuid":2}"#, r#"{"new":01}"#] {
        let mut out = b"before".to_vec();
        let kind = MessageType::named("flow.Flow").unwrap();
        assert!(Reader::discarding().read(kind, bad, &mut out).is_err(), "{bad}");
        assert_eq!(out, b"before");
    }
}

#[test]
fn messages_may_stand_one_after_the_other() {
    let filters = read_many::<FlowFilter>(r#" {"verdict":[2]} {"sourcePod":["a"]} "#).unwrap();
    assert_eq!((filters.len(), filters[1].source_pod[0].as_str()), (2, "a"));
    assert_eq!(read_many::<FlowFilter>(" ").unwrap(), []);
    for bad in ["null", "{} x", "{},{}"] {
        assert!(read_many::<FlowFilter>(bad).is_err(), "{bad}");
    }
}

#[test]
fn nesting_has_the_decoders_bound() {
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"flow":{{"extensions":{{"@type":"google.protobuf.Value","value":{open}{close}}}}}}}"#)
    };
    let deepest = (1..100).take_while(|depth| read::<GetFlowsResponse>(&nested(*depth)).is_ok()).last();
    assert!(deepest.is_some_and(|deepest| deepest > 40 && deepest < 60), "{deepest:?}");
    assert!(read::<GetFlowsResponse>(&nested(100_000)).is_err());
}

#[test]
fn the_tables_have_no_kind_of_field_that_is_not_read_and_no_message_has_too_many() {
    for message in SCHEMA.messages {
        assert!(message.fields.len() <= Seen::MOST && message.oneofs.len() <= Seen::MOST);
        let of_api = |field: &&Field| {
            // Descriptors, which are of proto2, are only written.
            let of_descriptor = field.explicit && field.oneof.is_none();
            !matches!(message.form, Form::Wrapper | Form::Any)
                && !matches!(field.kind, Kind::Message(_))
                && !of_descriptor
        };
        for field in message.fields.iter().filter(of_api) {
            assert!(!matches!(field.kind, Kind::Float | Kind::Bytes));
        }
    }
}

#[test]
fn names_are_those_of_the_descriptors() {
    for descriptor in POOL.all_messages() {
        let message = &SCHEMA.messages[MessageType::named(descriptor.full_name()).unwrap().0];
        for (place, field) in descriptor.fields().map(|field| (message.place_of(field.number()), field)) {
            let found = |name: &str, next| message.place_by_name(name.as_bytes(), next);
            let written = place.map(|place| (place, Spelling::Written));
            assert_eq!(found(field.name(), 3.min(message.fields.len())), written);
            assert_eq!(found(field.json_name(), 0).map(|found| found.0), place);
        }
    }
}

/// Which lines need no writer; that they are what it would write holds the fuzzer's check.
#[test]
fn what_is_as_written_is_known() {
    let kind = MessageType::named("observer.GetFlowsResponse").unwrap();
    let mut reader = Reader::discarding();
    let mut is_as_written = |json: &str| {
        reader.read(kind, json, &mut Vec::new()).unwrap();
        reader.is_as_written()
    };
    for json in [
        r#"{"flow":{"time":"2026-01-05T10:15:30Z","verdict":"DROPPED","IP":{"source":"é"},"l4":{"TCP":{"flags":{}}},"source":{"labels":["a",""]},"is_reply":false,"socket_cookie":"7"},"time":"2026-01-05T10:15:30.120Z"}"#,
        r#"{"flow":{"extensions":{"@type":"type.googleapis.com/google.protobuf.Struct","value":{"a":1,"b":[null,"x",{}]}}}}"#,
        r#"{"lost_events":{"cpu":0}}"#,
    ] {
        assert!(is_as_written(json), "{json}");
    }
    for json in [
        r#"{"flow": {}}"#,
        r#"{"nodeName":"n"}"#,
        r#"{"node_name":""}"#,
        r#"{"node_name":"a<b"}"#,
        r#"{"node_name":"\u0041"}"#,
        r#"{"node_name":"n","flow":{}}"#,
        r#"{"flow":null}"#,
        r#"{"flow":{},"later":1}"#,
        r#"{"flow":{"verdict":2}}"#,
        r#"{"flow":{"verdict":"VERDICT_UNKNOWN"}}"#,
        r#"{"flow":{"verdict":"OF_TOMORROW"}}"#,
        r#"{"flow":{"drop_reason":"5"}}"#,
        r#"{"flow":{"drop_reason":50e1}}"#,
        r#"{"flow":{"socket_cookie":7}}"#,
        r#"{"flow":{"socket_cookie":"7e1"}}"#,
        r#"{"flow":{"node_labels":[]}}"#,
        r#"{"time":"2026-01-05T10:15:30.1Z"}"#,
        r#"{"time":"2026-01-05T10:15:30.000Z"}"#,
        r#"{"time":"2026-01-05T10:15:30+00:00"}"#,
        r#"{"time":"2026-01-05T1:15:30Z"}"#,
        r#"{"flow":{"extensions":{"@type":"x/google.protobuf.Struct","value":{"b":1,"a":1}}}}"#,
        r#"{"flow":{"extensions":{"@type":"x/google.protobuf.Struct","value":{"a":1.5}}}}"#,
        r#"{"flow":{"extensions":{"value":{},"@type":"x/google.protobuf.Struct"}}}"#,
    ] {
        assert!(!is_as_written(json), "{json}");
    }
}

/// A golden line as the other reader would read it, with every name in camelCase or not.
fn spelled(at: usize, camel: bool) -> String {
    let json = LINES.lines().nth(at % LINES.lines().count()).unwrap();
    if !camel {
        return json.to_owned();
    }
    let descriptor = POOL.get_message_by_name("observer.GetFlowsResponse").unwrap();
    let message =
        DynamicMessage::deserialize(descriptor, &mut serde_json::Deserializer::from_str(json)).unwrap();
    serde_json::to_string(&message).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn equals_reflection_on_lines_and_their_mutations(
        at in any::<usize>(),
        camel in any::<bool>(),
        changes in proptest::collection::vec((any::<Index>(), any::<u8>(), 0_u8..4), 0..3),
    ) {
        let mut text = spelled(at, camel).into_bytes();
        for (place, byte, how) in changes {
            let place = place.index(text.len());
            match how {
                // Mostly what makes another JSON of it.
                0 => text[place] = b"{}[]\",:0-9e.tfn\\ "[usize::from(byte) % 17],
                1 => drop(text.remove(place)),
                2 => text.insert(place, b"\",0 }e"[usize::from(byte) % 6]),
                _ => text[place] = byte,
            }
        }
        let Ok(text) = std::str::from_utf8(&text) else { return Ok(()) };
        for discard in [false, true] {
            let theirs = reflected::<GetFlowsResponse>(text, discard);
            let mut reader = if discard { Reader::discarding() } else { Reader::strict() };
            let ours = read_with::<GetFlowsResponse>(&mut reader, text);
            match (&ours, &theirs) {
                (Ok(ours), Some(theirs)) => prop_assert_eq!(ours, theirs),
                // Its own laxities: a field that stands twice or excludes another, a number in a string, and null.
                (Err(error), Some(_)) => prop_assert!(
                    ["twice", "excludes", "is no", "unexpected", "unable", "neither"].iter().any(|why| error.what.contains(why)),
                    "{} in {}", error, text
                ),
                (Ok(ours), None) => prop_assert!(is_gos_own(text, discard), "{:?} of {}", ours, text),
                (Err(_), None) => {}
            }
        }
    }
}

/// What Go takes and the other reader does not: an hour of one digit, a comma in a time, exponents, what follows a number
/// in its string; and where the unknown is passed over an Any that lacks its type.
fn is_gos_own(text: &str, discard: bool) -> bool {
    static SPELLINGS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"T\d:|:\d\d,|\d[eE]|"-?\d+[^"\d]"#).unwrap());
    SPELLINGS.is_match(text) || discard && read::<GetFlowsResponse>(text).is_err()
}

#[test]
fn exports_are_read_too() {
    for json in LINES.lines() {
        assert_eq!(read::<ExportEvent>(json).ok(), reflected(json, false), "{json}");
    }
}
