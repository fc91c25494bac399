//! Lines and records that are too long: their lists and texts are made shorter until they are short enough. Which fields can
//! be long is for whoever makes them to say, and grows; so what is cut is the JSON, or the record's attributes.

use observer_proto::{json, observer::ExportEvent};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::LogRecord,
};
use prost::Message as _;
use serde_json::{Map, Value};

/// What `extensions` get, beside what they have.
pub(super) const MARKER: &str = "truncated";
/// Items of a list and bytes of a text, from the mildest on. Names of enums, times and addresses are shorter than the
/// shortest, so the fields stay what they are; and a flow has fewer than a hundred texts.
const STEPS: [(usize, usize); 5] = [(64, 256), (16, 128), (4, 96), (1, 64), (0, 64)];

/// The line, of fewer than `limit` bytes, with the marker.
pub(super) fn cut(line: &[u8], limit: usize) -> String {
    let whole: Value = serde_json::from_slice(line).unwrap_or_default();
    let shorter = STEPS.iter().find_map(|(items, bytes)| {
        let mut value = whole.clone();
        shorten(&mut value, *items, *bytes);
        mark(&mut value);
        // By way of the message, so that the fields are in their order again.
        let event: ExportEvent = json::read(&value.to_string()).ok()?;
        json::line(&event).ok().filter(|line| line.len() < limit)
    });
    // A line that says nothing but that there was one.
    shorter.unwrap_or_else(|| "{\"flow\":{}}".to_owned())
}

/// Makes a record of OpenTelemetry's logs shorter than `limit` bytes; whether it was longer. What it is, is told by numbers,
/// names of enums and times, which stay.
pub(super) fn cut_record(record: &mut LogRecord, limit: usize) -> bool {
    let mut steps = STEPS.iter();
    let mut is_cut = false;
    while record.encoded_len() >= limit
        && let Some((items, bytes)) = steps.next()
    {
        let attributes = record.attributes.iter_mut().filter_map(|attribute| attribute.value.as_mut());
        attributes.chain(&mut record.body).for_each(|value| shorten_any(value, *items, *bytes));
        if !is_cut {
            is_cut = true;
            let value = Some(AnyValue { value: Some(any_value::Value::BoolValue(true)) });
            let key = format!("flow.extensions.{MARKER}");
            record.attributes.push(KeyValue { key, value, ..KeyValue::default() });
        }
    }
    is_cut
}

fn shorten_any(value: &mut AnyValue, items: usize, bytes: usize) {
    match &mut value.value {
        Some(any_value::Value::StringValue(text)) => text.truncate(text.floor_char_boundary(bytes)),
        Some(any_value::Value::ArrayValue(list)) => {
            list.values.truncate(items);
            list.values.iter_mut().for_each(|value| shorten_any(value, items, bytes));
        }
        // A record has no others.
        _ => {}
    }
}

fn shorten(value: &mut Value, items: usize, bytes: usize) {
    match value {
        Value::String(text) => text.truncate(text.floor_char_boundary(bytes)),
        Value::Array(list) => {
            list.truncate(items);
            for value in list {
                shorten(value, items, bytes);
            }
        }
        Value::Object(fields) => {
            for value in fields.values_mut() {
                shorten(value, items, bytes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn mark(event: &mut Value) {
    let flow = event.get_mut("flow").and_then(Value::as_object_mut);
    let Some(flow) = flow else { return };
    let extensions = flow.entry("extensions").or_insert_with(|| {
        let kind = Value::from("type.googleapis.com/google.protobuf.Struct");
        Value::from(Map::from_iter([("@type".to_owned(), kind), ("value".to_owned(), Map::new().into())]))
    });
    if let Some(entries) = extensions.get_mut("value").and_then(Value::as_object_mut) {
        entries.insert(MARKER.to_owned(), true.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{lines::LONGEST, otlp::records::record};
    use observer_proto::{
        flow::{Endpoint, Flow, Policy},
        observer::export_event::ResponseTypes,
    };

    #[test]
    fn a_line_with_hostile_lists_and_texts_gets_short_enough_and_says_so() {
        let long = |bytes: usize| "é\"<".repeat(bytes / 4);
        let labels = |count: usize, bytes: usize| vec![long(bytes); count];
        let endpoint = |labels: Vec<String>| Endpoint {
            namespace: long(9_000),
            pod_name: "web-0".into(),
            labels,
            ..Endpoint::default()
        };
        for (labels, policies) in
            [(labels(3, 16_000), 0), (labels(1_000, 20), 0), (labels(60, 300), 500), (labels(500, 5_000), 1)]
        {
            let flow = Flow {
                uuid: "00000000-0000-4000-8000-000000000001".into(),
                source: Some(endpoint(labels.clone())),
                destination: Some(endpoint(labels)),
                ingress_denied_by: vec![Policy { name: long(300), ..Policy::default() }; policies],
                policy_log: vec![long(20_000)],
                node_name: "default/n1".into(),
                ..Flow::default()
            };
            let event = ExportEvent {
                node_name: "default/n1".into(),
                time: Some(crate::serve::encode::proto_time(1_700_000_000_123_456_789)),
                response_types: Some(ResponseTypes::Flow(flow)),
            };
            let line = json::line(&event).unwrap();
            assert!(line.len() > LONGEST, "{}", line.len());
            let mut record = record(&event).unwrap();
            assert!(cut_record(&mut record, LONGEST) && record.encoded_len() < LONGEST);
            let has = |key: &str, value: any_value::Value| {
                let is_it = |one: &KeyValue| {
                    one.key == key && one.value.as_ref().and_then(|any| any.value.as_ref()) == Some(&value)
                };
                record.attributes.iter().any(is_it)
            };
            assert!(has("flow.extensions.truncated", any_value::Value::BoolValue(true)), "{record:?}");
            assert!(has("source.k8s.pod.name", any_value::Value::StringValue("web-0".into())), "{record:?}");
            let whole = record.clone();
            assert!(!cut_record(&mut record, LONGEST) && record == whole, "it is short enough");
            let cut = cut(line.as_bytes(), LONGEST - 1);
            assert!(cut.len() + 1 < LONGEST, "{}", cut.len());
            assert!(cut.contains("\"truncated\":true"), "{cut}");
            let read: ExportEvent = json::read(&cut).unwrap();
            let Some(ResponseTypes::Flow(flow)) = read.response_types else { panic!("{cut}") };
            assert_eq!((read.time, read.node_name), (event.time, event.node_name));
            assert_eq!(flow.uuid, "00000000-0000-4000-8000-000000000001");
            assert_eq!(flow.source.unwrap().pod_name, "web-0");
        }
    }
}
