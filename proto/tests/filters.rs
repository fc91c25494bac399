//! Compiled filters against what Hubble's own make of the same filters and flows.

use observer_proto::{
    filter::{Filters, parse_raw},
    flow::Flow,
    json,
};

/// Where we are better, and the docs say so.
const OURS: &[(&str, &str)] = &[
    // Hubble compares the text of addresses.
    (r#"{"source_ip":["FD00:0::5"]}"#, "3"),
];

#[test]
fn filters_do_what_hubbles_do() {
    let flows: Vec<Flow> = include_str!("../../testdata/filters/flows.jsonl")
        .lines()
        .map(|line| json::read(line).expect("a flow"))
        .collect();
    let cases = include_str!("../../testdata/filters/cases.tsv").lines().skip(1).map(|row| {
        let mut columns = row.splitn(3, '\t');
        let mut column = || columns.next().unwrap_or_else(|| panic!("{row}"));
        let (filter, kind, result) = (column(), column(), column());
        let result = match kind {
            "error" => Err(serde_json::from_str::<String>(result).expect("a JSON string")),
            _ => Ok(result),
        };
        (filter, result)
    });
    let mut wrong = Vec::new();
    let mut count = 0;
    for (filter, expected) in cases.chain(OURS.iter().map(|(filter, result)| (*filter, Ok(*result)))) {
        count += 1;
        let list = parse_raw(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let actual = Filters::compile(&list, &[]).map(|filters| {
            let passed = flows.iter().enumerate().filter(|(_, flow)| filters.matches(*flow));
            passed.map(|(line, _)| line.to_string()).collect::<Vec<_>>().join(" ")
        });
        let actual = actual.map_err(|error| {
            let limit = if error.is_limit() { "limit: " } else { "" };
            format!("{limit}{error}")
        });
        if actual.as_deref() != expected.as_deref() {
            wrong.push(format!("{filter}\n  hubble: {expected:?}\n  ours:   {actual:?}"));
        }
    }
    assert!(count > 400, "only {count} cases");
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}
