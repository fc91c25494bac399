use super::*;
use serde_json::json;

fn parse(value: serde_json::Value) -> object::Pod {
    serde_json::from_value(value).unwrap()
}

fn simple(uid: &str, ip: &str) -> serde_json::Value {
    json!({"metadata": {"name": uid, "namespace": "shop", "uid": uid},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIP": ip}})
}

fn listed(pods: &mut Pods, list: &[serde_json::Value]) -> Vec<(Vec<String>, Vec<String>)> {
    pods.begin();
    for pod in list {
        pods.apply(parse(pod.clone()), "n1");
    }
    let mut told = Vec::new();
    pods.end(&Listed::default(), "default", |batch| {
        let mut uids: Vec<_> = batch.pods.into_iter().map(|pod| pod.uid).collect();
        uids.sort_unstable();
        told.push((uids, batch.gone));
    });
    told
}

#[test]
fn a_pod_as_the_api_has_it() {
    let mut pods = Pods::default();
    let mut namespaces = Listed::default();
    let labels = [("team".to_owned(), "red".to_owned())].into();
    namespaces.apply("shop", Namespace { labels, mode: None });
    let web = json!({
        "metadata": {"name": "web-7d9f8-x", "namespace": "shop", "uid": "u1", "annotations": null,
            "labels": {"app": "web", "pod-template-hash": "7d9f8"},
            "ownerReferences": [{"kind": "Thing", "name": "t"}, {"kind": "ReplicaSet", "name": "web-7d9f8", "controller": true}]},
        "spec": {"nodeName": "n1", "serviceAccountName": "web", "containers": [
                {"name": "c", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}]},
                {"name": "d", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}],
            "initContainers": [
                {"name": "once", "ports": [{"name": "no", "containerPort": 1}]},
                {"name": "beside", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 7}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
    assert!(pods.apply(parse(web.clone()), "n1"));
    let told = pods.news("u1", &namespaces, "c1").unwrap();
    assert_eq!(
        told.labels,
        [
            "k8s:app=web",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
            "k8s:io.cilium.k8s.namespace.labels.team=red",
            "k8s:io.cilium.k8s.policy.cluster=c1",
            "k8s:io.cilium.k8s.policy.serviceaccount=web",
            "k8s:io.kubernetes.pod.namespace=shop",
        ]
    );
    assert_eq!(told.other_labels, ["k8s:pod-template-hash=7d9f8"]);
    assert_eq!(told.workloads, [Workload { kind: "Deployment".to_owned(), name: "web".to_owned() }]);
    let ports: Vec<_> = told.ports.iter().map(|port| (&*port.name, port.protocol, port.port)).collect();
    assert_eq!(ports, [("http", 6, 8080), ("dns", 17, 53), ("side", 6, 7)]);
    assert_eq!(told.ips.len(), 2);
    assert!(told.local && !told.finished && !told.host_network);
    // What says nothing new is passed over.
    let mut same = web.clone();
    same["status"]["conditions"] = json!([{"type": "Ready"}]);
    same["metadata"]["resourceVersion"] = json!("8");
    assert!(!pods.apply(parse(same), "n1"));
    assert_eq!(pods.news("u1", &namespaces, "c1"), None);
    let mut done = web;
    done["status"]["phase"] = json!("Succeeded");
    assert!(pods.apply(parse(done), "n1"));
    assert!(pods.news("u1", &namespaces, "c1").unwrap().finished);
}

#[test]
fn replicas_share_what_is_the_same_of_them() {
    let mut pods = Pods::default();
    for n in 0..100 {
        pods.apply(parse(simple(&format!("u{n}"), "10.0.0.1")), "n1");
    }
    assert_eq!(pods.kinds.len(), 1);
    for n in 0..1000 {
        let mut one = simple("u0", "10.0.0.1");
        one["metadata"]["labels"] = json!({"version": n.to_string()});
        pods.apply(parse(one), "n1");
    }
    assert!(pods.kinds.len() <= 64, "{}", pods.kinds.len());
}

#[test]
fn a_list_tells_who_is_gone_behind_successors_and_the_doubtful_together() {
    let mut pods = Pods::default();
    let none: Vec<String> = Vec::new();
    let first = [simple("a", "10.0.0.1"), simple("b", "10.0.0.2")];
    assert_eq!(listed(&mut pods, &first), [(vec!["a".to_owned(), "b".to_owned()], none.clone())]);
    assert_eq!(listed(&mut pods, &first), []);
    // Of `a` another has the address; `b` is on its way out while `c` has its address; of `d` and `e` nobody knows.
    let mut leaving = simple("b", "10.0.0.3");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let second = [
        leaving,
        simple("c", "10.0.0.3"),
        simple("d", "10.0.0.4"),
        simple("e", "10.0.0.4"),
        simple("f", "10.0.0.1"),
    ];
    let uids = |uids: &[&str]| uids.iter().map(|&uid| uid.to_owned()).collect::<Vec<_>>();
    assert_eq!(
        listed(&mut pods, &second),
        [(uids(&["b"]), none.clone()), (uids(&["d", "e"]), none), (uids(&["c", "f"]), uids(&["a"])),]
    );
    assert_eq!(pods.len(), 5);
}

#[test]
fn labels_are_packed_and_unpacked() {
    for labels in [vec![], vec![("a", "b"), ("c", "")], vec![("app.kubernetes.io/name", "x")]] {
        let map: LabelMap =
            labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(unpacked(&packed(&map)), map);
    }
}
