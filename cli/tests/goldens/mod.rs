//! Against a server that sends Hubble's recorded responses: what comes out is what Hubble's
//! own command line printed, byte for byte on both streams.

use crate::{
    server::{Mock, Server},
    terminal,
};
use observer_proto::{json, observer::GetFlowsResponse};
use std::process::{Command, Stdio};

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../testdata/hubble-api/goldens/", $name))
    };
}

macro_rules! wide_golden {
    ($name:literal) => {
        include_str!(concat!("../../../testdata/wide/", $name))
    };
}

fn lines<M: prost::Message + prost::Name + Default>(text: &str) -> Vec<M> {
    text.lines().map(|line| json::read(line).unwrap()).collect()
}

fn observe(server: &Server, arguments: &str, variables: &[(&str, &str)]) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_observe"))
        .args(arguments.split_whitespace())
        .env_clear()
        .envs(variables.iter().copied())
        .env("OBSERVE_SERVER", server.address())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn flows_in_every_layout() {
    let flows = lines::<GetFlowsResponse>(golden!("flows.in.jsonl"));
    let server = Server::start(Mock { flows, ..Mock::default() });
    // The one difference: Hubble lets a colour sequence that it uses itself pass from the data, here it never does.
    let color = golden!("flows.compact-color.out");
    let color = color.replacen("<c> \u{1b}[31mred", "<c> ^[[31mred", 1);
    assert_ne!(color, golden!("flows.compact-color.out"));
    let compact = golden!("flows.compact.out");
    let trouble = golden!("flows.compact.err");
    for (arguments, out, err) in [
        ("", compact, trouble),
        ("flows -o compact --all", compact, trouble),
        ("-s", compact, ""),
        ("--color always", &color, trouble),
        ("--numeric", golden!("flows.compact-numeric.out"), trouble),
        ("--ip-translation=false", golden!("flows.compact-numeric.out"), trouble),
        (
            "--print-node-name --print-policy-names -D",
            golden!("flows.compact-node-policy-debug.out"),
            golden!("flows.compact-node-policy-debug.err"),
        ),
        ("-o dict", golden!("flows.dict.out"), golden!("flows.dict.err")),
        ("-o table", golden!("flows.tab.out"), golden!("flows.tab.err")),
        ("-o tab --print-node-name", golden!("flows.tab-node.out"), golden!("flows.tab.err")),
        ("-o json", golden!("flows.json.out"), golden!("flows.json.err")),
        ("-o jsonpb", golden!("flows.json.out"), golden!("flows.json.err")),
    ] {
        let found = observe(&server, arguments, &[]);
        assert_eq!(found.0, out, "{arguments}");
        assert_eq!(found.1, err, "{arguments}");
    }
    let legacy = [("HUBBLE_COMPAT", "legacy-json-output")];
    assert_eq!(observe(&server, "-o json", &legacy), (golden!("flows.legacy.out").to_owned(), String::new()));
    assert_eq!(observe(&server, "-o jsonpb", &legacy).0, golden!("flows.json.out"));
    let (rfc, _) = observe(&server, "--time-format rfc3339", &[]);
    assert!(rfc.starts_with("2026-01-05T10:15:30Z: "), "{rfc}");
}

/// `-o wide` to a terminal of this width, or with `$COLUMNS` of it to a pipe.
fn wide(server: &Server, terminal_width: u16, arguments: &[&str], columns: Option<&str>) -> String {
    let terminal = terminal::of_width(terminal_width);
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command.args(["-o", "wide"]).args(arguments).env_clear().env("OBSERVE_SERVER", server.address());
    command.envs(columns.map(|columns| ("COLUMNS", columns))).stdout(terminal.for_child);
    let mut child = command.spawn().unwrap();
    // Closes the last writing end of ours, or reading would not end.
    drop(command);
    let text = terminal::read(terminal.ours).replace("\r\n", "\n");
    assert!(child.wait().unwrap().success());
    text
}

#[test]
fn wide_fits_its_terminal() {
    let flows = lines::<GetFlowsResponse>(include_str!("../../../testdata/wide/flows.in.jsonl"));
    let server = Server::start(Mock { flows, ..Mock::default() });
    let plain = ["--color", "never", "-s"];
    assert_eq!(wide(&server, 120, &plain, None), wide_golden!("120.out"));
    assert_eq!(wide(&server, 80, &plain, None), wide_golden!("80.out"));
    assert_eq!(wide(&server, 40, &plain, None), wide_golden!("40.out"));
    assert_eq!(wide(&server, 120, &["-s"], None), wide_golden!("120-color.out"));
    assert_eq!(
        wide(&server, 120, &[&plain[..], &["--numeric"]].concat(), None),
        wide_golden!("120-numeric.out")
    );
    let more = ["--print-node-name", "--print-policy-names", "--time-format", "rfc3339milli"];
    let more = [&plain[..], &more].concat();
    assert_eq!(wide(&server, 160, &more, None), wide_golden!("160-node-policy-time.out"));
    // The variable is stronger than the terminal, which may not know (0).
    assert_eq!(wide(&server, 120, &plain, Some("80")), wide_golden!("80.out"));
    assert_eq!(wide(&server, 0, &plain, Some("0")), wide_golden!("pipe.out"));

    let trouble = "Jan 10 15:31:03.000 [relay-0]: 1 nodes are unavailable: n2\n";
    for (variables, out) in
        [(&[][..], wide_golden!("pipe.out")), (&[("COLUMNS", "40")], wide_golden!("40.out"))]
    {
        assert_eq!(observe(&server, "-o wide", variables), (out.to_owned(), trouble.to_owned()));
    }
}

#[test]
fn status_in_every_layout() {
    let mut found = [const { String::new() }; 4];
    for status in lines(golden!("status.in.jsonl")) {
        let server = Server::start(Mock { status: Some(status), serving: true, ..Mock::default() });
        for (text, format) in found.iter_mut().zip(["compact", "dict", "json", "table"]) {
            let (out, err) = observe(&server, &format!("status -o {format}"), &[]);
            assert_eq!(err, "");
            let health = format!("Healthcheck (via {}): Ok\n", server.address());
            // Only the compact layout speaks of it.
            text.push_str(if format == "compact" { out.strip_prefix(&health).unwrap() } else { &out });
        }
    }
    assert_eq!(found[0], golden!("status.compact.out"));
    assert_eq!(found[1], golden!("status.dict.out"));
    assert_eq!(found[2], golden!("status.json.out"));
    assert_eq!(found[3], golden!("status.tab.out"));
}

#[test]
fn events_in_every_layout() {
    let server = Server::start(Mock {
        agent_events: lines(golden!("agent.in.jsonl")),
        debug_events: lines(golden!("debug.in.jsonl")),
        ..Mock::default()
    });
    for (arguments, out) in [
        ("agent-events", golden!("agent.compact.out")),
        ("agent-events -o dict", golden!("agent.dict.out")),
        ("agent-events -o json", golden!("agent.json.out")),
        ("agent-events -o table", golden!("agent.tab.out")),
        ("debug-events", golden!("debug.compact.out")),
        ("observe debug-events -o dict", golden!("debug.dict.out")),
        ("debug-events -o jsonpb", golden!("debug.json.out")),
        ("debug-events -o tab", golden!("debug.tab.out")),
    ] {
        assert_eq!(observe(&server, arguments, &[]), (out.to_owned(), String::new()), "{arguments}");
    }
}

/// Every file of Hubble's output is compared with above.
#[test]
fn no_golden_is_left_out() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/hubble-api/goldens");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.contains(".in."))
        .collect();
    names.sort();
    for name in &names {
        assert!(
            include_str!("mod.rs").contains(&format!("golden!(\"{name}\")")),
            "{name} is compared with nothing"
        );
    }
    println!("goldens: {} files of Hubble's output, byte for byte", names.len());
    assert!(names.len() >= 25, "{names:?}");
}
