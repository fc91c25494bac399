//! Which workload made a pod, from its controlling owner.

use crate::{Workload, labels::LabelMap};

/// The workload a user knows: not the ReplicaSet or Job in between, where the names tell what stands above it.
pub fn of_owner(kind: &str, name: &str, pod_labels: &LabelMap) -> Workload {
    let above = match kind {
        "ReplicaSet" => pod_labels
            .get("pod-template-hash")
            .and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'))
            .map(|deployment| ("Deployment", deployment)),
        // A CronJob names its Jobs by the scheduled minute.
        "Job" => name
            .rsplit_once('-')
            .filter(|(_, minute)| minute.len() >= 8 && minute.bytes().all(|b| b.is_ascii_digit()))
            .map(|(cron, _)| ("CronJob", cron)),
        "ReplicationController" => pod_labels
            .get("deploymentconfig")
            .filter(|config| name.starts_with(config.as_str()))
            .map(|config| ("DeploymentConfig", config.as_str())),
        _ => None,
    };
    let (kind, name) = above.filter(|(_, name)| !name.is_empty()).unwrap_or((kind, name));
    Workload { kind: kind.to_owned(), name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workload_above_is_named() {
        let table = [
            ("ReplicaSet", "web-7d9f8", Some(("pod-template-hash", "7d9f8")), "Deployment", "web"),
            ("ReplicaSet", "web-7d9f8", Some(("pod-template-hash", "other")), "ReplicaSet", "web-7d9f8"),
            ("ReplicaSet", "7d9f8", Some(("pod-template-hash", "7d9f8")), "ReplicaSet", "7d9f8"),
            ("ReplicaSet", "-7d9f8", Some(("pod-template-hash", "7d9f8")), "ReplicaSet", "-7d9f8"),
            ("ReplicaSet", "bare", None, "ReplicaSet", "bare"),
            ("Job", "backup-29012345", None, "CronJob", "backup"),
            ("Job", "migrate-1", None, "Job", "migrate-1"),
            ("Job", "migrate", None, "Job", "migrate"),
            (
                "ReplicationController",
                "shop-3",
                Some(("deploymentconfig", "shop")),
                "DeploymentConfig",
                "shop",
            ),
            ("ReplicationController", "shop-3", None, "ReplicationController", "shop-3"),
            ("StatefulSet", "db", None, "StatefulSet", "db"),
            ("DaemonSet", "agent", None, "DaemonSet", "agent"),
        ];
        for (kind, name, label, want_kind, want_name) in table {
            let labels = label.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect();
            let got = of_owner(kind, name, &labels);
            assert_eq!((got.kind.as_str(), got.name.as_str()), (want_kind, want_name), "{kind}/{name}");
        }
    }
}
