//! What an enforced policy drops, as the owner of a pod reads it: by `kubectl get events`.

use crate::{
    names::{Bed, CILIUM, synced},
    support::{Daemon, Sums, can_run, late},
};
use observer_lab::netns;
use observer_proto::control::policy::Mode;
use serde_json::{Value, json};
use std::{io::ErrorKind, net::TcpStream, time::Duration};

/// Nobody reaches the pods of the namespace.
const CLOSED: &str = r#"{ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": "closed", "namespace": "shop" },
    "spec": { "podSelector": {}, "policyTypes": ["Ingress"] } }"#;

#[test]
fn a_dropped_connection_is_one_event_of_its_pod_with_the_policy() {
    if !can_run("kubernetes: events") {
        return;
    }
    let bed = Bed::new("k8sevents");
    let mut command = bed.command(&bed.cluster.kubeconfig_of("kube-system", "observer"));
    command.args(["--policy-mode", "enforce", "--kubernetes-events"]);
    let daemon = Daemon::spawn(command, tempfile::tempdir().unwrap());
    synced(&daemon, &CILIUM);
    let server = bed.scenario().pod("shop", "server-1").unwrap().ips[0];
    let client = bed.netns("web", "client-2");
    let open = |port: u16| {
        let connect = || Ok(TcpStream::connect_timeout(&(server, port).into(), Duration::from_millis(300)));
        netns::inside(&client, connect).unwrap().map(drop).map_err(|error| error.kind())
    };
    assert_eq!(open(8080), Ok(()));
    bed.cluster.apply(CLOSED);
    late::until("the policy", || {
        daemon.policies().policies.iter().any(|policy| policy.mode() == Mode::Enforce).then_some(())
    });

    // Without the right to it, it is said once and counted.
    assert_eq!(open(8080), Err(ErrorKind::TimedOut));
    let said = daemon.log_line("Kubernetes Events can't be written");
    assert!(said.contains("403 Forbidden"), "{said}");
    let right = ["--clusterrole=events", "--serviceaccount=kube-system:observer"];
    bed.cluster.kubectl(&["create", "clusterrole", "events", "--verb=create", "--resource=events"]);
    bed.cluster.kubectl(&[["create", "clusterrolebinding", "events"].as_slice(), &right].concat());

    let events = || {
        let listed = bed.cluster.kubectl(&["get", "events", "-A", "-o", "json"]);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let of_drops = listed["items"].as_array().unwrap().iter();
        of_drops.filter(|event| event["reason"] == "PacketDrop").cloned().collect::<Vec<Value>>()
    };
    let told = late::until("an Event", || {
        assert_eq!(open(9000), Err(ErrorKind::TimedOut));
        events().pop()
    });
    let uid =
        bed.cluster.kubectl(&["get", "pod", "server-1", "-n", "shop", "-o", "jsonpath={.metadata.uid}"]);
    let pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "server-1", "uid": uid });
    assert_eq!(told["involvedObject"], pod);
    assert_eq!((&told["type"], &told["count"]), (&"Warning".into(), &1.into()));
    assert_eq!(told["source"], json!({ "component": "observer", "host": "n1" }));
    let message = "Incoming packet dropped (policy_denied) from web/client-2 (10.244.2.10) TCP/9000 by NetworkPolicy shop/closed";
    assert_eq!(told["message"], message);

    // The same again is none.
    let suppressed =
        || Sums::of(&daemon.capture_status()).suppressed("kubernetes events", "told lately, or others were");
    let before = suppressed();
    late::until("more that are the same", || {
        assert_eq!(open(9000), Err(ErrorKind::TimedOut));
        (suppressed() >= before + 2).then_some(())
    });
    assert_eq!(events(), [told]);
    let described = bed.cluster.kubectl(&["describe", "pod", "server-1", "-n", "shop"]);
    assert!(described.contains("Warning  PacketDrop") && described.contains(message), "{described}");
}
