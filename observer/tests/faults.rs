//! Bad input and bad luck: one line that says what is wrong and what to do, an exit code, no panic. What only makes the
//! daemon see less is a warning, and the rest goes on.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_lab::Lab;
use std::{
    io::Read as _,
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use support::{Daemon, OBSERVER, PATIENCE, can_run, empty_node};

/// Usage that can't be understood.
const USAGE: i32 = 2;
const FAILURE: i32 = 1;

/// Runs what must end by itself; kills it and panics after [`PATIENCE`].
fn ends(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        stderr.read_to_end(&mut text).unwrap();
        text
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} goes on:\n{}", String::from_utf8_lossy(&reader.join().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Output { status, stdout: Vec::new(), stderr: reader.join().unwrap() }
}

/// That it ends with this code and one line for the user, which has all of `wanted`.
fn refused(command: Command, code: i32, wanted: &[&str]) {
    let shown = format!("{command:?}");
    let output = ends(command);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{shown}:\n{stderr}");
    assert!(!stderr.contains("panicked"), "{shown}:\n{stderr}");
    let told: Vec<&str> = stderr.lines().filter(|line| line.starts_with("observer: ")).collect();
    assert_eq!(told.len(), 1, "{shown}:\n{stderr}");
    assert_eq!(stderr.lines().last(), told.first().copied(), "{shown}: it is the last line:\n{stderr}");
    for part in wanted {
        assert!(told[0].contains(part), "{shown}: no {part:?} in:\n{}", told[0]);
    }
}

/// A daemon without a lab: for what is refused before anything is opened.
fn plain(args: &[&str]) -> Command {
    let mut command = Command::new(OBSERVER);
    command.args(args);
    command
}

#[test]
fn wrong_usage_and_values_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let unknown = file("unknown.toml", "cluster = \"a\"\n\nagregation = \"low\"\n");
    let value = file("value.toml", "cluster = \"a\"\nmax-flows = \"many\"\n");
    let choice = file("choice.toml", "aggregation = \"lots\"\n");
    for (args, code, wanted) in [
        (
            vec!["--config", &unknown],
            FAILURE,
            vec!["unknown.toml:3: unknown field `agregation`", "`aggregation`"],
        ),
        (vec!["--config", &value], FAILURE, vec!["value.toml:2: max-flows: ", "\"many\""]),
        (vec!["--config", &choice], FAILURE, vec!["choice.toml:1: aggregation: ", "`medium`"]),
        (vec!["--config", "/no/such.toml"], FAILURE, vec!["cannot read the configuration /no/such.toml"]),
        (vec!["--max-flows", "3"], FAILURE, vec!["--max-flows: 3 is out of range: 1024 to"]),
        (
            vec!["--listen", "127.0.0.1:4244"],
            FAILURE,
            vec!["--listen: ", "--tls-cert-file", "add --insecure"],
        ),
        (
            vec!["--aggregation", "lots"],
            USAGE,
            vec!["'lots' for '--aggregation", "none, low, medium, maximum"],
        ),
        (vec!["--max-flows", "many"], USAGE, vec!["'many' for '--max-flows", "observer --help"]),
        (vec!["--agregation", "low"], USAGE, vec!["'--agregation'", "'--aggregation'"]),
    ] {
        refused(plain(&args), code, &wanted);
    }
    let mut environment = plain(&[]);
    environment.env("OBSERVER_MAX_FLOWS", "many");
    refused(environment, USAGE, &["'many' for '--max-flows"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for (flag, wanted) in
        [("--help", "Usage: observer [OPTIONS]"), ("-h", "--inventory"), ("--version", "observer ")]
    {
        let output = plain(&[flag]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{flag}: {output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().contains(wanted), "{flag}");
    }
}

/// The daemon in the node, with sockets in `dir`.
fn daemon_in(lab: &Lab, dir: &Path, args: &[&str]) -> Command {
    wrapped(lab, dir, &[], args)
}

/// Likewise, started by another program.
fn wrapped(lab: &Lab, dir: &Path, wrapper: &[&str], args: &[&str]) -> Command {
    let words: Vec<&str> = wrapper.iter().copied().chain([OBSERVER]).collect();
    let mut command = lab.command_in("n1", words[0]);
    command.args(&words[1..]).arg("--socket").arg(dir.join("hubble.sock")).args(args);
    command
}

#[test]
fn what_cannot_start_says_why() {
    if !can_run("what_cannot_start_says_why") {
        return;
    }
    let lab = empty_node("faults");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let inventory = dir.join("inventory.yaml");
    let path = inventory.to_str().unwrap();
    for (text, wanted) in [
        (
            "pods:\n- name: a\n  ips: [10.0.0.300]\n",
            "inventory.yaml:3:9: pods[0].ips[0]: \"10.0.0.300\" is no address",
        ),
        ("pods:\n- name: a\n  ipz: [10.0.0.3]\n", "inventory.yaml:3:3: pods[0].ipz: unknown field"),
        ("pods: [\n", "inventory.yaml:"),
    ] {
        std::fs::write(&inventory, text).unwrap();
        refused(daemon_in(&lab, dir, &["--inventory", path]), FAILURE, &[wanted]);
    }
    refused(
        daemon_in(&lab, dir, &["--inventory", "/no/such.yaml"]),
        FAILURE,
        &["/no/such.yaml", "No such file"],
    );
    refused(
        daemon_in(&lab, dir, &["--ignore-drop-reasons", "NETFILTER_DROP,NO_SUCH_REASON"]),
        FAILURE,
        &["'NO_SUCH_REASON'", "skb_drop_reason"],
    );

    // Each capability by itself. CAP_SYS_ADMIN stands for two of them, so it goes with them.
    for (drop, missing) in [
        ("-bpf,-sys_admin", "CAP_BPF is missing"),
        ("-perfmon,-sys_admin", "CAP_PERFMON is missing"),
        ("-net_admin", "CAP_NET_ADMIN is missing"),
        ("-all", "CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF are missing"),
    ] {
        let wrapper = ["setpriv", "--bounding-set", drop, "--inh-caps", drop];
        refused(wrapped(&lab, dir, &wrapper, &[]), FAILURE, &[missing, "run as root or grant"]);
    }
    let no_btf = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh"];
    refused(
        wrapped(&lab, dir, &no_btf, &[]),
        FAILURE,
        &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"],
    );

    // Other people's sockets and files stay as they are.
    let socket = dir.join("hubble.sock");
    let other = UnixListener::bind(&socket).unwrap();
    refused(daemon_in(&lab, dir, &[]), FAILURE, &["listening on", "hubble.sock", "choose another path"]);
    drop(other);
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "text").unwrap();
    refused(daemon_in(&lab, dir, &[]), FAILURE, &["hubble.sock exists and is no socket"]);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "text");
    refused(
        daemon_in(&lab, dir, &["--socket", dir.join("b.sock").to_str().unwrap()]),
        USAGE,
        &["--socket", "cannot be used multiple times"],
    );
}

#[test]
fn a_second_daemon_is_refused_and_a_stale_socket_replaced() {
    if !can_run("a_second_daemon_is_refused_and_a_stale_socket_replaced") {
        return;
    }
    let lab = empty_node("second");
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on it any more, as after a kill -9.
    drop(UnixListener::bind(dir.path().join("hubble.sock")).unwrap());
    let first = Daemon::spawn(lab.command_in("n1", OBSERVER), dir);
    let serves = || first.flows();
    serves();

    // No inventory, no pod: said once, with what there is, and the daemon waits for links to come.
    let log = first.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("no pod link found")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let uplink = first.capture_status().links.iter().find(|link| link.kind == "uplink").unwrap().name.clone();
    assert!(warnings[0].contains(&uplink) && warnings[0].contains("--interface"), "{}", warnings[0]);
    let has_group =
        std::fs::read_to_string("/etc/group").unwrap().lines().any(|line| line.starts_with("observer:"));
    assert_eq!(log.contains("no group \"observer\""), !has_group, "{log}");

    let elsewhere = tempfile::tempdir().unwrap();
    let pid = format!("another observer (pid {})", first.pid().as_raw_nonzero());
    refused(daemon_in(&lab, elsewhere.path(), &[]), FAILURE, &[&pid, "stop it first"]);
    let recording = elsewhere.path().join("earlier.rec");
    std::fs::write(&recording, "kept").unwrap();
    let mut record = lab.command_in("n1", OBSERVER);
    record.arg("record").arg(&recording);
    refused(record, FAILURE, &["cannot record to", &pid, "stop it first", "--socket"]);
    assert_eq!(std::fs::read_to_string(&recording).unwrap(), "kept", "no recording is emptied for nothing");
    serves();
    let (status, took) = first.stop();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

#[test]
fn neither_tracefs_nor_bpffs_is_needed() {
    if !can_run("neither_tracefs_nor_bpffs_is_needed") {
        return;
    }
    let lab = empty_node("nofs");
    let hidden = "mount -t tmpfs none /sys/fs/bpf && mount -t tmpfs none /sys/kernel/tracing && exec \"$@\"";
    let mut command = lab.command_in("n1", "unshare");
    command.args(["-m", "sh", "-c", hidden, "sh", OBSERVER]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    let status = daemon.capture_status();
    assert!(status.hooks.len() >= 5, "{status:?}");
    for hook in &status.hooks {
        assert_eq!(hook.state(), observer_proto::control::hook::State::Attached, "{hook:?}");
    }
}
