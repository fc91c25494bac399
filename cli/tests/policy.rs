//! `observe policy`, by the real binary: the sets of `testdata/policy`, recorded flows, and a daemon that answers.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod server;

use observer_proto::{
    control::{ListPoliciesResponse, Policy, PolicyHits, policy::Mode, policy::SetBy},
    flow::{DropReason, Endpoint, Flow, FlowType, Ip, Layer4, Tcp, Verdict, layer4::Protocol},
    json,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use serde_json::Value;
use server::{Mock, Server};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn testdata(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/policy").join(path);
    path.to_str().unwrap().to_owned()
}

fn observe(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command.arg("policy").args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command.output().unwrap()
}

/// Exit code, standard output, standard error.
fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn good(output: &Output) -> String {
    let (code, out, error) = told(output);
    assert_eq!((code, error.as_str()), (Some(0), ""), "{out}");
    out
}

fn bad(output: &Output) -> String {
    let (code, out, error) = told(output);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    error
}

fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const WEB: &str = "web/frontend-app";
const API: &str = "payments/payments-api";

#[test]
fn the_sets_hold_what_they_promise() {
    let inventory = testdata("inventory.json");
    for (set, cases) in [("tenants", 12), ("payments", 16), ("host", 10), ("web", 7)] {
        let (policies, table) =
            (testdata(&format!("sets/{set}")), testdata(&format!("sets/{set}/expected.txt")));
        let arguments = ["test", &policies, "--cases", &table, "--inventory", &inventory];
        assert_eq!(
            good(&observe(&arguments)),
            format!("{cases} cases, {cases} as expected, 0 not\n"),
            "{set}"
        );
    }
}

#[test]
fn a_verdict_that_is_another_is_explained_in_each_layout() {
    let (inventory, policies) = (testdata("inventory.json"), testdata("sets/payments"));
    let folder = tempfile::tempdir().unwrap();
    let line = format!("{WEB} -> {API} 9000/TCP = allow");
    let table = write(
        &folder,
        "cases.txt",
        &format!("# <&>\n{line}\n{WEB} -> {API} 8080/TCP = in requests, out open\n"),
    );
    let run = |layout: &str| {
        let arguments = ["test", &policies, "--cases", &table, "--inventory", &inventory, "-o", layout];
        let (code, out, error) = told(&observe(&arguments));
        assert_eq!((code, error.as_str()), (Some(1), ""), "{out}");
        out
    };
    let text = run("text");
    for part in [
        &format!("FAIL {table}:2: {WEB} -> {API} 9000/TCP\n  expected allow, found deny\n")[..],
        "    ingress: denied: isolated, and no rule allows it\n",
        "        port: it wants 8080/TCP\n",
        "\n2 cases, 1 as expected, 1 not\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let report: Value = serde_json::from_str(&run("json")).unwrap();
    assert_eq!((&report["cases"], &report["failed"]), (&2.into(), &1.into()));
    let first = &report["results"][0];
    assert_eq!((first["ok"].as_bool(), first["found"].as_str()), (Some(false), Some("deny")));
    assert_eq!(first["explanation"]["ingress"]["verdict"], "DEFAULT_DENIED");
    let junit = run("junit");
    for part in [
        &format!("<testsuite name=\"{table}\" tests=\"2\" failures=\"1\" errors=\"0\">")[..],
        "name=\"2: web/frontend-app -&gt; payments/payments-api 9000/TCP\">\n      <failure message=\"expected allow, found deny\">",
        "8080/TCP\"/>\n  </testsuite>\n</testsuites>\n",
    ] {
        assert!(junit.contains(part), "{part}\n{junit}");
    }
}

#[test]
fn what_is_wrong_with_a_table_is_named_by_its_line() {
    let (inventory, policies) = (testdata("inventory.json"), testdata("sets/payments"));
    let folder = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("a/b -> c/d 80/TCP\n", ":1: no ' = ' with a verdict; write it as"),
        (
            "\nweb/nobody -> host 80/TCP = deny\n",
            ":2: source: no pod web/nobody is known; name one of the inventory",
        ),
        ("host -> host 80/TCP = allow\nwithout x.yaml\n", ":2: no policy comes from a file x.yaml"),
        ("", ": no case; write lines such as"),
    ] {
        let table = write(&folder, "cases.txt", text);
        let error = bad(&observe(&["test", &policies, "--cases", &table, "--inventory", &inventory]));
        assert!(error.starts_with(&format!("{table}{expected}")), "{error}");
    }
    let broken = write(&folder, "broken.yaml", "kind: NetworkPolicy\n");
    let table = testdata("sets/payments/expected.txt");
    let error = bad(&observe(&["test", &broken, "--cases", &table]));
    assert!(error.starts_with(&format!("{broken}:1:1: ")) && error.contains("apiVersion"), "{error}");
    let error =
        bad(&observe(&["test", &policies, "--cases", &table, "--inventory", &inventory, "--node", "n9"]));
    assert_eq!(error, "--node: the inventory has no node n9\n");
}

#[test]
fn files_are_listed_shown_and_explained() {
    let (inventory, policies) = (testdata("inventory.json"), testdata("sets/payments"));
    let by_files = |arguments: &[&str]| {
        observe(&[arguments, &["--policies", &policies, "--inventory", &inventory]].concat())
    };
    let list = good(&by_files(&["list"]));
    assert!(
        list.contains("cnp     payments/payments-api  audit  default  in, out       6        2 "),
        "{list}"
    );
    assert!(list.ends_with("\n2 policies\n"), "{list}");
    let shown = good(&by_files(&["show", "cnp/payments/payments-api"]));
    for part in [
        "  mode         audit, set by default\n",
        "    allow 8080/TCP to CIDR group partners  (spec.egress[1], line 28)\n",
        "  endpoint     payments/payments-api-6c8f7d9b5-k4m2p\n",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let error = bad(&by_files(&["show", "web/nope"]));
    assert_eq!(error, "no policy is named web/nope\nhint: observe policy list shows all\n");

    let to_api = |more: &[&str]| by_files(&[&["explain", "--from-pod", WEB, "--to-pod", API], more].concat());
    let page = good(&to_api(&["--to-port", "8080", "--http", "GET /api/v1/refunds"]));
    for part in [
        "(10.244.1.20) and 1 other pod alike 8080/TCP\nREFUSED: the connection is allowed, the request is not\n",
        "by the enforced policies alone: allowed\negress: open: no policy isolates this side\n",
        "    request: it wants HTTP GET|POST /api/v1/charges\n",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    let answer: Value =
        serde_json::from_str(&good(&to_api(&["--to-port", "9000/TCP", "-o", "json"]))).unwrap();
    assert_eq!(answer["outcome"], "DENIED");
    assert_eq!(answer["ingress"]["nearest"]["failed"][0]["wanted"], "8080/TCP");
    let page = good(&by_files(&["explain", "--from", "world", "--to-pod", API, "--to-port", "53/udp"]));
    assert!(
        page.contains("egress: not judged, outside of the cluster") && page.contains("\nnote: "),
        "{page}"
    );
    assert!(bad(&to_api(&["--to-port", "0"])).starts_with("--to-port: \"0\" is no port; write one such as"));
    assert_eq!(
        bad(&by_files(&["explain", "--from-pod", WEB, "--to-port", "1"])),
        "which end? name it by --to-pod, --to-ip or --to\n"
    );
    // Not as an entity, which the flag is not for.
    let error = bad(&by_files(&["explain", "--from-pod", WEB, "--to-pod", "payments-api", "--to-port", "1"]));
    assert!(error.ends_with("destination: \"payments-api\" is no pod; write namespace/name\n"), "{error}");
    let through =
        |port| by_files(&["explain", "--from-pod", API, "--to-ip", "10.96.0.30", "--to-port", port]);
    let page = good(&through("7000/TCP"));
    assert!(
        page.contains("\nALLOWED\n")
            && page.contains("note: 10.96.0.30 is the service data/analytics-service: "),
        "{page}"
    );
    // In front of another port: that of the one who is named.
    let page = good(&through("80/TCP"));
    let first = page.lines().next().unwrap();
    assert!(first.contains("-> data/analytics-service-") && first.ends_with(") 8080/TCP"), "{page}");
}

#[test]
fn a_daemon_is_asked_by_its_control_socket() {
    let policy = Policy {
        kind: "NetworkPolicy".into(),
        namespace: "web".into(),
        name: "p\u{1b}".into(),
        mode: Mode::Enforce.into(),
        mode_set_by: SetBy::Command.into(),
        hits: Some(PolicyHits { allowed: 1234, denied: 5, refused: 67, ..PolicyHits::default() }),
        ..Policy::default()
    };
    let problem = "p.yaml:3:1: bad".to_owned();
    let policies = Some(ListPoliciesResponse { policies: vec![policy], problem, ..Default::default() });
    let ask = |server: &Server, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
        command.arg("policy").args(arguments).args(["--control-socket", server.path().to_str().unwrap()]);
        command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null()).output().unwrap()
    };
    let server = Server::start(Mock { policies, ..Mock::default() });
    let list = good(&ask(&server, &["list"]));
    assert!(
        list.contains("  enforce  command  ")
            && list.contains("    1,234       5       67  ")
            && !list.contains('\u{1b}'),
        "{list}"
    );
    assert!(list.ends_with("NOT IN FORCE, since newer files have a fault: p.yaml:3:1: bad\n"), "{list}");
    let explain = ["explain", "--from-pod", "a/b", "--to-ip", "10.0.0.1", "--dns", "x.y", "--to-port"];
    let page = good(&ask(&server, &[&explain[..], &["53/UDP"]].concat()));
    assert!(page.contains("note: Some(Dns(\"x.y\")) 17 53\n"), "{page}");
    assert_eq!(
        bad(&ask(&server, &[&explain[..], &["1"]].concat())),
        "cannot explain: source: no pod a/b is known\n"
    );
    assert_eq!(
        good(&ask(&server, &["mode", "ccnp/host", "enforce"])),
        "CiliumClusterwideNetworkPolicy host: enforce, set by command\n"
    );
    let answer: Value =
        serde_json::from_str(&good(&ask(&server, &["mode", "shop/web", "default", "-o", "json"]))).unwrap();
    assert_eq!(answer["policies"][0]["mode_set_by"], "DEFAULT");
    assert_eq!(
        bad(&ask(&server, &["mode", "nobody", "audit"])),
        "cannot set the mode: no policy is named nobody; `observe policy list` shows all\n"
    );
    assert!(bad(&ask(&server, &["mode", "a/b/c/d", "audit"])).contains("write [KIND/][NAMESPACE/]NAME"));
    let none = Server::start(Mock::default());
    assert_eq!(
        bad(&ask(&none, &["list"])),
        "cannot list policies: the daemon answers \"not built in: policies\"\nhint: --policies DIR --inventory FILE judges \
         without a daemon\n"
    );
    let error = bad(&ask(&none, &["list", "--inventory", "x"]));
    assert!(error.starts_with("--inventory and --node are for judging by files"), "{error}");
}

/// A connection from a port of the client, as a recording tells it.
fn flow(from: (&str, &str), to: (&str, &str), ports: (u32, u32), verdict: Verdict) -> Flow {
    let end = |name: &str| {
        let (namespace, pod) = name.split_once('/').unwrap_or(("", ""));
        let labels = match name {
            "world" => vec!["reserved:world".into()],
            _ if namespace.is_empty() => Vec::new(),
            _ => vec![format!("k8s:app={pod}"), format!("k8s:io.kubernetes.pod.namespace={namespace}")],
        };
        Endpoint { namespace: namespace.into(), pod_name: pod.into(), labels, ..Endpoint::default() }
    };
    let tcp = Tcp { source_port: ports.0, destination_port: ports.1, ..Tcp::default() };
    let drop = if verdict == Verdict::Dropped { DropReason::PolicyDenied } else { DropReason::Unknown };
    Flow {
        r#type: FlowType::L3L4.into(),
        verdict: verdict.into(),
        drop_reason_desc: drop.into(),
        source: Some(end(from.0)),
        destination: Some(end(to.0)),
        ip: Some(Ip { source: from.1.into(), destination: to.1.into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        ..Flow::default()
    }
}

fn lines(flows: impl IntoIterator<Item = Flow>) -> String {
    let line = |flow| {
        let response_types = Some(ResponseTypes::Flow(flow));
        json::line(&GetFlowsResponse { response_types, ..GetFlowsResponse::default() }).unwrap() + "\n"
    };
    flows.into_iter().map(line).collect()
}

/// Of pods that have several.
#[test]
fn recorded_flows_are_explained_by_their_own_addresses() {
    let passed = Verdict::Forwarded;
    let flows = [
        flow(("shop/web", "10.0.0.1"), ("shop/db", "10.0.0.2"), (4001, 5432), passed),
        flow(("shop/web", "fd00::1"), ("shop/db", "fd00::2"), (4002, 80), passed),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "flows.jsonl", &lines(flows));
    let none = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none, namespace: shop}\n\
                spec: {podSelector: {}, policyTypes: [Ingress]}\n";
    let policies = write(&folder, "none.yaml", none);
    let replay = ["replay", "--policies", &policies, "--input-file", &file, "-o", "json"];
    let report: Value = serde_json::from_str(&good(&observe(&replay))).unwrap();
    for group in report["groups"].as_array().unwrap() {
        let wanted = if group["port"] == 80 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let at = |end: &str| group["explanation"][end]["address"].as_str().unwrap_or_default().to_owned();
        assert_eq!([at("source"), at("destination")], wanted, "{group}");
    }
    assert_eq!(report["groups"].as_array().unwrap().len(), 2, "{report}");
}

#[test]
fn recorded_flows_are_judged_by_other_policies() {
    let (web, db, world) = (("shop/web", "10.0.0.1"), ("shop/db", "10.0.0.2"), ("world", "203.0.113.9"));
    let (passed, denied) = (Verdict::Forwarded, Verdict::Dropped);
    let other_drop =
        Flow { drop_reason_desc: DropReason::TtlExceeded.into(), ..flow(web, db, (9, 9), denied) };
    let flows = [
        flow(web, db, (4001, 5432), passed),
        // The same connection once more, and a second one.
        flow(web, db, (4001, 5432), passed),
        flow(web, db, (4002, 5432), passed),
        flow(world, db, (4003, 5432), passed),
        // Let out at its source, denied where it goes.
        flow(web, db, (4004, 80), passed),
        flow(web, db, (4004, 80), denied),
        flow(world, web, (4005, 443), passed),
        Flow { is_reply: Some(true), ..flow(db, web, (5432, 4001), passed) },
        flow(("", "10.0.0.9"), db, (1, 5432), passed),
        other_drop,
        Flow { l4: None, ..flow(web, db, (1, 1), passed) },
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, "flows.jsonl", &lines(flows));
    let document = |rule: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db, namespace: shop}}\nspec: \
             {{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{rule}]}}\n"
        )
    };
    let new = write(&folder, "new.yaml", &document("{from: [{podSelector: {matchLabels: {app: web}}}]}"));
    let replay =
        |more: &[&str]| observe(&[&["replay", "--policies", &new, "--input-file", &file], more].concat());
    let text = good(&replay(&[]));
    for part in [
        "world -> shop/db 5432/TCP: allowed -> DENIED, 1 connection\n  egress: not judged",
        &format!("    isolated by NetworkPolicy shop/db ({new}:1)\n")[..],
        "      peer: it wants k8s:io.kubernetes.pod.namespace=shop, k8s:app=web\n",
        "shop/web -> shop/db 80/TCP: DENIED -> allowed, 1 connection\n",
        "\n5 connections, compared with what was recorded: 3 as before, 1 newly denied, 1 newly allowed\n",
        "not judged: 1 flow: an end that nobody knows\n",
        "not judged: 1 flow: dropped for another reason than a policy\n",
        "not judged: 1 flow: no protocol and port\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }

    let old = write(&folder, "old.yaml", &document("{}"));
    let report: Value =
        serde_json::from_str(&good(&replay(&["--against", &old, "--limit", "0", "-o", "json"]))).unwrap();
    // What was dropped for another reason is a connection too, where two sets are compared.
    assert_eq!((&report["before"], &report["connections"]), (&"policies".into(), &6.into()));
    assert_eq!((&report["newly_denied"], &report["newly_allowed"]), (&1.into(), &0.into()));
    assert_eq!((&report["more_groups"], &report["more_connections"]), (&1.into(), &1.into()));
    assert_eq!(report["repeated"], 3);
}

/// The demo's firewall drops what tenant-a sends to tenant-b, for Hubble by "Policy denied".
#[test]
fn what_a_firewall_dropped_no_policy_denied() {
    let (policies, inventory) = (testdata("sets/payments"), testdata("inventory.json"));
    let flows = testdata("../answers/demo.jsonl");
    let flags = ["replay", "--policies", &policies, "--inventory", &inventory, "--input-file", &flows];
    let report: Value =
        serde_json::from_str(&good(&observe(&[&flags[..], &["-o", "json"]].concat()))).unwrap();
    assert_eq!((&report["newly_denied"], &report["newly_allowed"]), (&1.into(), &0.into()));
    assert_eq!(report["warnings"], Value::Array(Vec::new()));

    // Who stands behind a service, and what a group of CIDRs is, no flow tells: what they allow looks denied.
    let flags = ["replay", "--policies", &policies, "--input-file", &flows];
    let text = good(&observe(&flags));
    for part in ["spec.egress[1]: no CIDR group is named partners\n", "spec.egress[2]: no such service\n"] {
        assert!(
            text.contains(&format!("\nwarning: CiliumNetworkPolicy payments/payments-api: {part}")),
            "{text}"
        );
    }
}
