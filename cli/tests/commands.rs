//! The commands beside flows and status, by the real binary.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod server;

use observer_proto::{
    filter::flags::FLAGS,
    flow::{Endpoint, Flow},
    observer::{GetFlowsResponse, Namespace, Node, get_flows_response::ResponseTypes},
    peer::{ChangeNotification, ChangeNotificationType},
};
use server::{Mock, Server};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

fn observe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    observe(arguments).env("HUBBLE_SERVER", server.address()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a run that went well.
fn good(output: &Output) -> String {
    assert_eq!(
        (output.status.code(), text(&output.stderr)),
        (Some(0), String::new()),
        "{}",
        text(&output.stdout)
    );
    text(&output.stdout)
}

/// Standard error of a run that did not.
fn bad(output: &Output) -> String {
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    text(&output.stderr)
}

#[test]
fn lists() {
    let node = |name: &str| Node { name: name.to_owned(), ..Node::default() };
    let namespace =
        |cluster: &str, name: &str| Namespace { cluster: cluster.to_owned(), namespace: name.to_owned() };
    let server = Server::start(Mock {
        nodes: vec![node("n2"), Node { num_flows: 5, max_flows: 10, ..node("n1") }],
        namespaces: vec![namespace("east", "shop"), namespace("east", "prod")],
        ..Mock::default()
    });
    let nodes = good(&run(&server, &["list", "nodes"]));
    assert_eq!(
        nodes,
        "NAME   STATUS    AGE   FLOWS/S   CURRENT/MAX-FLOWS\n\
         n1     Unknown   N/A   N/A       5/10 ( 50.00%)\n\
         n2     Unknown   N/A   N/A       N/A\n"
    );
    assert_eq!(good(&run(&server, &["list", "node"])), nodes);
    assert_eq!(
        good(&run(&server, &["list", "namespaces", "-o", "wide"])),
        "NAMESPACE   CLUSTER\nshop        east\nprod        east\n"
    );
    assert_eq!(
        good(&run(&server, &["list", "nodes", "-o", "json"])),
        "[\n  {\n    \"name\": \"n1\",\n    \"num_flows\": \"5\",\n    \"max_flows\": \"10\"\n  },\n  {\n    \"name\": \"n2\"\n  \
         }\n]\n"
    );
    assert_eq!(bad(&run(&server, &["list", "nodes", "-o", "x"])), "unknown output format: x\n");
    assert_eq!(
        bad(&run(&server, &["list", "pods"])),
        "unknown command \"pods\" for \"observe list\"; see observe list --help\n"
    );
}

#[test]
fn peers_and_the_api() {
    let change = ChangeNotification {
        name: "default/n1".into(),
        address: "10.0.0.1:4244".into(),
        r#type: ChangeNotificationType::PeerAdded as i32,
        tls: None,
    };
    let server = Server::start(Mock { peers: vec![change], ..Mock::default() });
    let line = "PEER_ADDED   10.0.0.1:4244 default/n1\n";
    assert_eq!(good(&run(&server, &["watch", "peers"])), line);
    assert_eq!(good(&run(&server, &["w", "peer"])), line);
    let api = good(&run(&server, &["reflect"]));
    let names: Vec<String> = api
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().unwrap().to_owned()
        })
        .collect();
    let once: BTreeSet<&String> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "{names:?}");
    for name in ["observer/observer.proto", "peer/peer.proto", "flow/flow.proto", "relay/relay.proto"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[test]
fn masks_and_raw_filters() {
    let server = Server::start(Mock::default());
    let raw = good(&run(
        &server,
        &["--print-raw-filters", "--pod", "a'b", "--not", "--fqdn", "*.x&<", "--http-path", "a\tb"],
    ));
    assert_eq!(
        raw,
        "allowlist:\n    - '{\"source_pod\":[\"a''b\"],\"http_path\":[\"a\\tb\"]}'\n    - \
         '{\"destination_pod\":[\"a''b\"],\"http_path\":[\"a\\tb\"]}'\ndenylist:\n    - \
         '{\"source_fqdn\":[\"*.x\\u0026\\u003c\"]}'\n    - '{\"destination_fqdn\":[\"*.x\\u0026\\u003c\"]}'\n"
    );
    assert_eq!(good(&run(&server, &["--print-raw-filters"])), "{}\n");
    // What was printed is taken, by a file and by flags, which are stronger.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("filters.yaml");
    fs::write(&file, &raw).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(good(&run(&server, &["--config", file, "--print-raw-filters"])), raw);
    let stronger = ["--config", file, "--print-raw-filters", "--allowlist", r#"{"source_pod":["x"]}"#];
    assert!(
        good(&run(&server, &stronger))
            .starts_with("allowlist:\n    - '{\"source_pod\":[\"x\"]}'\ndenylist:\n")
    );

    assert_eq!(
        bad(&run(&server, &["--field-mask", "verdict"])),
        "compact output format is not compatible with custom field mask\n"
    );
    assert_eq!(
        bad(&run(&server, &["--field-mask", "verdict,a.b", "-o", "json"])),
        "failed to construct field mask: proto: invalid path \"a.b\" for message \"flow.Flow\"\n"
    );
    assert_eq!(
        bad(&run(&server, &["--config", "/nonexistent/f.yaml"])),
        "--config: /nonexistent/f.yaml: no such file; `observe config set` makes one\n"
    );
}

#[test]
fn the_configuration() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| observe(arguments).env("HOME", home.path()).output().unwrap();
    assert_eq!(good(&run(&["config", "get", "timeout"])), "5s\n");
    assert_eq!(good(&run(&["config", "set", "timeout", "7s"])), "");
    assert_eq!(good(&run(&["config", "set", "tls-ca-cert-files", "a,b"])), "");
    assert_eq!(good(&run(&["config", "set", "tls", "t"])), "");
    let file = home.path().join(".config/observe/config.yaml");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "timeout: 7s\ntls: true\ntls-ca-cert-files:\n    - a\n    - b\n"
    );
    assert_eq!(good(&run(&["config", "get", "tls-ca-cert-files"])), "- a\n- b\n");
    let view = good(&run(&["config", "view", "--origin", "--server", "x:1"]));
    for line in [
        &format!("# {}\ntimeout: 7s\n", file.display())[..],
        "# flag\nserver: x:1\n",
        "# default\nrequest-timeout: 12s\n",
    ] {
        assert!(view.contains(line), "{view}");
    }
    let with =
        observe(&["config", "get", "timeout"]).env("HOME", home.path()).env("HUBBLE_TIMEOUT", "9s").output();
    assert_eq!(good(&with.unwrap()), "9s\n");
    assert_eq!(good(&run(&["config", "reset", "tls"])), "");
    assert_eq!(good(&run(&["config", "get", "tls"])), "false\n");
    assert_eq!(good(&run(&["config", "reset"])), "");
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    for (arguments, why) in [
        (&["config", "get", "nope"][..], "unknown key: nope\n"),
        (&["config", "set", "nope", "1"], "unknown key: nope\n"),
        (
            &["config", "set", "tls", "maybe"],
            "cannot assign value=maybe for key=tls, expected type=bool: strconv.ParseBool: parsing \"maybe\": invalid \
             syntax\n",
        ),
    ] {
        assert_eq!(bad(&run(arguments)), why);
    }
    // Hubble's own file is read where there is none of ours.
    fs::remove_file(&file).unwrap();
    fs::create_dir_all(home.path().join(".config/hubble")).unwrap();
    fs::write(home.path().join(".config/hubble/config.yaml"), "timeout: 8s\nsever: x\n").unwrap();
    let refused = bad(&run(&["status"]));
    assert!(
        refused.contains("hubble/config.yaml: unknown key: sever; there are server, timeout"),
        "{refused}"
    );
}

/// What bash asks for by the key: the words so far, and which of them.
fn offered(server: &str, words: &[&str]) -> Vec<String> {
    let output = observe(&["--", "observe"])
        .args(words)
        .env("HUBBLE_SERVER", server)
        .env("OBSERVE_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_IFS", "\n")
        .output()
        .unwrap();
    good(&output).lines().map(str::to_owned).collect()
}

#[test]
fn completion() {
    let end = |pod: &str| Endpoint { namespace: "shop".into(), pod_name: pod.into(), ..Endpoint::default() };
    let flow = Flow { source: Some(end("web-0")), destination: Some(end("api-1")), ..Flow::default() };
    let server = Server::start(Mock {
        known: vec![GetFlowsResponse {
            response_types: Some(ResponseTypes::Flow(flow)),
            ..GetFlowsResponse::default()
        }],
        namespaces: vec![Namespace { cluster: String::new(), namespace: "shop".into() }],
        nodes: vec![Node { name: "default/n1".into(), ..Node::default() }],
        ..Mock::default()
    });
    let address = server.address();
    assert_eq!(offered(&address, &["--from-pod", ""]), ["shop/api-1", "shop/web-0"]);
    assert_eq!(offered(&address, &["flows", "--to-pod", "shop/w"]), ["shop/web-0"]);
    assert_eq!(offered(&address, &["-n", ""]), ["shop"]);
    assert_eq!(offered(&address, &["--node-name", ""]), ["default/n1"]);
    assert_eq!(offered(&address, &["--verdict", "DR"]), ["DROPPED"]);
    assert_eq!(offered(&address, &["--drop-reason-desc", "TTL"]), ["TTL_EXCEEDED"]);
    assert!(offered(&address, &["--from-p"]).iter().any(|flag| flag.starts_with("--from-pod")));
    assert!(offered(&address, &["sta"]).iter().any(|command| command.starts_with("status")));
    // The line's own server is asked; one that never answers offers nothing, and ends.
    assert_eq!(offered("unix:///nonexistent", &["--server", &address, "-n", ""]), ["shop"]);
    assert_eq!(offered("unix:///nonexistent", &["-n", ""]), [""; 0]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(offered(&silent.local_addr().unwrap().to_string(), &["--pod", ""]), [""; 0]);

    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = good(&observe(&["completion", shell]).output().unwrap());
        assert!(script.contains("OBSERVE_COMPLETE"), "{shell}: {script}");
    }
}

/// Pages of every command, and in them every flag.
fn pages(form: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    good(&observe(&["reference", form, folder.path().to_str().unwrap()]).output().unwrap());
    let mut pages: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    pages.sort();
    pages
}

#[test]
fn man_pages_have_every_flag() {
    let pages = pages("man");
    for name in
        ["observe.1", "observe-flows.1", "observe-list-nodes.1", "observe-config-set.1", "observe-status.1"]
    {
        assert!(pages.iter().any(|(page, _)| page == name), "{name}");
    }
    let (_, flows) = pages.iter().find(|(name, _)| name == "observe-flows.1").unwrap();
    let flows = flows.replace("\\-", "-");
    for flag in FLAGS {
        assert!(flows.contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

#[test]
fn the_pages_of_docs_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli");
    let pages = pages("markdown");
    for (name, text) in &pages {
        let kept = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(kept == *text, "docs/cli/{name} is not what the flags say now: run `make man`");
    }
    let kept: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("observe"))
        .collect();
    assert_eq!(kept, pages.into_iter().map(|(name, _)| name).collect());
    let flows = fs::read_to_string(folder.join("observe-flows.md")).unwrap();
    for flag in FLAGS {
        assert!(flows.contains(&format!("--{}", flag.name)), "{}", flag.name);
    }
}

/// A build without the Kubernetes API says so, and what to do.
#[cfg(not(feature = "port-forward"))]
#[test]
fn a_port_forward_that_is_not_built_in_is_told() {
    let told = bad(&observe(&["-P"]).output().unwrap());
    assert!(told.starts_with("this build has no --port-forward: "), "{told}");
    assert!(told.contains("kubectl port-forward"), "{told}");
}

#[test]
fn kubectls_plugin_says_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-observe");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_observe"), &plugin).unwrap();
    let output = Command::new(&plugin).arg("--help").env_clear().output().unwrap();
    assert!(good(&output).contains("Usage: kubectl observe"), "{}", text(&output.stdout));
}
