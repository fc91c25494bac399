//! What a lab's scenario is as objects of the Kubernetes API: with the status that a kubelet would write, and the owners
//! and slices of endpoints that controllers would make.

use crate::cluster::Cluster;
use observer_lab::{
    Scenario,
    scenario::{Node, Pod, Service},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};

impl Cluster {
    /// Makes all that is in the scenario: namespaces, nodes, pods, services and their endpoints.
    pub(crate) fn populate(&self, scenario: &Scenario) {
        let nodes: Vec<Value> = scenario.nodes.iter().map(node).collect();
        let pods: Vec<Value> = scenario.pods.iter().map(|it| pod(scenario, it)).collect();
        let services: Vec<Value> = scenario.services.iter().map(service).collect();
        let slices: Vec<Value> = scenario.services.iter().flat_map(|it| slices(scenario, it)).collect();
        let with_status = [nodes, pods].concat();
        // Some the server has made.
        self.apply(&list(&namespaces(scenario)));
        self.create(&list(&[with_status.clone(), services, slices].concat()));
        self.set_status(&list(&with_status));
    }

    /// Makes a pod and says that it runs.
    pub(crate) fn run_pod(&self, scenario: &Scenario, of: &Pod) {
        let object = pod(scenario, of).to_string();
        self.create(&object);
        self.set_status(&object);
    }

    /// Makes what is not there yet. As an applied one, a node could have one address of a type only.
    fn create(&self, documents: &str) {
        self.kubectl_with(&["create", "-f", "-"], documents);
    }

    /// What kubelets say: the status in these documents of objects that are there.
    pub(crate) fn set_status(&self, documents: &str) {
        self.kubectl_with(&["replace", "--subresource=status", "-f", "-"], documents);
    }
}

/// Several objects as one document.
pub(crate) fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}

fn namespaces(scenario: &Scenario) -> Vec<Value> {
    let declared = scenario.namespaces.iter().map(|namespace| namespace.name.as_str());
    let used = scenario.pods.iter().map(|pod| pod.namespace.as_str());
    let named = used.chain(scenario.services.iter().map(|service| service.namespace.as_str()));
    let all: BTreeSet<&str> = declared.chain(named).collect();
    let labels = |name: &str| {
        let declared = scenario.namespaces.iter().find(|namespace| namespace.name == name);
        declared.map(|namespace| &namespace.labels)
    };
    let object = |name| {
        let metadata = json!({ "name": name, "labels": labels(name) });
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })
    };
    all.into_iter().map(object).collect()
}

fn node(node: &Node) -> Value {
    let addresses = node.addresses.iter().map(|ip| json!({ "type": "InternalIP", "address": ip }));
    let host_name = json!({ "type": "Hostname", "address": node.name });
    let ranges: Vec<String> = node.gateways.iter().map(|gateway| gateway.trunc().to_string()).collect();
    let mut spec = json!({});
    if let Some(first) = ranges.first() {
        spec = json!({ "podCIDR": first, "podCIDRs": ranges });
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.name, "labels": node.labels },
        "spec": spec,
        "status": {
            "addresses": addresses.chain([host_name]).collect::<Vec<_>>(),
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// What a ReplicaSet's name and its pods' label have of the template.
const TEMPLATE_HASH: &str = "6d4cf56db6";

fn pod(scenario: &Scenario, pod: &Pod) -> Value {
    let mut metadata = json!({ "name": pod.name, "namespace": pod.namespace, "labels": pod.labels });
    if let Some(owner) = &pod.owner {
        // A deployment owns its pods by a ReplicaSet, a cron job by a job.
        let (api, kind, name) = match owner.kind.as_str() {
            "Deployment" => ("apps/v1", "ReplicaSet", format!("{}-{TEMPLATE_HASH}", owner.name)),
            "CronJob" => ("batch/v1", "Job", format!("{}-29012345", owner.name)),
            "Job" => ("batch/v1", "Job", owner.name.clone()),
            kind => ("apps/v1", kind, owner.name.clone()),
        };
        if owner.kind == "Deployment" {
            metadata["labels"]["pod-template-hash"] = TEMPLATE_HASH.into();
        }
        metadata["generateName"] = format!("{name}-").into();
        metadata["ownerReferences"] = json!([{
            "apiVersion": api, "kind": kind, "name": name, "uid": format!("{kind}-{name}"), "controller": true,
        }]);
    }
    let ips: Vec<Value> = pod.ips.iter().map(|ip| json!({ "ip": ip })).collect();
    let node = scenario.nodes.iter().find(|node| node.name == pod.node);
    let host: Vec<Value> =
        node.into_iter().flat_map(|node| &node.addresses).map(|ip| json!({ "ip": ip })).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "nodeName": pod.node,
            "serviceAccountName": pod.service_account.as_deref().unwrap_or("default"),
            "containers": [{ "name": "main", "image": "none" }],
        },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }],
            "hostIP": host[0]["ip"],
            "hostIPs": host,
            "podIP": ips[0]["ip"],
            "podIPs": ips,
        },
    })
}

fn service(service: &Service) -> Value {
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            json!({ "name": port.name, "port": port.port, "protocol": port.protocol, "targetPort": port.target_port })
        })
        .collect();
    let family = |ip: &IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": service.name, "namespace": service.namespace },
        "spec": {
            "clusterIP": service.cluster_ips[0],
            "clusterIPs": service.cluster_ips,
            "ipFamilies": service.cluster_ips.iter().map(family).collect::<Vec<_>>(),
            "ipFamilyPolicy": if service.cluster_ips.len() == 1 { "SingleStack" } else { "RequireDualStack" },
            "ports": ports,
            "selector": service.selector,
        },
    })
}

/// A slice of each family that the service has.
fn slices(scenario: &Scenario, service: &Service) -> Vec<Value> {
    let of_family = |is_ipv4: bool, family: &str| {
        let endpoints: Vec<Value> = scenario
            .backends(service)
            .iter()
            .flat_map(|pod| pod.ips.iter().filter(|ip| ip.is_ipv4() == is_ipv4).map(move |ip| (pod, ip)))
            .map(|(pod, ip)| {
                json!({
                    "addresses": [ip],
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                    "nodeName": pod.node,
                    "targetRef": { "kind": "Pod", "namespace": pod.namespace, "name": pod.name },
                })
            })
            .collect();
        let ports: Vec<Value> = service
            .ports
            .iter()
            .map(|port| {
                let name = port.name.as_deref().unwrap_or_default();
                json!({ "name": name, "port": port.target_port, "protocol": port.protocol })
            })
            .collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{}", service.name, family.to_lowercase()),
                "namespace": service.namespace,
                "labels": { "kubernetes.io/service-name": service.name },
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": ports,
        })
    };
    let has = |is_ipv4| service.cluster_ips.iter().any(|ip| ip.is_ipv4() == is_ipv4);
    [(true, "IPv4"), (false, "IPv6")]
        .into_iter()
        .filter(|(is_ipv4, _)| has(*is_ipv4))
        .map(|(is_ipv4, family)| of_family(is_ipv4, family))
        .collect()
}
