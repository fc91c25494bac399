//! What policies see of pods, nodes and services: [`observer_policy`]'s endpoints and surroundings.

use crate::{Node, Pod, PodPort, ServicePort, Snapshot, Surroundings, TargetPort, labels::LabelMap};
use observer_policy::{
    label::{Label, Labels},
    world::{self, Endpoint, NamedPort},
};
use std::{net::IpAddr, sync::Arc};

/// The own node's name among endpoints; that of a pod has a slash in it.
pub const HOST: &str = "host";

/// All endpoints of a snapshot, seen from `own_node`.
pub fn endpoints(snapshot: &Snapshot, own_node: &str) -> Vec<(Arc<str>, Endpoint)> {
    let Surroundings { nodes, kube_apiservers, .. } = &snapshot.surroundings;
    let pods = snapshot.pods.iter().filter_map(|pod| Some((pod_name(pod), of_pod(pod)?)));
    let nodes = nodes.iter().map(|node| {
        let is_own = node.name == own_node;
        (node_name(node, is_own), of_node(node, is_own, kube_apiservers))
    });
    pods.chain(nodes).collect()
}

/// `namespace/name`.
pub fn pod_name(pod: &Pod) -> Arc<str> {
    format!("{}/{}", pod.namespace, pod.name).into()
}

/// [`HOST`], or `node:name` for another one.
pub fn node_name(node: &Node, is_own: bool) -> Arc<str> {
    if is_own { HOST.into() } else { format!("node:{}", node.name).into() }
}

/// A pod with all of its labels; none for one that has finished, or whose traffic is its node's.
pub fn of_pod(pod: &Pod) -> Option<Endpoint> {
    if pod.finished || pod.host_network {
        return None;
    }
    Some(endpoint(pod.labels.iter().chain(&pod.other_labels), &pod.ports, pod.ips.clone()))
}

/// An endpoint with these labels, and ports as its containers call them.
pub fn endpoint(
    labels: impl Iterator<Item = impl AsRef<str>>,
    ports: &[PodPort],
    addresses: Vec<IpAddr>,
) -> Endpoint {
    let ports = ports.iter().map(|port| NamedPort {
        // As rules have them.
        name: port.name.to_lowercase().into(),
        protocol: port.protocol,
        port: port.port,
    });
    Endpoint { labels: Labels::parse(labels), ports: ports.collect(), addresses }
}

/// A node.
pub fn of_node(node: &Node, is_own: bool, kube_apiservers: &[IpAddr]) -> Endpoint {
    let reserved = |name: &str| Label { key: name.into(), source: "reserved".into(), value: "".into() };
    let serves_api = node.addresses.iter().any(|address| kube_apiservers.contains(address));
    let mut labels = k8s_labels(&node.labels).collect::<Vec<_>>();
    labels.push(reserved(if is_own { "host" } else { "remote-node" }));
    labels.extend(serves_api.then(|| reserved("kube-apiserver")));
    let labels = labels.into_iter().collect();
    Endpoint { labels, ports: Vec::new(), addresses: node.addresses.clone() }
}

/// What rules refer to besides endpoints; names that were resolved are not known here.
pub fn surroundings(known: &Surroundings) -> world::Surroundings {
    let groups = known.cidr_groups.iter().map(|group| world::CidrGroup {
        name: group.name.as_str().into(),
        labels: k8s_labels(&group.labels).collect(),
        nets: group.cidrs.clone(),
    });
    let pairs = |map: &LabelMap| {
        map.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()
    };
    let services = known.services.iter().map(|service| world::Service {
        namespace: service.namespace.as_str().into(),
        name: service.name.as_str().into(),
        labels: k8s_labels(&service.labels).collect(),
        selector: pairs(&service.selector),
        backends: if service.selector.is_empty() { service.serving().collect() } else { Vec::new() },
        addresses: service.addresses.iter().map(IpAddr::to_canonical).collect(),
        ports: service.ports.iter().map(service_port).collect(),
    });
    world::Surroundings {
        groups: groups.collect(),
        services: services.collect(),
        ..world::Surroundings::default()
    }
}

fn service_port(port: &ServicePort) -> world::ServicePort {
    let target = match &port.target {
        TargetPort::Number(number) => world::Target::Number(*number),
        TargetPort::Name(name) => world::Target::Name(name.to_lowercase().into()),
    };
    world::ServicePort { port: port.port, protocol: port.protocol, target }
}

fn k8s_labels(map: &LabelMap) -> impl Iterator<Item = Label> + '_ {
    map.iter().map(|(key, value)| Label {
        key: key.as_str().into(),
        source: observer_policy::label::K8S.into(),
        value: value.as_str().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use std::path::Path;

    #[test]
    fn policies_see_all_labels_and_no_pod_without_addresses_of_its_own() {
        let text = "
nodes: [{name: n1, addresses: [192.168.0.1], labels: {zone: a}}, {name: n2, addresses: [192.168.0.2]}]
namespaces: [{name: web, labels: {team: red}}]
pods:
  - {name: a, namespace: web, node: n2, ips: [10.0.0.1], labels: {app: x, pod-template-hash: h}, ports: [{name: Web, port: 80}]}
  - {name: agent, node: n1, ips: [192.168.0.1], host_network: true}
  - {name: job, ips: [10.0.0.2], phase: Failed}
services: [{name: s, namespace: web, labels: {tier: front}, selector: {app: x}}]
cidr_groups: [{name: office, cidrs: [10.1.0.0/16], labels: {kind: site}}]
";
        let snapshot = parse(Path::new("inventory.yaml"), text, "n1").unwrap();
        let seen = endpoints(&snapshot, "n1");
        let labels = |n: usize| -> Vec<String> { seen[n].1.labels.iter().map(ToString::to_string).collect() };
        let names: Vec<&str> = seen.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["web/a", "host", "node:n2"]);
        assert_eq!(
            labels(0),
            [
                "k8s:app=x",
                "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=web",
                "k8s:io.cilium.k8s.namespace.labels.team=red",
                "k8s:io.cilium.k8s.policy.cluster=default",
                "k8s:io.cilium.k8s.policy.serviceaccount=default",
                "k8s:io.kubernetes.pod.namespace=web",
                "k8s:pod-template-hash=h",
            ]
        );
        assert_eq!(*seen[0].1.ports[0].name, *"web");
        assert_eq!(
            (labels(1), labels(2)),
            (vec!["reserved:host".into(), "k8s:zone=a".into()], vec!["reserved:remote-node".to_owned()])
        );
        let around = surroundings(&snapshot.surroundings);
        assert_eq!((around.services[0].labels.iter().count(), &*around.services[0].selector[0].1), (1, "x"));
        assert_eq!(around.groups[0].labels.get("k8s", "kind"), Some("site"));
        let api = of_node(&snapshot.surroundings.nodes[1], false, &["192.168.0.2".parse().unwrap()]);
        assert!(api.labels.is_reserved("kube-apiserver") && api.labels.is_reserved("remote-node"));
    }
}
