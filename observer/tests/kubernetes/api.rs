//! That the cluster is one: the rest of these tests stands on it.

use crate::{
    cluster::Cluster,
    support::{can_run, late, scenario},
};
use observer_lab::{Lab, netns, unique_prefix};
use serde_json::json;

#[test]
fn a_server_has_what_the_lab_has_and_knows_who_may_read_it() {
    if !can_run("kubernetes: the server") {
        return;
    }
    let lab = Lab::up(&scenario("two-nodes.toml"), &unique_prefix("k8sapi")).unwrap();
    let mut cluster = Cluster::start(&lab);
    cluster.install_crds();
    cluster.populate(lab.scenario());
    let pods = "{range .items[*]}{.metadata.name} {.status.podIPs[*].ip} {.status.phase}\n{end}";
    let pods = cluster.kubectl(&["get", "pods", "-A", "-o", &format!("jsonpath={pods}")]);
    assert!(pods.contains("client-1 10.244.1.10 fd00:10:244:1::a Running\n"), "{pods}");
    let slices = cluster.kubectl(&["get", "endpointslices", "-n", "shop", "-o", "name"]);
    assert_eq!(slices.lines().count(), 2, "{slices}");
    let nodes = cluster.kubectl(&[
        "get",
        "node",
        "n2",
        "-o",
        "jsonpath={.spec.podCIDR}{.status.addresses[0].address}",
    ]);
    assert_eq!(nodes, "10.244.2.0/24192.168.50.12");

    let policy = r#"{ "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
        "metadata": { "namespace": "shop", "name": "server" },
        "spec": { "endpointSelector": { "matchLabels": { "app": "server" } },
                  "ingress": [{ "fromEndpoints": [{}], "toPorts": [{ "rules": { "http": [{ "method": "GET" }] } }] }] } }"#;
    cluster.apply(policy);
    let method = "jsonpath={.spec.ingress[0].toPorts[0].rules.http[0].method}";
    assert_eq!(cluster.kubectl(&["get", "cnp", "server", "-n", "shop", "-o", method]), "GET");

    // A service account has the rights that it is given and no others, on a node too, and with a new token.
    cluster.kubectl(&["create", "serviceaccount", "reader", "-n", "shop"]);
    let reader = cluster.kubeconfig_of("shop", "reader");
    let may_list = |what| cluster.kubectl_as(&reader, &["get", what, "-n", "shop"], "").status.success();
    assert!(!may_list("pods"));
    cluster.kubectl(&["create", "role", "reader", "-n", "shop", "--verb=list", "--resource=pods"]);
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "reader",
        "-n",
        "shop",
        "--role=reader",
        "--serviceaccount=shop:reader",
    ]);
    late::until("the right to list pods", || may_list("pods").then_some(()));
    cluster.renew("shop", "reader");
    assert!(may_list("pods") && !may_list("secrets"));
    let address = cluster.address();
    let node = lab.node_netns("n1").file_name().unwrap().to_str().unwrap().to_owned();
    let reached = netns::inside(&node, || Ok(std::net::TcpStream::connect(address).is_ok())).unwrap();
    assert!(reached, "a node does not reach {address}");

    // A pod goes at once, and another takes its address.
    let mut pod = lab.scenario().pods[0].clone();
    let old =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "web", "name": pod.name } });
    cluster.delete(&old.to_string());
    "client-3".clone_into(&mut pod.name);
    cluster.run_pod(lab.scenario(), &pod);
    let names = "jsonpath={.items[*].metadata.name} {.items[0].status.podIP}";
    assert_eq!(cluster.kubectl(&["get", "pods", "-n", "web", "-o", names]), "client-2 client-3 10.244.2.10");

    // What was there is there when a server comes back; one that stands still answers when it goes on.
    cluster.freeze();
    let quick = ["get", "cnp", "-A", "-o", "name", "--request-timeout=1s"];
    assert!(!cluster.kubectl_as(&cluster.admin(), &quick, "").status.success());
    cluster.thaw();
    assert_eq!(
        cluster.kubectl(&["get", "cnp", "-A", "-o", "name"]),
        "ciliumnetworkpolicy.cilium.io/server\n"
    );
    cluster.kill_server();
    cluster.start_server();
    cluster.delete(policy);
    assert_eq!(cluster.kubectl(&["get", "cnp", "-A", "-o", "name"]), "");
}
