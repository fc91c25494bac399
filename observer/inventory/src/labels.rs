//! Security labels: what an identity is made of. Each carries its source: `k8s:app=web`.

use std::collections::BTreeMap;

/// Labels as an object has them, without a source.
pub type LabelMap = BTreeMap<String, String>;

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace=";
const SERVICE_ACCOUNT: &str = "k8s:io.cilium.k8s.policy.serviceaccount=";
const CLUSTER: &str = "k8s:io.cilium.k8s.policy.cluster=";
const NAMESPACE_LABELS: &str = "k8s:io.cilium.k8s.namespace.labels.";
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Keys that differ between replicas or revisions of one workload; an identity for each pod or rollout would make
/// identities worthless. Cilium leaves out the same ones by default, among more.
const NOT_SECURITY: &[&str] = &[
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-uid",
];

/// The sorted security labels of a pod: its own, and those derived from its namespace, service account and cluster.
pub fn of_pod(
    cluster: &str,
    namespace: &str,
    service_account: &str,
    pod: &LabelMap,
    namespace_labels: &LabelMap,
) -> Vec<String> {
    let mut labels = Vec::with_capacity(pod.len() + namespace_labels.len() + 4);
    let own = pod.iter().filter(|(key, _)| !NOT_SECURITY.contains(&key.as_str()));
    labels.extend(own.map(|(key, value)| format!("k8s:{key}={value}")));
    labels.extend(namespace_labels.iter().map(|(key, value)| format!("{NAMESPACE_LABELS}{key}={value}")));
    // The API server sets this one on every namespace.
    if !namespace_labels.contains_key(METADATA_NAME) {
        labels.push(format!("{NAMESPACE_LABELS}{METADATA_NAME}={namespace}"));
    }
    labels.push(format!("{NAMESPACE}{namespace}"));
    labels.push(format!("{CLUSTER}{cluster}"));
    if !service_account.is_empty() {
        labels.push(format!("{SERVICE_ACCOUNT}{service_account}"));
    }
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// Those of a pod's own labels that [`of_pod`] leaves out.
pub fn not_security(pod: &LabelMap) -> Vec<String> {
    let left_out = pod.iter().filter(|(key, _)| NOT_SECURITY.contains(&key.as_str()));
    left_out.map(|(key, value)| format!("k8s:{key}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> LabelMap {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_pod_has_its_own_and_the_derived_labels() {
        let pod = map(&[("app", "web"), ("pod-template-hash", "abc"), ("controller-revision-hash", "1")]);
        let labels = of_pod("default", "shop", "web-sa", &pod, &map(&[("team", "red")]));
        let expected = [
            "k8s:app=web",
            "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
            "k8s:io.cilium.k8s.namespace.labels.team=red",
            "k8s:io.cilium.k8s.policy.cluster=default",
            "k8s:io.cilium.k8s.policy.serviceaccount=web-sa",
            "k8s:io.kubernetes.pod.namespace=shop",
        ];
        assert_eq!(labels, expected);
        assert_eq!(not_security(&pod), ["k8s:controller-revision-hash=1", "k8s:pod-template-hash=abc"]);
    }
}
