//! What no packet shows by itself, told with the flows of its connection: segments sent again, connects given up.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping")]

mod support;

use observer_lab::{Lab, unique_prefix};
use std::{path::Path, process::Command};
use support::{Daemon, can_run, extensions, name, scenario};

/// Runs a shell command in a network namespace; its outcome is the caller's to judge.
fn inside(netns: &Path, command: &str) -> bool {
    let net = format!("--net={}", netns.display());
    Command::new("nsenter").args([&net, "bash", "-c", command]).output().unwrap().status.success()
}

#[test]
fn a_connect_through_a_service_that_nobody_answers_is_told_with_its_facts() {
    if !can_run("facts") {
        return;
    }
    let lab = Lab::up(&scenario("routed.toml"), &unique_prefix("facts")).unwrap();
    let pod = |name: &str| lab.scenario().pods.iter().find(|pod| pod.name == name).unwrap();
    for backend in ["api-0", "api-1"] {
        let mute = "nft 'add table ip mute; add chain ip mute in { type filter hook input priority 0; policy drop; }'";
        assert!(inside(&lab.pod_netns(pod(backend)), mute));
    }
    let service = lab.scenario().services.iter().find(|service| service.name == "api").unwrap();
    let address = service.cluster_ips.iter().find(|ip| ip.is_ipv4()).unwrap();
    let daemon = Daemon::start(&lab, "n1", &[]);
    // One SYN more after a second, and the kernel gives up by itself.
    let connect = format!(
        "cd /proc/sys/net/ipv4; echo 1 > tcp_syn_retries; \
         [ ! -e tcp_syn_linear_timeouts ] || echo 0 > tcp_syn_linear_timeouts; exec 3<>/dev/tcp/{address}/80"
    );
    assert!(!inside(&lab.pod_netns(pod("client-a")), &connect), "nobody answers");

    let flows = daemon.flows_until(|flows| {
        let told = flows.iter().any(|flow| extensions(flow).contains_key("connect_failed"));
        (!told).then(|| "a flow with connect_failed".to_owned())
    });
    let last = flows.iter().rfind(|flow| extensions(flow).contains_key("connect_failed")).unwrap();
    let facts = extensions(last);
    assert_eq!(facts["packets"], "2", "{facts:?}");
    assert_eq!((facts["retransmits"].as_str(), facts["final"].as_str()), ("1", "true"));
    assert_eq!(facts["frontend"], format!("{address}:80"));
    assert_eq!(name(last.source.as_ref(), "?"), "web/client-a");
    assert!(name(last.destination.as_ref(), "?").starts_with("shop/api-"), "{last:?}");
    let sums = support::Sums::of(&daemon.settled());
    sums.check();
    let [made, delivered, _] = sums.stages["facts"];
    assert!(made >= 2 && delivered >= 2, "the SYN sent again, and the connect given up: {sums:?}");
}
