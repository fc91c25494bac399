//! What people make of it in a shell: pipes, `head`, `jq`, and a narrow terminal multiplexer.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod server;
mod tmux;

use observer_proto::{
    flow::{self, DropReason, Endpoint, Flow, Verdict},
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
    text::sanitize,
};
use server::{Mock, Server};
use std::process::{Command, Output};
use tmux::Tmux;

const COUNT: usize = 2_000;
/// Clears the screen, names the window, turns text round, and is a DNS name by its labels.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}moc.\u{200b}example";

fn flow(number: usize) -> GetFlowsResponse {
    let end = |namespace: &str, pod: &str| Endpoint {
        namespace: namespace.into(),
        pod_name: pod.into(),
        ..Endpoint::default()
    };
    let ip = |source: &str, destination: &str| flow::Ip {
        source: source.into(),
        destination: destination.into(),
        ..flow::Ip::default()
    };
    let flow = Flow {
        verdict: Verdict::Dropped as i32,
        drop_reason_desc: DropReason::PolicyDenied as i32,
        ip: Some(ip("10.0.0.1", "203.0.113.7")),
        source: Some(end("web", &format!("frontend-app-7b5b8c9d-{number:05}"))),
        destination_names: vec![HOSTILE.into()],
        ..Flow::default()
    };
    GetFlowsResponse { response_types: Some(ResponseTypes::Flow(flow)), ..GetFlowsResponse::default() }
}

/// Runs a line of shell in which `observe` is ours, and asks the server.
fn shell(server: &Server, line: &str) -> Command {
    let folder = std::path::Path::new(env!("CARGO_BIN_EXE_observe")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", line]);
    command.env_clear().env("PATH", format!("{}:{path}", folder.display()));
    command.env("OBSERVE_SERVER", server.address()).env("HOME", "/nonexistent").env("LC_ALL", "C.UTF-8");
    command
}

fn good(output: &Output) -> String {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", output.status);
    assert_eq!(told, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn head_takes_one_line_and_nobody_complains() {
    let server = Server::start(Mock { flows: (0..COUNT).map(flow).collect(), ..Mock::default() });
    for format in ["json", "compact", "wide"] {
        // With pipefail the exit code is that of `observe` too.
        let output = shell(&server, &format!("observe --all -o {format} | head -1")).output().unwrap();
        assert_eq!(good(&output).lines().count(), 1, "{format}");
    }
}

#[test]
fn jq_reads_every_line() {
    let server = Server::start(Mock { flows: (0..COUNT).map(flow).collect(), ..Mock::default() });
    let line = "observe --all -o json | jq -r 'select(.flow.verdict == \"DROPPED\") | .flow.source.pod_name'";
    let names = good(&shell(&server, line).output().unwrap());
    let expected: Vec<String> =
        (0..COUNT).map(|number| format!("frontend-app-7b5b8c9d-{number:05}")).collect();
    assert_eq!(names.lines().collect::<Vec<_>>(), expected);
    // What the network sent is what a pipeline gets: JSON has escapes of its own.
    let name = good(
        &shell(&server, "observe --all -o json | head -1 | jq -j '.flow.destination_names[0]'")
            .output()
            .unwrap(),
    );
    assert_eq!(name, HOSTILE);
}

#[test]
fn a_narrow_tmux_shows_whole_verdicts_and_stays_as_it_is() {
    let server = Server::start(Mock { flows: (0..3).map(flow).collect(), ..Mock::default() });
    let tmux = Tmux(format!("observe-test-{}", std::process::id()));
    let observe = env!("CARGO_BIN_EXE_observe");
    for (session, format, color) in [
        ("plain", "wide", "NO_COLOR=1"),
        ("colours", "wide", "CLICOLOR_FORCE=1"),
        ("compact", "compact", "NO_COLOR=1"),
    ] {
        let line = format!(
            "env {color} OBSERVE_SERVER={} {observe} --all -o {format} 2>&1; tmux -L {} wait-for -S shown; exec sleep 1000",
            server.address(),
            tmux.0
        );
        tmux.run(&["new-session", "-d", "-s", session, "-x", "40", "-y", "24", &line]);
        tmux.run(&["wait-for", "shown"]);
        let screen = tmux.run(&["capture-pane", "-p", "-e", "-t", session]);
        // Sessions stay to the end: a server whose last one ends is going when the next one asks for it.
        let title = tmux.run(&["display-message", "-p", "-t", session, "#{pane_title}"]);
        assert!(!title.contains("owned"), "{title}");
        assert_eq!(screen.contains('\u{1b}'), color == "CLICOLOR_FORCE=1", "{screen}");
        let plain: String =
            screen.split('\u{1b}').enumerate().fold(String::new(), |mut plain, (index, part)| {
                // What is left of a colour's sequence goes up to its `m`.
                plain.push_str(if index == 0 {
                    part
                } else {
                    part.split_once('m').map_or("", |(_, rest)| rest)
                });
                plain
            });
        let lines: Vec<&str> = plain.lines().filter(|line| !line.trim().is_empty()).collect();
        assert!(plain.chars().all(|c| c == '\n' || !sanitize::is_unsafe(c)), "{plain:?}");
        if format == "wide" {
            // A line a flow, under one of headings.
            assert_eq!(lines.len(), 4, "{plain}");
            assert!(lines[1..].iter().all(|line| line.contains("DROPPED")), "{plain}");
        } else {
            assert_eq!(plain.replace('\n', "").matches("DROPPED").count(), 3, "{plain}");
        }
    }
}
