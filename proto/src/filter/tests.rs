//! Flags against Hubble's own results, and compiled filters against a naive reading of the messages.

use super::*;
use crate::flow::{self, FlowFilter};
use proptest::prelude::*;
use prost::Message as _;
use prost_types::{Any, Struct, Value, value::Kind};
use std::{collections::BTreeMap, fs, path::Path};

fn goldens() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/hubble-api/filter-goldens.tsv");
    fs::read_to_string(path).unwrap()
}

/// Splits a case's command line as a command line parser would.
fn arguments(line: &str) -> Vec<(&str, &str)> {
    let mut words = line.split(' ');
    let mut out = Vec::new();
    while let Some(word) = words.next() {
        let flag = match word.strip_prefix("--") {
            Some(name) => flags::find(name),
            None => flags::FLAGS.iter().find(|f| f.short == word.chars().nth(1)),
        }
        .unwrap_or_else(|| panic!("{word} is no flag"));
        let value = if flag.value.is_some() { words.next().unwrap() } else { "true" };
        out.push((flag.name, value));
    }
    out
}

#[test]
fn flags_become_the_filters_that_hubble_makes_of_them() {
    let text = goldens();
    let mut cases = BTreeMap::<u32, (&str, Vec<_>)>::new();
    for row in text.lines().skip(1) {
        let columns: Vec<&str> = row.splitn(4, '\t').collect();
        let [case, line, kind, result] = columns[..] else { panic!("{row}") };
        cases.entry(case.parse().unwrap()).or_insert((line, Vec::new())).1.push((kind, result));
    }
    assert_eq!(cases.len(), 110);
    println!("filter-goldens.tsv: {} rows of {} sets of flags", text.lines().count() - 1, cases.len());
    for (case, (line, expected)) in cases {
        let json = |filters: &[FlowFilter]| filters.iter().map(raw::to_json).collect::<Vec<_>>();
        let wanted = |kind: &str| -> Vec<serde_json::Value> {
            expected
                .iter()
                .filter(|(k, _)| *k == kind)
                .map(|(_, r)| serde_json::from_str(r).unwrap())
                .collect()
        };
        match parse(arguments(line)) {
            Err(error) => {
                assert_eq!(expected, [("error", error.to_string().as_str())], "case {case}: {line}");
            }
            Ok(lists) => {
                assert_eq!(json(&lists.whitelist), wanted("allow"), "case {case}: {line}");
                assert_eq!(json(&lists.blacklist), wanted("deny"), "case {case}: {line}");
                assert!(expected.iter().all(|(kind, _)| *kind != "error"), "case {case}: {line} is no error");
            }
        }
    }
}

#[test]
fn raw_filters_are_read_in_either_spelling_and_in_a_row() {
    let filters = parse_raw(r#" {"source_pod":["shop/"]} {"destinationPort":["53"],"verdict":[2]}"#).unwrap();
    assert_eq!(filters.len(), 2);
    assert_eq!(filters[0].source_pod, ["shop/"]);
    assert_eq!(
        (filters[1].destination_port.as_slice(), filters[1].verdict.as_slice()),
        (&["53".to_owned()][..], &[2][..])
    );
    assert_eq!(parse_raw("").unwrap(), []);
    for bad in ["null", "{", r#"{"source_pods":["x"]}"#, r#"{"source_pod":7}"#, "[]"] {
        assert!(parse_raw(bad).is_err(), "{bad}");
    }
    let error = parse([("allowlist", "{")]).unwrap_err().to_string();
    assert!(error.starts_with("invalid --allowlist flag: failed to decode '{': "), "{error}");
}

#[test]
fn names_in_the_table_are_unique_and_conflicts_name_flags() {
    let mut names: Vec<_> = flags::FLAGS.iter().map(|f| f.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), flags::FLAGS.len());
    for name in flags::CONFLICTS.iter().copied().flatten() {
        assert!(flags::find(name).is_some(), "{name}");
    }
}

fn compile(filter: FlowFilter) -> Result<Filters, InvalidFilter> {
    Filters::compile(&[filter], &[])
}

fn filter(line: &str) -> Filters {
    let lists = parse(arguments(line)).unwrap();
    Filters::compile(&lists.whitelist, &lists.blacklist).unwrap()
}

#[test]
fn wrong_filters_are_refused_in_hubbles_words() {
    for (line, text) in [
        ("--protocol bogus", r#"invalid protocol filter: unknown protocol: "bogus""#),
        (
            "--from-port x",
            r#"invalid source port filter: invalid port "x": strconv.ParseUint: parsing "x": invalid syntax"#,
        ),
        (
            "--to-port 65536",
            r#"invalid destination port filter: invalid port "65536": strconv.ParseUint: parsing "65536": value out of range"#,
        ),
        ("--ip x", r#"invalid IP address "x" in filter: ParseAddr("x"): unable to parse IP"#),
        (
            "--ip 10.0.0.0/33",
            r#"invalid IP prefix "10.0.0.0/33" in filter: netip.ParsePrefix("10.0.0.0/33"): prefix length out of range"#,
        ),
        ("--http-status 600", r#"invalid http status code filter: invalid status code prefix: "600""#),
        (
            "--http-status 404 -t drop",
            "filtering by http status code requires the event type filter to only match 'l7' events",
        ),
    ] {
        let lists = parse(arguments(line)).unwrap();
        let error = Filters::compile(&lists.whitelist, &[]).unwrap_err();
        assert_eq!(error.to_string(), text, "{line}");
        assert!(!error.is_limit());
    }
    let error = compile(FlowFilter { source_pod: vec![String::new()], ..FlowFilter::default() }).unwrap_err();
    assert_eq!(error.to_string(), "invalid filter, name must not be empty");
    for (line, start) in [
        ("--label =", "invalid source label filter: unable to parse requirement: "),
        ("--to-fqdn a$b", "'$': invalid rune in pattern"),
        ("--http-path (", "invalid http path filter: (: error parsing regexp: "),
    ] {
        let lists = parse(arguments(line)).unwrap();
        let error = Filters::compile(&lists.whitelist, &[]).unwrap_err().to_string();
        assert!(error.starts_with(start) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn limits_and_gaps_are_named() {
    let too_big = FlowFilter { source_pod: vec!["x".repeat(LIMIT_BYTES)], ..FlowFilter::default() };
    let too_many =
        FlowFilter { http_url: vec!["x".to_owned(); LIMIT_EXPRESSIONS + 1], ..FlowFilter::default() };
    let huge_program = FlowFilter { dns_query: vec!["\\pL{500}".to_owned()], ..FlowFilter::default() };
    let deep =
        FlowFilter { dns_query: vec!["(".repeat(20_000) + &")*".repeat(20_000)], ..FlowFilter::default() };
    for (f, text) in [
        (too_big, "whitelist: a filter of 65540 bytes is more than the limit of 65536"),
        (too_many, "http_url: more than 32 regular expressions in one request"),
        (huge_program, r#"dns_query: the expression "\\pL{500}" is too large when compiled"#),
    ] {
        let error = compile(f).unwrap_err();
        assert!(error.is_limit());
        assert_eq!(error.to_string(), text);
    }
    assert!(compile(deep).unwrap_err().to_string().contains("expression nests too deeply"));
    let cel = parse([("cel-expression", "true")]).unwrap();
    assert!(
        Filters::compile(&cel.whitelist, &[])
            .is_err_and(|e| !e.is_limit() && e.to_string().contains("CEL filters are not supported"))
    );
    assert!(Filters::compile(&vec![FlowFilter::default(); LIMIT_FILTERS + 1], &[]).unwrap_err().is_limit());
}

/// A reply of payments-api to frontend-app.
fn sample() -> flow::Flow {
    let endpoint = |namespace: &str, pod: &str, identity, label: &str, kind: &str| flow::Endpoint {
        identity,
        namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        cluster_name: "default".to_owned(),
        labels: vec![label.to_owned(), "k8s:team=a".to_owned()],
        workloads: vec![flow::Workload { name: pod.to_owned(), kind: kind.to_owned() }],
        ..flow::Endpoint::default()
    };
    flow::Flow {
        uuid: "u-1".to_owned(),
        verdict: flow::Verdict::Forwarded as i32,
        ip: Some(flow::Ip {
            source: "fd00::0:5".to_owned(),
            destination: "10.0.0.7".to_owned(),
            source_xlated: "192.168.0.9".to_owned(),
            ip_version: 2,
            ..flow::Ip::default()
        }),
        l4: Some(flow::Layer4 {
            protocol: Some(flow::layer4::Protocol::Tcp(flow::Tcp {
                source_port: 65536 + 8080,
                destination_port: 40000,
                flags: Some(flow::TcpFlags { syn: true, ack: true, ..flow::TcpFlags::default() }),
            })),
        }),
        source: Some(endpoint("payments", "payments-api-0", 4001, "k8s:app=api", "Deployment")),
        destination: Some(endpoint("default", "web-1", 2, "reserved:world", "StatefulSet")),
        destination_names: vec!["www.example.com".to_owned()],
        source_service: Some(flow::Service { name: "api".to_owned(), namespace: "payments".to_owned() }),
        event_type: Some(flow::CiliumEventType { r#type: 4, sub_type: 0 }),
        traffic_direction: 1,
        is_reply: Some(true),
        node_name: "n1".to_owned(),
        node_labels: vec!["zone=a".to_owned()],
        interface: Some(flow::NetworkInterface { index: 7, name: "veth0".to_owned() }),
        l7: Some(flow::Layer7 {
            record: Some(flow::layer7::Record::Http(flow::Http {
                code: 503,
                method: "GET".to_owned(),
                url: "http://api/v1/charges?id=1".to_owned(),
                headers: vec![flow::HttpHeader { key: "a".to_owned(), value: "b".to_owned() }],
                ..flow::Http::default()
            })),
            ..flow::Layer7::default()
        }),
        ..flow::Flow::default()
    }
}

/// The kernel's reason as Observer's flows have it.
fn told(kernel_reason: &str) -> Any {
    let value = Value { kind: Some(Kind::StringValue(kernel_reason.to_owned())) };
    let fields = [("kernel_drop_reason".to_owned(), value)].into();
    Any {
        type_url: "type.googleapis.com/google.protobuf.Struct".to_owned(),
        value: Struct { fields }.encode_to_vec(),
    }
}

#[test]
fn drops_are_found_by_hubbles_reason_and_by_the_kernels() {
    let drop = |kernel: &str, hubble: flow::DropReason| flow::Flow {
        verdict: flow::Verdict::Dropped.into(),
        drop_reason_desc: hubble.into(),
        extensions: Some(told(kernel)),
        ..sample()
    };
    let flows = [
        drop("", flow::DropReason::PolicyDenied),
        drop("NETFILTER_DROP", flow::DropReason::PolicyDenied),
        drop("NO_SOCKET", flow::DropReason::SocketLookupFailed),
        drop("OF_TOMORROW", flow::DropReason::InvalidPacketDropped),
        sample(),
    ];
    for (line, found) in [
        ("--drop-reason-desc POLICY_DENIED", &[0, 1][..]),
        ("--drop-reason-desc NETFILTER_DROP", &[1]),
        ("--drop-reason-desc SKB_DROP_REASON_NETFILTER_DROP", &[1]),
        ("--drop-reason-desc SKB_DROP_REASON_OF_TOMORROW", &[3]),
        ("--drop-reason-desc SOCKET_LOOKUP_FAILED --drop-reason-desc NETFILTER_DROP", &[1, 2]),
        ("--drop-reason-desc KERNEL", &[1, 2, 3]),
        ("--drop-reason-desc POLICY_DENIED --not --drop-reason-desc KERNEL", &[0]),
        ("--drop-reason-desc XDP", &[]),
    ] {
        let lists = parse(arguments(line)).expect(line);
        let filters = Filters::compile(&lists.whitelist, &lists.blacklist).expect(line);
        let passing: Vec<usize> = (0..flows.len()).filter(|at| filters.matches(&flows[*at])).collect();
        assert_eq!(passing, found, "{line}");
    }
}

#[test]
fn each_flag_matches_what_it_says() {
    let flow = sample();
    for (line, matches) in [
        ("--pod web", true),
        ("--pod default/web", true),
        ("--pod payments/web", false),
        ("--from-pod web", false),
        ("--from-pod payments/payments-api", true),
        ("--pod payments/", true),
        ("-n payments", true),
        ("-n shop", false),
        ("--to-namespace default", true),
        ("-A", true),
        ("--pod /payments", true),
        ("--ip fd00::5", true),
        ("--ip fd00::/64", true),
        ("--to-ip 10.0.0.0/8", true),
        ("--from-ip 10.0.0.0/8", false),
        ("--snat-ip 192.168.0.0/16", true),
        ("--port 8080", true),
        ("--to-port 8080", false),
        ("--protocol TCP", true),
        ("--protocol http", true),
        ("--protocol udp", false),
        ("--protocol icmp", false),
        ("--verdict FORWARDED", true),
        ("--verdict DROPPED", false),
        ("--drop-reason-desc POLICY_DENIED", false),
        ("-t trace", true),
        ("-t trace:to-endpoint", true),
        ("-t trace:to-stack", false),
        ("-t drop", false),
        ("--reply", true),
        ("--not-reply", false),
        ("--label app=api", true),
        ("--to-label app=api", false),
        ("--label reserved:world", true),
        ("--label app=api,team!=a", false),
        ("--identity world", true),
        ("--from-identity 4001", true),
        ("--workload Deployment/", true),
        ("--to-workload Deployment/", false),
        ("--service payments/ap", true),
        ("--to-service payments/ap", false),
        ("--fqdn *.EXAMPLE.com.", true),
        ("--fqdn example.com", false),
        ("--cluster default", true),
        ("--tcp-flags syn", true),
        ("--tcp-flags syn,fin", false),
        ("--traffic-direction ingress", true),
        ("--interface veth0", true),
        ("--node-name n*", true),
        ("--node-name default/", true),
        ("--node-name other/n1", false),
        ("--node-label zone=a", true),
        ("-6", true),
        ("-4", false),
        ("--unencrypted", true),
        ("--encrypted", false),
        ("--uuid u-1", true),
        ("--uuid u-2", false),
        ("--trace-id x", false),
        ("--ip-trace-id 1", false),
        ("--http-status 5+", true),
        ("--http-status 404", false),
        ("--http-method get", true),
        ("--http-path ^/v1/charges$", true),
        ("--http-url id=1$", true),
        ("--http-header a:b", true),
        ("--http-header a:c", false),
        ("--not --pod web", false),
        ("--not --pod shop/web", true),
        ("--port 8080 --pod payments/", true),
        ("--port 8080 --pod web", false),
    ] {
        assert_eq!(filter(line).matches(&flow), matches, "{line}");
    }
}

#[test]
fn an_unset_reply_is_no_reply_only_on_a_drop() {
    let mut flow =
        flow::Flow { is_reply: None, verdict: flow::Verdict::Forwarded as i32, ..flow::Flow::default() };
    assert!(!filter("--not-reply").matches(&flow));
    flow.verdict = flow::Verdict::Dropped as i32;
    assert!(filter("--not-reply").matches(&flow));
    assert!(!filter("--reply").matches(&flow));
}

#[test]
fn nothing_matches_an_empty_flow_but_what_asks_for_nothing() {
    let empty = flow::Flow::default();
    for (line, matches) in [
        ("-A", false),
        ("--node-name *", false),
        ("--label !x", true),
        ("--ip-version none", true),
        ("--unencrypted", true),
    ] {
        assert_eq!(filter(line).matches(&empty), matches, "{line}");
    }
    assert!(Filters::default().matches(&empty) && Filters::default().pass_all());
}

/// Hubble's definition, word by word, for the fields that the strategies below set.
fn naive(whitelist: &[FlowFilter], blacklist: &[FlowFilter], flow: &flow::Flow) -> bool {
    fn pod(list: &[String], end: Option<&flow::Endpoint>) -> bool {
        let (ns, name) = end.map_or(("", ""), |e| (e.namespace.as_str(), e.pod_name.as_str()));
        list.is_empty()
            || (!ns.is_empty() || !name.is_empty())
                && list.iter().any(|f| {
                    let (want, prefix) = f.split_once('/').unwrap_or(("default", f));
                    (want.is_empty() || want == ns) && name.starts_with(prefix)
                })
    }
    let one = |f: &FlowFilter| {
        let Some(flow::layer4::Protocol::Udp(udp)) = flow.l4.as_ref().and_then(|l| l.protocol.as_ref())
        else {
            return false;
        };
        pod(&f.source_pod, flow.source.as_ref())
            && pod(&f.destination_pod, flow.destination.as_ref())
            && (f.source_port.is_empty() || f.source_port.contains(&udp.source_port.to_string()))
            && (f.destination_port.is_empty()
                || f.destination_port.contains(&udp.destination_port.to_string()))
            && (f.verdict.is_empty() || f.verdict.contains(&flow.verdict))
            && (f.reply.is_empty()
                || flow.is_reply.is_some_and(|r| f.reply.contains(&r))
                || flow.is_reply.is_none() && flow.verdict == 2 && f.reply.contains(&false))
    };
    (whitelist.is_empty() || whitelist.iter().any(one)) && !blacklist.iter().any(one)
}

fn any_filter() -> impl Strategy<Value = FlowFilter> {
    let pods = || {
        prop::collection::vec(prop::sample::select(vec!["a", "x/", "/a", "x/ab", "default/", "y/b"]), 0..2)
    };
    let ports = || prop::collection::vec(0..3u32, 0..2);
    (
        pods(),
        pods(),
        ports(),
        ports(),
        prop::collection::vec(1..3i32, 0..2),
        prop::collection::vec(any::<bool>(), 0..2),
    )
        .prop_map(|(source_pod, destination_pod, source_port, destination_port, verdict, reply)| {
            FlowFilter {
                source_pod: source_pod.into_iter().map(str::to_owned).collect(),
                destination_pod: destination_pod.into_iter().map(str::to_owned).collect(),
                source_port: source_port.iter().map(u32::to_string).collect(),
                destination_port: destination_port.iter().map(u32::to_string).collect(),
                verdict,
                reply,
                ..FlowFilter::default()
            }
        })
}

fn any_flow() -> impl Strategy<Value = flow::Flow> {
    let end = || {
        prop::option::of((
            prop::sample::select(vec!["", "x", "y", "default"]),
            prop::sample::select(vec!["", "a", "ab", "b"]),
        ))
        .prop_map(|end| {
            end.map(|(namespace, pod)| flow::Endpoint {
                namespace: namespace.to_owned(),
                pod_name: pod.to_owned(),
                ..flow::Endpoint::default()
            })
        })
    };
    (end(), end(), 0..3u32, 0..3u32, 1..3i32, prop::option::of(any::<bool>())).prop_map(
        |(source, destination, source_port, destination_port, verdict, is_reply)| flow::Flow {
            source,
            destination,
            l4: Some(flow::Layer4 {
                protocol: Some(flow::layer4::Protocol::Udp(flow::Udp { source_port, destination_port })),
            }),
            verdict,
            is_reply,
            ..flow::Flow::default()
        },
    )
}

proptest! {
    #[test]
    fn compiled_filters_agree_with_the_definition(
        whitelist in prop::collection::vec(any_filter(), 0..3),
        blacklist in prop::collection::vec(any_filter(), 0..2),
        flows in prop::collection::vec(any_flow(), 1..8),
    ) {
        let compiled = Filters::compile(&whitelist, &blacklist).unwrap();
        for flow in &flows {
            prop_assert_eq!(compiled.matches(flow), naive(&whitelist, &blacklist, flow), "{:?}", flow);
        }
    }

    #[test]
    fn no_text_makes_compiling_or_parsing_panic(text in ".{0,40}", flag in 0..flags::FLAGS.len()) {
        if let Ok(lists) = parse([(flags::FLAGS[flag].name, text.as_str())])
            && let Ok(filters) = Filters::compile(&lists.whitelist, &lists.blacklist)
        {
            filters.matches(&sample());
        }
    }
}

/// What completion offers is taken.
#[test]
fn offered_values_are_values() {
    let mut count = 0;
    for flag in flags::FLAGS {
        if let flags::Complete::Words(words) = flag.complete {
            for word in words {
                let lists = parse([(flag.name, *word)]).unwrap_or_else(|error| panic!("{error}"));
                Filters::compile(&lists.whitelist, &[])
                    .unwrap_or_else(|error| panic!("{}: {error}", flag.name));
                count += 1;
            }
        }
    }
    assert!(count > 80, "{count}");
}
