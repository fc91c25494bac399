//! The real binary against a server of our own over a unix socket.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod answers;
mod goldens;
mod server;
mod terminal;

use observer_proto::{
    flow::{self, LostEvent},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use server::{Mock, Server};
use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Command, Output, Stdio},
};

fn observe(server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command.args(arguments).env_clear().env("OBSERVE_SERVER", server).stdin(Stdio::null());
    command
}

fn run(server: &Server, arguments: &[&str]) -> Output {
    observe(&server.address(), arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn flow(pod: &str) -> GetFlowsResponse {
    flow_of("shop", pod)
}

fn flow_of(namespace: &str, pod: &str) -> GetFlowsResponse {
    let source = flow::Endpoint {
        namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        ..flow::Endpoint::default()
    };
    // Hubble prints the names of an end only where there is an address to stand for.
    let ip = flow::Ip { source: "10.0.0.1".to_owned(), ..flow::Ip::default() };
    let flow = flow::Flow {
        verdict: flow::Verdict::Forwarded as i32,
        ip: Some(ip),
        source: Some(source),
        is_reply: Some(false),
        ..flow::Flow::default()
    };
    GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), ..GetFlowsResponse::default() }
}

#[test]
fn the_filters_are_on_the_wire() {
    let server = Server::start(Mock { flows: vec![flow("web-0")], ..Mock::default() });
    let output = run(&server, &["--pod", "shop/web", "--not", "--to-port", "53", "--first", "7"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("shop/web-0"), "{}", stdout(&output));
    let request = server.request();
    assert_eq!((request.number, request.first, request.follow), (7, true, false));
    assert_eq!(request.field_mask, None);
    assert_eq!(request.whitelist.len(), 2);
    assert_eq!(request.whitelist[0].source_pod, ["shop/web"]);
    assert_eq!(request.whitelist[1].destination_pod, ["shop/web"]);
    assert_eq!(request.blacklist.len(), 1);
    assert_eq!(request.blacklist[0].destination_port, ["53"]);

    assert!(run(&server, &["flows"]).status.success());
    assert_eq!(server.request().number, 20);
}

#[test]
fn json_is_one_response_a_line_and_keeps_losses() {
    let lost = LostEvent { source: 3, num_events_lost: 12, ..LostEvent::default() };
    let lost = GetFlowsResponse {
        response_types: Some(ResponseTypes::LostEvents(lost)),
        ..GetFlowsResponse::default()
    };
    let server = Server::start(Mock { flows: vec![flow("web-0"), lost], ..Mock::default() });
    let output = run(&server, &["-o", "json"]);
    let text = stdout(&output);
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines[0]["flow"]["source"]["pod_name"], "web-0");
    assert_eq!(lines[1]["lost_events"]["num_events_lost"], "12");
    assert!(stdout(&run(&server, &[])).contains("EVENTS LOST: HUBBLE_RING_BUFFER"));
}

#[test]
fn what_the_server_refuses_is_printed_bare() {
    let text = r#"invalid protocol filter: unknown protocol: "bogus""#;
    let server = Server::start(Mock { error: Some((tonic::Code::Unknown, text)), ..Mock::default() });
    let output = run(&server, &["--protocol", "bogus"]);
    assert_eq!((output.status.code(), stderr(&output)), (Some(1), format!("{text}\n")));

    let server = Server::start(Mock { error: Some((tonic::Code::InvalidArgument, "no")), ..Mock::default() });
    let output = run(&server, &[]);
    assert_eq!(stderr(&output), "rpc error: code = InvalidArgument desc = no\n");
}

#[test]
fn wrong_usage_exits_1_with_one_line() {
    for (arguments, text) in [
        (&["--first", "1", "--last", "1"][..], "cannot set both --first and --last"),
        (&["--first", "1", "--follow"], "cannot set both --first and --follow"),
        (&["-o", "bogus"], "invalid output format: bogus"),
        (&["-f", "-o", "table"], "table output format is not compatible with follow mode"),
        (&["--bogus"], "unknown flag: --bogus"),
        (&["--not"], "trailing --not found in the arguments"),
        (&["--since", "x"], "failed to parse the since time: failed to convert x to time"),
    ] {
        let output = observe("unix:///nowhere.sock", arguments).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), format!("{text}\n")), "{arguments:?}");
    }
}

#[test]
fn an_unreachable_server_is_told_with_why_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("unix://{}/none.sock", folder.path().display());
    for arguments in [&[][..], &["status"]] {
        let output = observe(&missing, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            stderr(&output),
            format!(
                "cannot reach {missing} (from $OBSERVE_SERVER)\nno such socket\nhint: start the daemon with `sudo observer`, \
                 or name another server with --server or $OBSERVE_SERVER\n"
            )
        );
    }
    // A socket file that nobody listens on any more.
    let stale = folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let output = observe("", &["--server", stale.to_str().unwrap()]).output().unwrap();
    assert!(stderr(&output).contains("connection refused"), "{}", stderr(&output));
}

#[test]
fn follow_shows_each_flow_at_once_and_ends_well() {
    use rustix::process::{Pid, Signal, kill_process};
    let server = Server::start(Mock { flows: vec![flow("web-0")], stay: true, ..Mock::default() });
    // `None`: the reader leaves while nothing is being written.
    for signal in [Some(Signal::INT), Some(Signal::TERM), None] {
        let mut child = observe(&server.address(), &["-f"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Arrives though the stream stays open and standard output is a pipe.
        assert!(lines.next().unwrap().unwrap().contains("shop/web-0"));
        assert_eq!((server.request().number, server.request().follow), (0, true));
        match signal {
            Some(signal) => kill_process(Pid::from_child(&child), signal).unwrap(),
            None => drop(lines),
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    // Far more than a pipe and our buffer hold.
    let flows = vec![flow(&"x".repeat(200)); 5000];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flows.jsonl");
    std::fs::write(&file, (observer_proto::json::line(&flows[0]).unwrap() + "\n").repeat(flows.len()))
        .unwrap();
    let server = Server::start(Mock { flows, ..Mock::default() });
    let file = file.to_str().unwrap();
    for arguments in [&["--all"][..], &["--all", "-o", "json"], &["--input-file", file, "-o", "json"]] {
        let mut child = observe(&server.address(), arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn status_shows_health_and_figures() {
    let server = Server::start(Mock { serving: true, ..Mock::default() });
    let output = run(&server, &["status"]);
    let expected = format!(
        "Healthcheck (via {}): Ok\nCurrent/Max Flows: 5/4,095 (0.12%)\nFlows/s: 7.50\n",
        server.address()
    );
    assert_eq!((stdout(&output), output.status.code()), (expected, Some(0)));
    let json: serde_json::Value =
        serde_json::from_str(&stdout(&run(&server, &["status", "-o", "json"]))).unwrap();
    assert_eq!(json["max_flows"], "4095");

    let server = Server::start(Mock::default());
    let output = run(&server, &["status"]);
    assert_eq!(
        stdout(&output),
        format!("Healthcheck (via {}): Unavailable: NOT_SERVING\n", server.address())
    );
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("not healthy\n", Some(1)));
}

#[test]
fn capture_status_comes_from_the_control_socket() {
    let server = Server::start(Mock::default());
    let path = server.path();
    // Beside the server's socket, unless it is named.
    for arguments in
        [&["status", "--capture"][..], &["status", "--capture", "--control-socket", path.to_str().unwrap()]]
    {
        let output = run(&server, arguments);
        let text = stdout(&output);
        assert!(text.contains("flows: tcx  attached"), "{text}{}", stderr(&output));
        assert!(text.contains("made = delivered + lost"), "{text}");
    }
    let output = run(&server, &["status", "--capture", "-o", "json"]);
    assert!(
        stdout(&output).starts_with(r#"{"hooks":[{"name":"flows: tcx","state":"ATTACHED"}]"#),
        "{}",
        stdout(&output)
    );
    let output = run(&server, &["status", "--capture", "-o", "dict"]);
    assert_eq!(stderr(&output), "output format dict is not available with --capture; use compact or json\n");
}

#[test]
fn the_hint_is_for_people_only() {
    let server = Server::start(Mock { known: vec![flow("web-0")], ..Mock::default() });
    let arguments = ["--from-pod", "shop/wep", "--to-pod", "shop/web"];
    let mut command = observe(&server.address(), &arguments);
    let terminal = terminal::open();
    let status = command.stdout(Stdio::null()).stderr(terminal.for_child).status().unwrap();
    // Closes the last writing end, or reading would not end.
    drop(command);
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        terminal::read(terminal.ours),
        "hint: 0 of 30 flows matched; no pod shop/wep is known\r\n",
        "the server knows shop/web-0, so that only one of the two names is unknown"
    );
    // A pipe gets nothing.
    assert_eq!(stderr(&run(&server, &arguments)), "");
}

/// Five seconds of a stream without a match, told to who watches; the stream goes on.
#[test]
fn the_hint_comes_while_following() {
    use rustix::process::{Pid, Signal, kill_process};
    let known =
        [("payments", "payments-api-0"), ("shop", "web-0")].map(|(namespace, pod)| flow_of(namespace, pod));
    let status = observer_proto::observer::ServerStatusResponse { seen_flows: 12_345, ..Default::default() };
    let silent = Mock { known: known.into(), status: Some(status), stay: true, ..Mock::default() };
    let matching = Server::start(Mock { flows: vec![flow("web-0")], ..silent.clone() });
    let silent = Server::start(silent);
    let arguments = ["-f", "--from-pod", "payments/payments-apo", "--to-pod", "web"];

    // Who sees flows gets none; this one starts first, so that its five seconds are over first.
    let with_flows = terminal::open();
    let mut command = observe(&matching.address(), &arguments);
    let mut follower = command.stdout(Stdio::piped()).stderr(with_flows.for_child).spawn().unwrap();
    drop(command);
    let mut shown = BufReader::new(follower.stdout.take().unwrap()).lines();
    assert!(shown.next().unwrap().unwrap().contains("shop/web-0"));

    let mut command = observe(&silent.address(), &arguments);
    let without = terminal::open();
    let mut waiting = command.stdout(Stdio::null()).stderr(without.for_child).spawn().unwrap();
    drop(command);
    let mut said = BufReader::new(without.ours);
    let mut hint = String::new();
    said.read_line(&mut hint).unwrap();
    assert_eq!(
        hint,
        "hint: 0 of 12,345 flows matched; no pod payments/payments-apo is known; 'web' means default/web\r\n"
    );
    assert_eq!(waiting.try_wait().unwrap(), None, "the hint ends nothing");
    assert!(silent.request().follow, "what was asked stays asked");
    assert_eq!(follower.try_wait().unwrap(), None, "its reader is still there");
    for child in [&mut waiting, &mut follower] {
        kill_process(Pid::from_child(child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    assert!(shown.next().is_none());
    assert_eq!(terminal::read(said.into_inner()), "", "one hint is enough");
    assert_eq!(terminal::read(with_flows.ours), "");
}

#[test]
fn help_and_version_exit_0() {
    for (arguments, part) in [
        (&["--help"][..], "--from-pod"),
        (&["flows", "--help"], "Filters:"),
        (&["help"], "Selectors:"),
        (&["help", "status"], "--capture"),
        (&["version"], "observe 0."),
        (&["--version"], "observe 0."),
    ] {
        let output = observe("", arguments).output().unwrap();
        assert!(output.status.success() && stdout(&output).contains(part), "{arguments:?}");
    }
}

#[test]
fn files_are_filtered_and_printed_as_a_server_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flows.jsonl");
    let lines = |flows: &[&str]| -> String {
        let line = |pod: &&str| observer_proto::json::line(&flow(pod)).unwrap() + "\n";
        flows.iter().map(line).collect()
    };
    std::fs::write(&path, lines(&["web-0", "web-1"]) + "torn {\n" + &lines(&["web-2", "db-0"])).unwrap();
    let path = path.to_str().unwrap();
    let pods = |arguments: &[&str]| {
        let output =
            observe("unix:///nowhere.sock", &[&["--input-file", path], arguments].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let skipped = format!("skipped 1 of 5 lines, which hold no flow; the first is {path}:3: ");
        assert!(stderr(&output).starts_with(&skipped), "{}", stderr(&output));
        let text = stdout(&output);
        let words = text.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    assert_eq!(pods(&[]), ["shop/web-0", "shop/web-1", "shop/web-2", "shop/db-0"]);
    assert_eq!(pods(&["--last", "2"]), ["shop/web-2", "shop/db-0"]);
    assert_eq!(pods(&["--pod", "shop/web", "--last", "2"]), ["shop/web-1", "shop/web-2"]);
    assert_eq!(pods(&["--not", "--pod", "shop/web"]), ["shop/db-0"]);
    assert_eq!(pods(&["--since", "1m"]), [""; 0]);

    let output = observe("", &["--input-file", path, "--first", "1"]).output().unwrap();
    assert_eq!((stdout(&output).lines().count(), stderr(&output)), (1, String::new()));
    for (arguments, text) in [
        (["--last", "1000001"], "--last must be <= 1_000_000, got 1000001\n"),
        (["--protocol", "bogus"], "invalid protocol filter: unknown protocol: \"bogus\"\n"),
    ] {
        let output = observe("", &[&["--input-file", path], &arguments[..]].concat()).output().unwrap();
        assert_eq!((output.status.code(), stderr(&output)), (Some(1), text.to_owned()));
    }
}

#[test]
fn nothing_from_outside_steers_the_terminal() {
    let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}a\u{202e}b\u{200b}c\rd\ne\u{9b}31m.example";
    let mut response = flow("web-0");
    if let Some(ResponseTypes::Flow(flow)) = &mut response.response_types {
        flow.destination_names = vec![hostile.to_owned()];
        flow.node_name = hostile.to_owned();
    }
    let server = Server::start(Mock { flows: vec![response], ..Mock::default() });
    for format in ["compact", "dict", "table", "wide"] {
        for width in [40, 120] {
            let terminal = terminal::of_width(width);
            let mut command =
                observe(&server.address(), &["-o", format, "--color", "never", "--print-node-name"]);
            command.stdout(terminal.for_child);
            let mut child = command.spawn().unwrap();
            drop(command);
            let text = terminal::read(terminal.ours).replace("\r\n", "\n");
            assert!(child.wait().unwrap().success());
            assert!(text.contains(if format == "wide" { "FORWARD" } else { "^[[2J" }), "{format}: {text}");
            let unsafe_ones: Vec<_> = text
                .chars()
                .filter(|c| *c != '\n' && observer_proto::text::sanitize::is_unsafe(*c))
                .collect();
            assert_eq!(unsafe_ones, [], "{format}: {text:?}");
        }
    }
    // JSON has escapes of its own, and stays what it is.
    let json: serde_json::Value = serde_json::from_str(&stdout(&run(&server, &["-o", "json"]))).unwrap();
    assert_eq!(json["flow"]["destination_names"][0], hostile);

    let error = Mock { error: Some((tonic::Code::Unknown, "no \u{1b}[31m")), ..Mock::default() };
    assert_eq!(stderr(&run(&Server::start(error), &[])), "no ^[[31m\n");
}

/// A flow with an id and a time.
fn timed(id: &str, seconds: i64) -> GetFlowsResponse {
    let mut response = flow(id);
    let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
    response.time = time;
    if let Some(ResponseTypes::Flow(flow)) = &mut response.response_types {
        id.clone_into(&mut flow.uuid);
        flow.time = time;
    }
    response
}

#[test]
fn following_goes_on_where_the_connection_broke() {
    let folder = tempfile::tempdir().unwrap();
    let mock = |flows: Vec<GetFlowsResponse>| Mock { flows, stay: true, ..Mock::default() };
    let server = Server::start_in(folder.path(), mock(vec![timed("a", 100), timed("b", 101)]));
    let address = server.address();
    let mut child = observe(&address, &["-f"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut pod = || lines.next().unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!([pod(), pod()], ["shop/a", "shop/b"]);

    // The next server has the last flow, and one that came while nobody looked.
    drop(server);
    let lost = told.next().unwrap();
    assert!(lost.starts_with(&format!("lost the connection to {address}: ")), "{lost}");
    let server =
        Server::start_in(folder.path(), mock(vec![timed("b", 101), timed("late", 101), timed("c", 102)]));
    assert_eq!([pod(), pod()], ["shop/late", "shop/c"]);
    let again = told.next().unwrap();
    assert!(again.starts_with(&format!("connected to {address} again after ")), "{again}");
    let request = server.request();
    assert_eq!((request.number, request.since.map(|since| since.seconds)), (0, Some(96)));

    // And the one after that has forgotten all.
    drop(server);
    assert!(told.next().unwrap().starts_with("lost the connection"));
    let _server = Server::start_in(folder.path(), mock(vec![timed("z", 200)]));
    assert_eq!(pod(), "shop/z");
    assert!(told.next().unwrap().starts_with("connected"));
    assert_eq!(
        told.next().unwrap(),
        "gap: flows from 1970-01-01T00:01:42Z until 1970-01-01T00:03:20Z may be missing, the server does not have them any more"
    );
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
