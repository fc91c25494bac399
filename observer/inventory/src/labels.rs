//! Security labels: what an identity is made of. Each carries its source: `k8s:app=web`.

use std::collections::BTreeMap;

/// Labels as an object has them, without a source.
pub type LabelMap = BTreeMap<String, String>;

const NAMESPACE: &str = "k8s:io.kubernetes.pod.namespace=";
const SERVICE_ACCOUNT: &str = "k8s:io.cilium.k8s.policy.serviceaccount=";
const CLUSTER: &str = "k8s:io.cilium.k8s.policy.cluster=";
const NAMESPACE_LABELS: &str = "k8s:io.cilium.k8s.namespace.labels.";
const METADATA_NAME: &str = "kubernetes.io/metadata.name";

/// Keys that begin so differ between replicas or revisions of one workload, or are the cluster's own; an identity for each
/// pod or rollout would make identities worthless. The same that Cilium leaves out by default.
const NOT_SECURITY: &[&str] = &[
    "io.kubernetes",
    "kubernetes.io",
    "k8s.io",
    "annotation",
    "etcd_node",
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
    "controller-uid",
];

/// Whether an identity depends on the label of this key.
fn is_security(key: &str) -> bool {
    !key.contains("beta.kubernetes.io") && !NOT_SECURITY.iter().any(|begin| key.starts_with(begin))
}

/// The sorted security labels of a pod: its own, and those derived from its namespace, service account and cluster.
pub fn of_pod(
    cluster: &str,
    namespace: &str,
    service_account: &str,
    pod: &LabelMap,
    namespace_labels: &LabelMap,
) -> Vec<String> {
    let mut labels = Vec::with_capacity(pod.len() + namespace_labels.len() + 4);
    let own = pod.iter().filter(|(key, _)| is_security(key));
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
    let left_out = pod.iter().filter(|(key, _)| !is_security(key));
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

    #[test]
    fn what_is_the_clusters_own_makes_no_identity() {
        for (key, is_one) in [
            ("app.kubernetes.io/name", true),
            ("team", true),
            ("job-name", true),
            ("topology.kubernetes.io/zone", true),
            ("kubernetes.io/os", false),
            ("k8s.io/x", false),
            ("io.kubernetes.x", false),
            ("beta.kubernetes.io/arch", false),
            ("failure-domain.beta.kubernetes.io/zone", false),
            ("batch.kubernetes.io/job-name", true),
        ] {
            assert_eq!(is_security(key), is_one, "{key}");
        }
    }
}
