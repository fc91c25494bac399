//! `deploy/`: what the chart makes, and whether the API takes it.

use crate::{
    cluster::{Cluster, program},
    container::Objects,
    support::{can_run, empty_node, late},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn helm(arguments: &[&str], values: &[&str]) -> Output {
    let mut command = Command::new(program("helm"));
    command.args(arguments).arg(project("deploy/helm/observer")).env_clear().env("HOME", "/nonexistent");
    command.args(values.iter().flat_map(|value| ["--set", value])).output().unwrap()
}

/// What the chart makes of these values, in the namespace `observer`.
pub(crate) fn render(values: &[&str]) -> String {
    let made = helm(&["template", "observer", "--namespace", "observer"], values);
    assert!(made.status.success(), "{values:?}: {}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap()
}

/// The objects in it, by kind and name.
pub(crate) fn objects(text: &str) -> Objects {
    let objects: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    objects.into_iter().map(|it| ((text(&it["kind"]), text(&it["metadata"]["name"])), it)).collect()
}

/// What the daemon reads.
const READ: [&str; 9] = [
    "pods",
    "namespaces",
    "nodes",
    "services",
    "endpointslices.discovery.k8s.io",
    "networkpolicies.networking.k8s.io",
    "ciliumnetworkpolicies.cilium.io",
    "ciliumclusterwidenetworkpolicies.cilium.io",
    "ciliumcidrgroups.cilium.io",
];

/// Everything that is off by default.
const ALL: [&str; 10] = [
    "policy.events=true",
    "features.kernelPlaces=true",
    "features.hostNames=true",
    "features.oldKernels=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.serviceMonitor.labels.release=prometheus",
    "metrics.flows=drop flow tcp",
    "networkPolicy.enabled=true",
    "networkPolicy.host=true",
    "config.max-flows=131072",
];

/// Prometheus' operator's resource, as far as the API has to know it.
const SERVICE_MONITORS: &str = r#"{ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
    "metadata": { "name": "servicemonitors.monitoring.coreos.com" },
    "spec": { "group": "monitoring.coreos.com", "scope": "Namespaced",
              "names": { "plural": "servicemonitors", "singular": "servicemonitor", "kind": "ServiceMonitor" },
              "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema":
                  { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }] } }"#;

#[test]
fn the_plain_manifests_are_what_the_chart_makes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("observer.yaml");
    let made = Command::new(project("scripts/manifests")).arg(&file).status().unwrap();
    assert!(made.success());
    let [made, kept] =
        [file, project("deploy/kubernetes/observer.yaml")].map(|file| std::fs::read_to_string(file).unwrap());
    assert!(
        kept.contains(concat!("image: \"observer:", env!("CARGO_PKG_VERSION"))),
        "Chart.yaml is of another version"
    );
    assert!(made == kept, "deploy/kubernetes/observer.yaml is old: scripts/manifests makes it anew");
}

#[test]
fn the_chart_refuses_what_can_not_be() {
    let linted = helm(&["lint", "--strict"], &[]);
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    for (value, place) in [
        ("server.prt=1", "/server"),
        ("server.port=0", "/server/port"),
        ("server.address=eth0", "/server/address"),
        ("policy.mode=deny", "/policy/mode"),
        ("config.Max_Flows=1", "Max_Flows"),
        ("config.max-flows.most=1", "/config/max-flows"),
        ("cluster=a/b", "/cluster"),
        ("privileged=true", "privileged"),
    ] {
        let made = helm(&["template", "observer"], &[value]);
        let error = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(!made.status.success() && error.contains(place), "{value}: {error}");
    }
}

#[test]
fn the_api_takes_it_and_gives_the_daemon_no_right_but_to_read() {
    if !can_run("kubernetes: deploy") {
        return;
    }
    let lab = empty_node("k8sdep");
    let cluster = Cluster::start(&lab);
    cluster.install_crds();
    cluster.apply(SERVICE_MONITORS);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
    cluster.kubectl(&["create", "namespace", "observer"]);
    let strict = ["apply", "--dry-run=server", "--validate=strict", "--warnings-as-errors", "-f", "-"];
    for values in [
        &[][..],
        &ALL,
        &["server.tls.enabled=false"],
        &["server.enabled=false", "metrics.enabled=false", "policy.fromApi=false"],
    ] {
        let text = render(values);
        let said = cluster.kubectl_with(&strict, &text);
        assert_eq!(said.lines().count(), objects(&text).len(), "{said}");
    }

    for file in ["observer", "hubble-relay"] {
        cluster.apply_file(&project(&format!("deploy/kubernetes/{file}.yaml")));
    }

    // What any service account may, and besides this one reads what is named here.
    let may = |account: &Path| {
        let said = cluster.kubectl_as(account, &["auth", "can-i", "--list", "--no-headers"], "");
        let said = String::from_utf8(said.stdout).unwrap();
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        said.lines().map(squeeze).collect::<BTreeSet<_>>()
    };
    cluster.kubectl(&["create", "serviceaccount", "any", "-n", "observer"]);
    let any = may(&cluster.kubeconfig_of("observer", "any"));
    let ours = cluster.kubeconfig_of("observer", "observer");
    let rights: BTreeSet<_> = READ.map(|what| format!("{what} [] [] [list watch]")).into();
    late::until("the rights of the role", || (&may(&ours) - &any == rights).then_some(()));
    // Where it is to write Events, that and no more.
    cluster.apply(&render(&["policy.events=true"]));
    let rights = &rights | &BTreeSet::from(["events [] [] [create]".to_owned()]);
    late::until("the right to create events", || (&may(&ours) - &any == rights).then_some(()));
}

#[test]
fn helm_installs_it_and_an_upgrade_keeps_its_certificates() {
    if !can_run("kubernetes: helm") {
        return;
    }
    let lab = empty_node("k8shelm");
    let cluster = Cluster::start(&lab);
    let chart = project("deploy/helm/observer").display().to_string();
    let helm = |task: &str, values: &[&str]| {
        let sets = values.iter().flat_map(|value| ["--set", value]);
        let arguments = [&[task, "seer", &chart, "-n", "seers"], &sets.collect::<Vec<_>>()[..]].concat();
        let done = cluster.helm(&arguments);
        let [said, error] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        if done.status.success() { Ok(said) } else { Err(error) }
    };
    cluster.kubectl(&["create", "namespace", "seers"]);
    let notes = helm("install", &["cluster=blue.example"]).unwrap();
    assert!(notes.contains("hubble-peer.seers.svc.cluster.local:443"), "{notes}");
    let secrets = || {
        let all =
            "jsonpath={range .items[?(@.type=='kubernetes.io/tls')]}{.metadata.name} {.data}{\"\\n\"}{end}";
        cluster.kubectl(&["get", "secrets", "-n", "seers", "-o", all])
    };
    let made = secrets();
    assert_eq!(made.lines().count(), 3, "{made}");
    let notes =
        helm("upgrade", &["cluster=blue.example", "policy.auditOnly=false", "policy.mode=enforce"]).unwrap();
    assert!(notes.contains("the usual mode is enforce"), "{notes}");
    assert!(secrets() == made, "an upgrade made other certificates");
    let config = cluster.kubectl(&["get", "configmap", "seer", "-n", "seers", "-o", "jsonpath={.data}"]);
    assert!(config.contains(r#"cluster = \"blue.example\""#), "{config}");
    cluster.kubectl(&["delete", "secret", "observer-relay-certs", "-n", "seers"]);
    let error = helm("upgrade", &[]).unwrap_err();
    assert!(error.contains("the secret observer-relay-certs is gone"), "{error}");
    cluster.kubectl(&["delete", "secret", "observer-server-certs", "observer-client-certs", "-n", "seers"]);
    helm("upgrade", &[]).unwrap();
    assert_eq!(secrets().lines().count(), 3);
}
