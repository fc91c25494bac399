//! Against a server that sends Hubble's recorded responses: what comes out is what Hubble's
//! own command line printed, byte for byte on both streams.

use crate::server::{Mock, Server};
use observer_proto::{json, observer::GetFlowsResponse};
use std::process::{Command, Stdio};

macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../../testdata/hubble-api/goldens/", $name))
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
