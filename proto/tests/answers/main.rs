//! Answers made of the lab's flows (testdata/answers): how all look, and in `why` what is said of each cause of a drop.
//! `UPDATE_GOLDENS=1` writes the goldens anew.

mod why;

use observer_proto::{
    answers::{
        about::{About, CountedBy},
        aggregate::Aggregate,
        fields,
        graph::{Edges, Graph},
        top::{self, By, Top},
        why::{Cause, Outcome, Report, Route, Why},
    },
    filter,
    flow::{
        CiliumEventType, Dns, DropReason, Flow, Http, Ip, L7FlowType, Layer4, Layer7, Policy, Tcp, Verdict,
        layer4::Protocol, layer7::Record,
    },
    json,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    stats,
};
use std::{fs, path::PathBuf};
use unicode_width::UnicodeWidthStr as _;

const DEMO: &str = include_str!("../../../testdata/answers/demo.jsonl");

fn flows() -> Vec<Flow> {
    let read = |line: &str| match json::read::<GetFlowsResponse>(line).expect(line).response_types {
        Some(ResponseTypes::Flow(flow)) => flow,
        other => panic!("{other:?}"),
    };
    DEMO.lines().map(read).collect()
}

/// As a server sends them that is not ours.
fn plain() -> Vec<Flow> {
    flows().into_iter().map(|flow| Flow { extensions: None, ..flow }).collect()
}

fn about() -> About {
    About { counted_by: CountedBy::File, ..About::default() }
}

fn same(actual: &str, golden: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/answers").join(golden);
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        fs::write(&file, actual).expect("the golden");
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    for (actual, expected) in actual.lines().zip(expected.lines()) {
        assert_eq!(actual, expected, "{golden}");
    }
    assert_eq!(actual, expected, "{golden}");
}

/// What a policy says of a packet.
fn would_be_denied(packet: Flow) -> Flow {
    let policy = Policy { name: "p".into(), namespace: "payments".into(), ..Policy::default() };
    Flow {
        event_type: Some(CiliumEventType { r#type: 5, sub_type: 0 }),
        verdict: Verdict::Audit.into(),
        ingress_denied_by: vec![policy],
        extensions: None,
        ..packet
    }
}

fn aggregate(by: &str, flows: &[Flow], limit: usize) -> observer_proto::answers::aggregate::Report {
    let mut aggregate = Aggregate::new(fields::parse(by).expect(by), about(), None);
    for flow in flows {
        aggregate.flow(flow);
    }
    aggregate.report(limit)
}

#[test]
fn counts_by_fields() {
    let (flows, plain) = (flows(), plain());
    let by = "from-workload,to-workload,verdict";
    same(&aggregate(by, &flows, 12).text(Some(120)), "aggregate-120.txt");
    same(&aggregate(by, &flows, 12).text(Some(60)), "aggregate-60.txt");
    same(&aggregate(by, &plain, 12).text(None), "plain-aggregate.txt");
    same(&(aggregate("reason,location", &flows, 20).json() + "\n"), "aggregate-reason.json");
    // Every field can be read of every flow.
    for field in fields::FIELDS {
        let report: serde_json::Value =
            serde_json::from_str(&aggregate(field.name, &flows, 4096).json()).expect("JSON");
        let groups = report["groups"].as_array().expect("groups");
        let sum: u64 = groups.iter().map(|group| group["flows"].as_u64().expect("a number")).sum();
        assert_eq!(sum, flows.len() as u64, "{}", field.name);
    }
    assert!(fields::parse("from-pod,colour").expect_err("no field").contains("from-pod, to-pod"));
}

fn graph(flows: &[Flow]) -> Graph {
    let mut edges = Edges::new(about(), None);
    for flow in flows {
        edges.flow(flow);
    }
    edges.graph(100)
}

#[test]
fn the_service_map() {
    let (graph, plain) = (graph(&flows()), graph(&plain()));
    same(&graph.text(Some(80)), "graph-80.txt");
    same(&(graph.json() + "\n"), "graph.json");
    same(&graph.dot(), "graph.dot");
    same(&graph.mermaid(), "graph.mmd");
    same(&plain.text(None), "plain-graph.txt");
    let edge = stats::Edge {
        client: "web/a\"b\\c\u{1b}[31m<i>".to_owned(),
        server: "x".to_owned(),
        protocol: "TCP".to_owned(),
        port: 80,
        flows: 3,
        bytes: 1234,
        errors: 0,
    };
    let window = stats::Window { flows: 3, ..stats::Window::default() };
    let told = Graph::told(stats::GetEdgesResponse { window: Some(window), edges: vec![edge], other: None });
    assert!(
        told.dot().contains(r#"  "web/a\"b\\c^[[31m<i>" -> "x" [label="80/TCP: 3 flows"];"#),
        "{}",
        told.dot()
    );
    assert!(told.mermaid().contains("n0[\"web/a#quot;b\\c^[[31m#lt;i#gt;\"]"), "{}", told.mermaid());
    assert!(told.text(None).contains("counted by the server"), "{}", told.text(None));
}

#[test]
fn verdicts_of_policies_are_no_traffic() {
    let flows = flows();
    let with_verdicts: Vec<Flow> =
        flows.iter().flat_map(|flow| [flow.clone(), would_be_denied(flow.clone())]).collect();
    assert_eq!(graph(&with_verdicts).json(), graph(&flows).json());
    assert_eq!(top(By::Workload, &with_verdicts).json(), top(By::Workload, &flows).json());
    let policies = top(By::Policy, &with_verdicts).text(None);
    assert!(policies.contains("payments/p"), "{policies}");
}

fn top(by: By, flows: &[Flow]) -> top::Report {
    let mut top = Top::new(by, CountedBy::File, None, 0);
    for flow in flows {
        top.flow(flow, 0);
    }
    top.report(0, 6)
}

#[test]
fn who_talks_most() {
    let (flows, plain) = (flows(), plain());
    same(&top(By::Workload, &flows).text(Some(80)), "top-workload-80.txt");
    same(&top(By::Workload, &flows).text(Some(40)), "top-workload-40.txt");
    same(&(top(By::Pod, &flows).json() + "\n"), "top-pod.json");
    same(&top(By::Namespace, &flows).text(None), "top-namespace.txt");
    same(&top(By::Port, &flows).text(None), "top-port.txt");
    same(&top(By::Reason, &flows).text(Some(100)), "top-reason-100.txt");
    same(&top(By::Policy, &flows).text(None), "top-policy.txt");
    same(&top(By::Workload, &plain).text(None), "plain-top-workload.txt");
    assert!(By::named("colour").expect_err("none").contains("workload, pod"));
}

/// Rates of the last seconds forget what came before them.
#[test]
fn rates_slide() {
    let flows = flows();
    let mut top = Top::new(By::Port, CountedBy::Client, Some(10), 1000);
    for now in 1000..1100 {
        top.flow(&flows[0], now);
    }
    let report: serde_json::Value = serde_json::from_str(&top.report(1099, 5).json()).expect("JSON");
    assert_eq!((report["about"]["flows"].as_u64(), report["seconds"].as_f64()), (Some(10), Some(10.0)));
    let report: serde_json::Value = serde_json::from_str(&top.report(2000, 5).json()).expect("JSON");
    assert_eq!(
        (report["about"]["flows"].as_u64(), report["rows"].as_array().map(Vec::len)),
        (Some(0), Some(0))
    );
}

/// No line of a table is wider than the terminal.
#[test]
fn tables_fit() {
    let flows = flows();
    for width in [40, 57, 80, 120] {
        for text in [
            aggregate("from,to", &flows, 50).text(Some(width)),
            graph(&flows).text(Some(width)),
            top(By::Pod, &flows).text(Some(width)),
        ] {
            // The last line says what it is of, and may wrap.
            let table = text.lines().take_while(|line| !line.starts_with("counted"));
            for line in table {
                assert!(line.width() <= width, "{width}: {line}");
            }
        }
    }
}
