//! `observe tui` as a program: what it does with its terminal, whatever ends it.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod server;
mod tmux;

use observer_proto::{
    flow::{DropReason, Endpoint, Flow, Ip, Verdict},
    json,
    observer::{GetFlowsResponse, Node, ServerStatusResponse, get_flows_response::ResponseTypes},
    relay::{NodeState, NodeStatusEvent},
    text::sanitize,
};
use server::{Mock, Server};
use std::{fs, process::Command};
use tmux::Tmux;

const OBSERVE: &str = env!("CARGO_BIN_EXE_observe");
const SIZE: (u16, u16) = (100, 30);
/// Clears the screen, names the window, and turns text round.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}moc.\u{200b}example";

fn flow(number: usize) -> GetFlowsResponse {
    let end = |namespace: &str, pod: &str| {
        Some(Endpoint { namespace: namespace.into(), pod_name: pod.into(), ..Endpoint::default() })
    };
    let flow = Flow {
        verdict: Verdict::Dropped as i32,
        drop_reason_desc: DropReason::PolicyDenied as i32,
        ip: Some(Ip { source: "10.0.0.1".into(), destination: "203.0.113.7".into(), ..Ip::default() }),
        source: end("web", &format!("frontend-{number}")),
        destination_names: vec![HOSTILE.into()],
        ..Flow::default()
    };
    GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), ..GetFlowsResponse::default() }
}

fn mock() -> Mock {
    Mock { flows: (0..3).map(flow).collect(), stay: true, ..Mock::default() }
}

/// Starts it in a terminal; when it ends, the screen says how.
fn start(tmux: &Tmux, session: &str, server: &str, flags: &str) {
    let home = "HOME=/nonexistent XDG_STATE_HOME=/nonexistent XDG_CONFIG_HOME=/nonexistent";
    let line = format!("env {home} OBSERVE_SERVER={server} {OBSERVE} tui {flags}; echo ended with $?");
    tmux.start(session, SIZE, &line);
}

/// The program in a terminal, by its number.
fn program(tmux: &Tmux, session: &str) -> i32 {
    let shell = tmux.run(&["display-message", "-p", "-t", session, "#{pane_pid}"]);
    let shell = shell.trim();
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    let is_ours = |pid: &&str| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path.to_str() == Some(OBSERVE))
    };
    children.split_whitespace().find(is_ours).unwrap().parse().unwrap()
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[test]
fn it_shows_flows_escaped_and_leaves_the_terminal_as_it_was() {
    let server = Server::start(mock());
    let tmux = Tmux(format!("observe-dashboard-{}", std::process::id()));
    start(&tmux, "end", &server.address(), "--theme mono");
    let screen = tmux.shows("end", &["LIVE", "web/frontend-0", "web/frontend-2", "DROP", "^[[2J"]);
    assert!(screen.chars().all(|c| c == '\n' || !sanitize::is_unsafe(c)), "{screen:?}");
    assert!(tmux.is_full_screen("end"));
    tmux.keys("end", &["q"]);
    let screen = tmux.shows("end", &["ended with 0"]);
    assert!(!tmux.is_full_screen("end") && !screen.contains("LIVE"), "{screen}");
    let title = tmux.run(&["display-message", "-p", "-t", "end", "#{pane_title}"]);
    assert!(!title.contains("owned"), "{title}");
}

#[test]
fn signals_end_it_and_stop_it_in_order() {
    let server = Server::start(mock());
    let tmux = Tmux(format!("observe-signals-{}", std::process::id()));
    start(&tmux, "kill", &server.address(), "");
    tmux.shows("kill", &["LIVE"]);
    signal(program(&tmux, "kill"), rustix::process::Signal::TERM);
    tmux.shows("kill", &["ended with 0"]);
    assert!(!tmux.is_full_screen("kill"));
    tmux.run(&["kill-session", "-t", "kill"]);

    // A shell with jobs: it has the terminal while the program is stopped.
    let line = "bash --norc --noprofile -i";
    tmux.start("stop", SIZE, &format!("env PS1='ready> ' {line}"));
    tmux.shows("stop", &["ready>"]);
    tmux.types("stop", &format!("OBSERVE_SERVER={} {OBSERVE} tui\n", server.address()));
    tmux.shows("stop", &["LIVE", "web/frontend-0"]);
    tmux.keys("stop", &["C-z"]);
    tmux.shows("stop", &["Stopped"]);
    assert!(!tmux.is_full_screen("stop"));
    tmux.types("stop", "echo typed\n");
    tmux.shows("stop", &["\ntyped"]);
    tmux.types("stop", "fg\n");
    tmux.shows("stop", &["LIVE", "web/frontend-0"]);
    tmux.keys("stop", &["q"]);
    tmux.until("stop", "the shell", |screen| screen.contains("Stopped") && !screen.contains("LIVE"));
}

#[test]
fn a_server_that_goes_and_comes_again_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), mock());
    let tmux = Tmux(format!("observe-again-{}", std::process::id()));
    start(&tmux, "again", &server.address(), "");
    tmux.shows("again", &["LIVE", "web/frontend-2"]);
    drop(server);
    let screen = tmux.shows("again", &["RECONNECTING"]);
    assert!(screen.contains("web/frontend-2"), "what was there stays:\n{screen}");
    let _server = Server::start_in(folder.path(), Mock { flows: vec![flow(7)], ..mock() });
    tmux.shows("again", &["LIVE", "web/frontend-7"]);
}

#[test]
fn behind_a_relay_the_nodes_that_are_missing_are_named() {
    const NODES: usize = 40;
    let name = |number: usize| format!("node-{number:02}");
    let node = |number: usize| Node {
        name: name(number),
        state: if number == 7 { NodeState::NodeUnavailable } else { NodeState::NodeConnected } as i32,
        address: format!("192.0.2.{number}:4244"),
        max_flows: 4095,
        num_flows: 4095,
        seen_flows: 90_000,
        uptime_ns: 100_000_000_000,
        ..Node::default()
    };
    let missing = NodeStatusEvent {
        state_change: NodeState::NodeUnavailable as i32,
        node_names: vec![name(7)],
        message: String::new(),
    };
    let mut flows: Vec<_> = (0..3).map(flow).collect();
    flows.push(GetFlowsResponse {
        response_types: Some(ResponseTypes::NodeStatus(missing)),
        ..GetFlowsResponse::default()
    });
    let status = ServerStatusResponse {
        num_connected_nodes: Some(NODES as u32 - 1),
        num_unavailable_nodes: Some(1),
        unavailable_nodes: vec![name(7)],
        ..ServerStatusResponse::default()
    };
    let nodes = (0..NODES).map(node).collect();
    let server = Server::start(Mock { flows, nodes, status: Some(status), ..mock() });
    let tmux = Tmux(format!("observe-relay-{}", std::process::id()));
    start(&tmux, "relay", &server.address(), "");
    tmux.shows("relay", &["PARTIAL 39/40 nodes", "1 nodes are unavailable: node-07", "web/frontend-2"]);
    tmux.keys("relay", &["7"]);
    tmux.shows("relay", &["40 nodes, 39 connected", "node-00", "unavailable"]);
    // The last one is there, too.
    tmux.keys("relay", &["PageDown", "PageDown", "PageDown"]);
    tmux.shows("relay", &["node-39"]);
}

#[test]
fn files_are_shown_and_filtered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flows.jsonl");
    let lines: Vec<String> = (0..5).map(|number| json::line(&flow(number)).unwrap()).collect();
    fs::write(&file, lines.join("\n") + "\nno flow\n").unwrap();
    let tmux = Tmux(format!("observe-files-{}", std::process::id()));
    start(&tmux, "file", "unix:///nonexistent", &format!("--ascii --input-file {}", file.display()));
    tmux.shows("file", &["OFFLINE", "5 rows", "web/frontend-4", "skipped 1 of 6 lines"]);
    tmux.keys("file", &["/"]);
    tmux.types("file", "--from-pod web/frontend-3");
    tmux.keys("file", &["Enter"]);
    tmux.shows("file", &["1 rows", "web/frontend-3"]);
    tmux.keys("file", &["2"]);
    tmux.shows("file", &["POLICY_DENIED", "[from 1 rows]"]);
    tmux.run(&["resize-window", "-t", "file", "-x", "50", "-y", "10"]);
    tmux.shows("file", &["observe needs 60x12"]);
    tmux.run(&["resize-window", "-t", "file", "-x", "100", "-y", "30"]);
    tmux.shows("file", &["POLICY_DENIED"]);
}

#[test]
fn what_is_no_use_is_said_in_a_line() {
    let run = |flags: &[&str]| Command::new(OBSERVE).arg("tui").args(flags).env_clear().output().unwrap();
    let output = run(&[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    assert!(told.contains("needs a terminal"), "{told}");
    let output = run(&["--theme", "pink"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() != Some(0) && told.contains("ansi, cvd, light, mono"), "{told}");
    let output = run(&["--print-template"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), observe_tui::config::TEMPLATE);
}
