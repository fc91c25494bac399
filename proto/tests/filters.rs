//! Compiled filters against what Hubble's own make of the same filters and flows.

use observer_proto::{
    filter::{Column, Filters, FlowView, LOT, Side, parse_raw, traits},
    flow::Flow,
    json,
};
use std::net::IpAddr;

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
            let passed: Vec<usize> = (0..flows.len()).filter(|line| filters.matches(&flows[*line])).collect();
            assert_eq!(passed, selected(&flows, filters), "{filter}: one by one, and many at once");
            passed.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
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

/// The lines of the flows that pass when many are asked about at once.
fn selected(flows: &[Flow], filters: Filters) -> Vec<usize> {
    let mut matcher = filters.matcher();
    let mut lines = Vec::new();
    for (lot, flows) in flows.chunks(LOT).enumerate() {
        let columns: [Vec<u32>; Column::COUNT] =
            std::array::from_fn(|column| flows.iter().map(|flow| glance(flow)[column]).collect());
        let columns = columns.each_ref().map(Vec::as_slice);
        let passing = matcher.select(&columns, |place| flows[place].clone());
        lines.extend(
            (0..flows.len()).filter(|place| passing >> place & 1 == 1).map(|place| lot * LOT + place),
        );
    }
    lines
}

/// By column; messages have ends without a number.
fn glance(flow: &Flow) -> [u32; Column::COUNT] {
    let v4 = |side| match flow.ip(side) {
        Some(IpAddr::V4(ip)) => ip.to_bits(),
        _ => 0,
    };
    let port = |side| u32::from(flow.port(side).unwrap_or_default());
    let byte = |number| u8::try_from(number).unwrap_or(u8::MAX);
    let mut glance = [0; Column::COUNT];
    glance[Column::SourceV4 as usize] = v4(Side::Source);
    glance[Column::DestinationV4 as usize] = v4(Side::Destination);
    glance[Column::Ports as usize] = port(Side::Source) << 16 | port(Side::Destination);
    glance[Column::Traits as usize] = traits(
        byte(FlowView::verdict(flow)),
        FlowView::l4(flow),
        FlowView::is_reply(flow),
        byte(FlowView::traffic_direction(flow)),
        byte(FlowView::ip_version(flow)),
        flow.tcp_flags(),
    );
    glance
}
