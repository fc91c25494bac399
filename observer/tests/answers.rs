//! `observe why` against the daemon, for each cause of a drop in the demo.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
};
use support::{Daemon, OBSERVER};

/// The flags that ask for it, and its name.
const CAUSES: &[(&str, &str)] = &[
    ("--from-pod tenant-a/tenant-a-client --to-pod tenant-b/tenant-b-server --to-port 7000", "firewall"),
    ("--from-pod web/frontend-app --to-pod payments/payments-api --to-port 9000", "firewall"),
    ("--from-pod data/analytics-service --to-pod ops/finance-tool", "nothing_listens"),
    ("--from-pod ops/finance-tool --to-pod data/analytics-service --to-port 7999", "nothing_listens"),
    ("--from-pod tenant-b/tenant-b-client --to-ip 198.51.100.20", "no_route"),
    ("--from-pod tenant-b/tenant-b-client --to-ip 2001:db8:51::20", "no_route"),
    ("--from-pod data/analytics-service --to-ip 198.51.100.10", "route_discards"),
    ("--from-pod data/analytics-service --to-ip 2001:db8:51::10", "route_discards"),
    ("--from-pod ops/finance-tool --to-ip 203.0.113.10", "ttl_exceeded"),
    ("--from-pod ops/finance-tool --to-ip 2001:db8:113::10", "ttl_exceeded"),
    ("--from-pod payments/payments-api --to-ip 198.51.100.30", "too_big"),
    ("--from-pod payments/payments-api --to-ip 2001:db8:51::30", "too_big"),
    ("--from-pod tenant-a/tenant-a-client --to-ip 198.51.100.40", "no_neighbour"),
    ("--from-pod tenant-a/tenant-a-client --to-ip 2001:db8:51::40", "no_neighbour"),
];

/// The daemon has what the demo's recording holds: the same on any machine, with the times of the recording.
#[test]
fn why_names_each_cause_of_the_demo() {
    let observe = Path::new(OBSERVER).with_file_name("observe");
    assert!(observe.exists(), "{} is missing: build it with `cargo build -p observe`", observe.display());
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/events/demo.rec");
    let mut command = Command::new(OBSERVER);
    command.arg("--replay").arg(recording).args(["--speed", "max"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    daemon.log_line("replayed ");
    let server = format!("unix://{}", daemon.dir.path().join("hubble.sock").display());
    for (flags, cause) in CAUSES {
        let mut command = Command::new(&observe);
        command.arg("why").args(flags.split_whitespace()).args([
            "-o",
            "json",
            "--since",
            "2026-01-01",
            "--server",
            &server,
        ]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{flags}: {error}: {told}"));
        assert_eq!(report["outcome"], "blocked", "{flags}: {report}");
        assert_eq!(report["ports"][0]["cause"], *cause, "{flags}: {report}");
        assert_ne!(report["ports"][0]["drops"][0]["kernel_location"], serde_json::Value::Null, "{flags}");
    }
}
