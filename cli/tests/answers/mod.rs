//! Answers made of many flows: of files, of a server like any Hubble's, and of one that counts itself.

use crate::{
    observe, run,
    server::{Mock, Server},
    stderr, stdout,
};
use observer_proto::{
    flow::FlowFilter,
    json,
    observer::GetFlowsResponse,
    stats::{Edge, GetEdgesResponse, Window},
};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/answers/demo.jsonl");

/// Read at run time: `proto/tests/answers` writes them anew.
fn golden(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/answers");
    std::fs::read_to_string(format!("{folder}/{name}")).unwrap()
}

/// Of the lab's flows in a file, on lines of so many cells.
fn of_file(arguments: &str, columns: &str) -> String {
    let words: Vec<&str> = arguments.split_whitespace().chain(["--input-file", DEMO]).collect();
    let output = observe("unix:///nowhere.sock", &words).env("COLUMNS", columns).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", stderr(&output));
    assert_eq!(stderr(&output), "", "{arguments}");
    stdout(&output)
}

fn server(mock: Mock) -> Server {
    let text = golden("demo.jsonl");
    let flows = text.lines().map(|line| json::read::<GetFlowsResponse>(line).unwrap());
    Server::start(Mock { flows: flows.collect(), ..mock })
}

#[test]
fn files_give_what_their_flows_give() {
    let guarded = "why --from-pod web/frontend-app --to-pod payments/payments-api --to-port 9000";
    assert_eq!(of_file(guarded, "80"), golden("why-guarded-80.txt"));
    assert_eq!(of_file(&format!("{guarded} -o json"), "80"), golden("why-guarded.json"));
    assert_eq!(of_file("graph", "80"), golden("graph-80.txt"));
    assert_eq!(of_file("graph -o json", "80"), golden("graph.json"));
    assert_eq!(of_file("graph -o dot", "80"), golden("graph.dot"));
    assert_eq!(of_file("graph -o mermaid", "80"), golden("graph.mmd"));
    assert_eq!(of_file("top --limit 6", "80"), golden("top-workload-80.txt"));
    assert_eq!(of_file("top --limit 6 --by reason", "100"), golden("top-reason-100.txt"));
    assert_eq!(of_file("top --limit 6 --by pod -o json", "80"), golden("top-pod.json"));
    assert_eq!(of_file("--aggregate-by reason,location -o json", "80"), golden("aggregate-reason.json"));
    let dropped = of_file("--aggregate-by verdict --verdict DROPPED", "80");
    assert!(dropped.lines().nth(1).is_some_and(|line| line.starts_with("DROPPED")), "{dropped}");
    assert_eq!(dropped.lines().count(), 3, "{dropped}");
}

#[test]
fn why_asks_for_both_ways_and_for_what_both_do_else() {
    let server = server(Mock::default());
    let output = run(
        &server,
        &[
            "why",
            "--from-pod",
            "web/frontend-app",
            "--to-pod",
            "payments/",
            "--to-port",
            "9000",
            "--since",
            "87600h",
        ],
    );
    let text = stdout(&output);
    assert!(
        text.starts_with(
            "Why can't web/frontend-app reach payments/ on port 9000?\n\nBLOCKED: a firewall rule"
        ),
        "{text}{}",
        stderr(&output)
    );
    assert!(text.contains("counted here from the flows of GetFlows: "), "{text}");
    let request = server.request();
    let there = FlowFilter {
        source_pod: vec!["web/frontend-app".into()],
        destination_pod: vec!["payments/".into()],
        ..FlowFilter::default()
    };
    let back = FlowFilter {
        source_pod: there.destination_pod.clone(),
        destination_pod: there.source_pod.clone(),
        ..FlowFilter::default()
    };
    let dns = FlowFilter { protocol: vec!["dns".into()], ..FlowFilter::default() };
    let query = FlowFilter { source_pod: there.source_pod.clone(), ..dns.clone() };
    let answer = FlowFilter { destination_pod: there.source_pod.clone(), ..dns };
    assert_eq!(request.blacklist, [back, there, answer, query], "what was asked for before");
    assert_eq!((request.whitelist.len(), request.number, request.since), (4, 4096, None));
}

#[test]
fn a_server_that_counts_is_asked_and_another_ones_flows_are_counted() {
    let edge = Edge {
        client: "web/frontend".into(),
        server: "shop/cart".into(),
        protocol: "TCP".into(),
        port: 80,
        flows: 12_345,
        bytes: 6_000,
        errors: 0,
    };
    let window = Window { flows: 12_345, ..Window::default() };
    let edges = GetEdgesResponse { window: Some(window), edges: vec![edge], other: None };
    let counts = server(Mock { edges: Some(edges), ..Mock::default() });
    let plain = server(Mock::default());
    for (arguments, has_filter) in [
        (&["graph"][..], false),
        (&["graph", "--verdict", "DROPPED"], true),
        (&["graph", "--since", "87600h"], true),
        (&["top", "--by", "port"], false),
        (&["top", "--by", "port", "-n", "web"], true),
        (&["top", "--by", "port", "--for", "10s"], true),
    ] {
        let told = stdout(&run(&counts, arguments));
        let is_told = told.contains("counted by the server from all its flows: 12,345");
        assert_eq!(is_told, !has_filter, "{arguments:?}: {told}");
        let counted = run(&plain, arguments);
        assert!(stdout(&counted).contains("counted here from the flows of GetFlows"), "{}", stderr(&counted));
    }
    let asked = plain.request();
    assert!(asked.since.is_some() && !asked.follow, "a pipe gets one answer: {asked:?}");
}

#[test]
fn counts_take_all_flows_unless_told_otherwise() {
    let server = server(Mock::default());
    let output = run(&server, &["--aggregate-by", "verdict", "-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&report["about"]["flows"], server.request().number), (&189.into(), u64::MAX));
    run(&server, &["--aggregate-by", "verdict", "--last", "7"]);
    assert_eq!(server.request().number, 7);
    run(&server, &["--aggregate-by", "verdict", "--since", "5m"]);
    assert_eq!((server.request().number, server.request().since.is_some()), (0, true));
}

#[test]
fn wrong_questions_are_told_in_one_line() {
    for (arguments, part) in [
        (&["--aggregate-by", "colour"][..], "there is no field \"colour\"; the fields are from, to, client"),
        (
            &["--aggregate-by", "port", "-o", "dict"],
            "output format dict is not available with --aggregate-by",
        ),
        (&["why"], "why needs both ends"),
        (&["why", "--pod", "a/b"], "why needs both ends"),
        (&["why", "--from-pod", "a/b"], "name the destination: --to-pod"),
        (&["why", "--to-pod", "a/b"], "name the source: --from-pod"),
        (&["top", "--by", "colour"], "\"colour\" is none of workload, pod"),
        (&["top", "--for", "2h"], "from 1s to 1h"),
        (&["top", "--for", "x"], "a length of time is needed"),
        (&["graph", "--since", "x"], "failed to parse the since time: failed to convert x to time"),
    ] {
        let output = observe("unix:///nowhere.sock", arguments).output().unwrap();
        let text = stderr(&output);
        assert!(text.contains(part) && text.lines().count() == 1, "{arguments:?}: {text}");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    }
}
