//! From command lines and files to configurations.

use super::{settings::Settings, *};
use crate::capture::CaptureConfig;
use clap::{CommandFactory as _, Parser as _};
use observer_policy::model::Mode;
use std::io::Write as _;

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn resolve(args: &[&str]) -> Result<Config, ConfigError> {
    Options::try_parse_from(std::iter::once(&"observer").chain(args)).unwrap().resolve()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = file("cluster = \"blue\"\nmax-flows = 4096\naggregation = \"low\"\ninterface = [\"eth*\"]\n");
    let path = file.path().to_str().unwrap();
    let config = resolve(&["--config", path, "--aggregation", "none"]).unwrap();
    assert_eq!(config.cluster, "blue");
    assert_eq!(config.max_flows, 4096);
    assert_eq!(config.aggregation, Aggregation::None);
    assert!(config.interfaces[0].matches("eth7"));
    assert_eq!(config.max_bytes, 64 << 20);
    let rings = CaptureConfig::default();
    assert_eq!(
        (config.flow_ring_bytes, config.priority_ring_bytes),
        (rings.flow_ring_bytes, rings.priority_ring_bytes)
    );
    assert_eq!(config.control_socket, PathBuf::from("/run/observer/control.sock"));
}

#[test]
fn what_policies_may_do_is_capped_by_the_strictest() {
    let policy = |args: &[&str]| resolve(args).unwrap().policy;
    let usual = policy(&["--policy", "p"]);
    assert_eq!((usual.mode, &usual.cap, usual.judges()), (Mode::Audit, &None, true));
    assert!(usual.may_enforce() && !policy(&[]).may_enforce());
    assert!(!usual.unknown_denied && !usual.allow_lockout && !policy(&[]).judges());
    assert_eq!(usual.state_dir, Some(PathBuf::from("/var/lib/observer")));
    let file = file(
        "policy = [\"p\"]\npolicy-mode = \"enforce\"\npolicy-audit-mode = true\nunknown-identity = \"deny\"\n\
         allow-lockout = true\nstate-dir = \"/s\"\nlisten = \"[::]:4244\"\ninsecure = true\n",
    );
    let path = file.path().to_str().unwrap();
    let strict = policy(&["--config", path]);
    assert_eq!((strict.mode, strict.unknown_denied, strict.allow_lockout), (Mode::Enforce, true, true));
    assert_eq!((strict.own_port, strict.state_dir.as_deref()), (Some(4244), Some("/s".as_ref())));
    let cap = |config: &PolicyConfig| config.cap.as_ref().map(|cap| cap.most);
    assert_eq!((cap(&strict), strict.judges()), (Some(Mode::Audit), true));
    assert!(!strict.may_enforce());
    let never = policy(&["--config", path, "--policy-enforcement", "never"]);
    assert_eq!((cap(&never), never.judges()), (Some(Mode::Observe), false));
}

#[test]
fn nothing_inside_connections_is_read_unasked_and_nothing_secret_told() {
    let usual = resolve(&[]).unwrap();
    assert_eq!((usual.l7, usual.l7.bits(), &usual.redaction), (L7::Off, 0, &Redaction::default()));
    let file = file("l7 = \"http\"\nredact-http-headers-deny = [\"x-key\"]\nredact-http-urlquery = true\n");
    let config =
        resolve(&["--config", file.path().to_str().unwrap(), "--redact-http-userinfo", "false"]).unwrap();
    let denied = vec!["x-key".to_owned()];
    assert_eq!(config.l7, L7::Http);
    assert_eq!(config.redaction, Redaction { userinfo: false, query: true, allowed: Vec::new(), denied });
}

#[test]
fn every_setting_is_a_key_of_the_file() {
    let switches = ["config", "help", "version", "replay", "speed"];
    for arg in Options::command().get_arguments().filter_map(clap::Arg::get_long) {
        if switches.contains(&arg) {
            continue;
        }
        // A value of no setting's type: the error must be about the value, never about the key.
        let error = toml::from_str::<Settings>(&format!("{arg} = {{}}")).unwrap_err();
        assert!(!error.message().contains("unknown field"), "{arg}: {}", error.message());
    }
}

#[test]
fn a_recording_is_made_or_played() {
    assert_eq!(resolve(&[]).unwrap().task, Task::Serve);
    let file = PathBuf::from("f");
    let config = resolve(&["record", "f", "--seconds", "5", "--aggregation", "low"]).unwrap();
    assert_eq!(config.aggregation, Aggregation::Low);
    let time = Some(Duration::from_secs(5));
    assert_eq!(config.task, Task::Record(Record { file: file.clone(), time, serves: false }));
    let config = resolve(&["record", "f", "--socket", "/s"]).unwrap();
    assert_eq!(config.task, Task::Record(Record { file: file.clone(), time: None, serves: true }));
    for (args, speed) in [
        (vec!["--replay", "f"], Some(1.0)),
        (vec!["--replay", "f", "--speed", "0.5"], Some(0.5)),
        (vec!["--replay", "f", "--speed", "max"], None),
    ] {
        assert_eq!(resolve(&args).unwrap().task, Task::Replay(Replay { file: file.clone(), speed }));
    }
    for args in [
        &["--replay", "f", "--speed", "0"][..],
        &["--replay", "f", "--speed", "inf"],
        &["--speed", "2"],
        &["--replay", "f", "--node-name", "n"],
        &["--aggregation", "low", "record", "f"],
        &["record", "f", "--seconds", "0"],
        &["record"],
    ] {
        assert!(Options::try_parse_from(std::iter::once(&"observer").chain(args)).is_err(), "{args:?}");
    }
}

#[test]
fn wrong_values_are_named_with_what_would_be_right() {
    let unknown = file("cluster = \"a\"\n\nagregation = \"low\"\n");
    let path = unknown.path().to_str().unwrap().to_owned();
    for (args, wanted) in [
        (vec!["--config", path.as_str()], ":3: unknown field `agregation`, expected one of"),
        (vec!["--config", "/nonexistent.toml"], "cannot read the configuration /nonexistent.toml"),
        (
            vec!["--listen", "0.0.0.0:4244"],
            "--listen: TCP needs a certificate: add --tls-cert-file and --tls-key-file, or add --insecure",
        ),
        (vec!["--max-flows", "3"], "--max-flows: 3 is out of range: 1024 to 67108864"),
        (vec!["--flow-ring-kib", "2"], "--flow-ring-kib: 2 is out of range: 4 to 1048576"),
        (
            vec!["--priority-ring-kib", "100"],
            "--priority-ring-kib: 100 is no power of two: the nearest are 64 and 128",
        ),
        (vec!["--node-name", "a/b"], "--node-name: `a/b` is no node name"),
        (vec!["--interface", "a-name-that-is-too-long"], "--interface: `a-name-that-is-too-long` matches no"),
        (vec!["--socket", "/a", "--control-socket", "/a"], "--control-socket: is the same path"),
    ] {
        let error = resolve(&args).unwrap_err().to_string();
        assert!(error.contains(wanted), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
