//! What GetFlows must select: cases 5 to 26, by number, flags of `hubble observe`, and what must hold.

/// What a case's answer must be, beside what Hubble's own code makes of all flows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Must {
    /// Some flows and not all; each JSON line has all of these texts.
    Have(&'static [&'static str]),
    /// Every flow.
    All,
    /// Nothing.
    BeEmpty,
    /// This text alone on stderr, and exit code 1.
    Fail(&'static str),
    /// Whatever Hubble says.
    Agree,
}
use Must::{Agree, All, BeEmpty, Fail, Have};

/// Of the demo's traffic (testdata/lab/demo.toml).
pub(crate) const CASES: &[(&str, &str, Must)] = &[
    (
        "14",
        "--from-pod web/frontend-app --to-pod payments/payments-api --to-port 8080 --protocol tcp",
        Have(&[r#""destination_port":8080"#, r#""namespace":"payments""#, r#""pod_name":"frontend-app-"#]),
    ),
    (
        "14",
        "--from-pod payments/payments-api --to-pod web/frontend-app --from-port 8080",
        Have(&[r#""is_reply":true"#]),
    ),
    ("15", "--pod web", BeEmpty),
    ("15", "--pod web/frontend", Have(&["frontend-app-"])),
    ("15", "--pod web/", Have(&[r#""namespace":"web""#])),
    ("15", "--pod /prometheus", Have(&["prometheus-0"])),
    ("15", "-n payments", Have(&[r#""namespace":"payments""#])),
    ("15", "-n payments -n data", Have(&[])),
    ("15", "-n web --pod frontend", Have(&["frontend-app-"])),
    ("15", "-A --pod coredns", Have(&["coredns-"])),
    ("15", "--from-namespace web --to-namespace kube-system", Have(&[r#""destination_port":53"#])),
    ("16", "--verdict DROPPED", Have(&[r#""verdict":"DROPPED""#, r#""drop_reason_desc""#])),
    ("16", "--verdict DROPPED --drop-reason-desc POLICY_DENIED", Have(&[r#""drop_reason":133"#])),
    ("16", "-t drop", Have(&[r#""event_type":{"type":1,"#])),
    ("16", "-t 1:133", Have(&[r#""sub_type":133"#])),
    ("17", "-t trace:to-endpoint", Have(&[r#""trace_observation_point":"TO_ENDPOINT""#])),
    ("17", "-t trace:to-stack -t trace:to-network", Have(&[])),
    ("17", "-t policy-verdict --print-policy-names --use-default-field-masks=false", BeEmpty),
    ("18", "--not --namespace kube-system --not --to-port 53", Have(&[])),
    ("18", "--not --verdict FORWARDED --pod data/", Have(&["DROPPED"])),
    ("19", "--ip 10.0.0.0/8", Have(&[])),
    ("19", "--to-ip 203.0.113.10", Have(&[r#""destination":"203.0.113.10""#])),
    ("19", "--ip 203.0.113.0/24", Have(&["203.0.113.10"])),
    ("19", "-6", Have(&[r#""ipVersion":"IPv6""#])),
    ("19", "--ip fd00:10:244:1::/64", Have(&["fd00:10:244:1::"])),
    ("19", "--snat-ip 192.168.0.0/16", Agree),
    ("20", "--to-fqdn *.example.com", BeEmpty),
    ("20", "--fqdn api.partner.example", Agree),
    ("20", "--identity world", Have(&["reserved:world"])),
    ("20", "--identity host", Have(&["reserved:host"])),
    ("20", "--label k8s:app=frontend-app,tier!=db", Have(&["k8s:app=frontend-app"])),
    ("20", "--label reserved:world", Have(&["reserved:world"])),
    ("20", "--from-label tenant --to-label tenant", Have(&[r#""k8s:tenant="#])),
    ("20", "-l app=prometheus -l k8s-app=kube-dns", Have(&[])),
    ("20", "--from-label app=server,tenant=b", Have(&["tenant-b-server-0"])),
    ("21", "--tcp-flags syn --not --tcp-flags syn,ack", Have(&[r#""flags":{"SYN":true}"#])),
    ("21", "--traffic-direction ingress", Have(&[r#""traffic_direction":"INGRESS""#])),
    ("21", "--interface eth0", Have(&[r#""name":"eth0""#])),
    ("21", "--interface eth9", BeEmpty),
    ("22", "--workload Deployment/payments-api", Have(&[r#"{"name":"payments-api","kind":"Deployment"}"#])),
    ("22", "--to-workload finance-tool", Have(&[r#"{"name":"finance-tool","kind":"StatefulSet"}"#])),
    (
        "22",
        "--service payments/payments-api",
        Have(&[r#"_service":{"name":"payments-api","namespace":"payments"}"#]),
    ),
    ("22", "--to-service data/analytics", Have(&[r#""destination_service":{"name":"analytics-service""#])),
    ("22", "--node-name default/*", All),
    ("22", "--node-name n1", All),
    ("22", "--node-name other/*", BeEmpty),
    ("22", "--cluster default", Have(&[r#""cluster_name":"default""#])),
    ("23", "--http-status 5+ --http-method get", BeEmpty),
    ("23", "--protocol icmp", Have(&["ICMPv"])),
    ("23", "--protocol udp --port 7000", Have(&["UDP"])),
    ("24", "--protocol bogus", Fail(r#"invalid protocol filter: unknown protocol: "bogus""#)),
    (
        "24",
        "--to-port 99999",
        Fail(
            "invalid destination port filter: invalid port \"99999\": strconv.ParseUint: parsing \"99999\": value out of range",
        ),
    ),
    ("24", "--port nine", Agree),
    ("24", "--ip 10.0.0.300", Agree),
    ("24", "--ip 10.0.0.0/33", Agree),
    ("24", "--ip fe80::g", Agree),
    ("24", "--label a=(b", Agree),
    ("24", "--label =", Agree),
    ("24", "--label a==b,,c", Agree),
    (
        "24",
        "--http-status 999",
        Fail(r#"invalid http status code filter: invalid status code prefix: "999""#),
    ),
    (
        "24",
        "--http-status 5+ -t drop",
        Fail("filtering by http status code requires the event type filter to only match 'l7' events"),
    ),
    ("24", "--http-path /a -t trace", Agree),
    ("24", "--fqdn a(b", Agree),
    ("24", "--node-name a/b/c", Agree),
    ("24", "--workload Deployment/a/b", Agree),
    ("24", "--cluster", Agree),
    (
        "26",
        r#"--allowlist {"source_pod":["payments/"]} --denylist {"verdict":["DROPPED"]}"#,
        Have(&[r#""verdict":"FORWARDED""#, "payments-api"]),
    ),
    (
        "26",
        r#"--allowlist {"source_pod":["web/"],"reply":[false]}{"destination_pod":["web/"],"reply":[true]}"#,
        Have(&["frontend-app"]),
    ),
];

/// Likewise of requests and responses, which the recordings have none of.
pub(crate) const CASES_OF_PAYLOAD: &[(&str, &str, Must)] = &[
    ("17", "-t l7", Have(&[r#""event_type":{"type":129}"#, r#""l7":{"type":"RE"#])),
    ("23", "--protocol http", Have(&[r#""http":{"#, r#""protocol":"HTTP/1.1""#])),
    ("23", "--http-status 2+ --http-method get", Have(&[r#""code":20"#, r#""latency_ns":"#])),
    ("23", "--http-path /api/v1/.* --to-pod payments/", Have(&["/api/v1/"])),
    ("23", "--protocol dns", Have(&[r#""dns":{"query":""#])),
];
