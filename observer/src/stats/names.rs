//! How ends are named in statistics: by what outlives a pod.

use crate::endpoint::Endpoint;

/// The workload as `namespace/name`; without one the pod; else the reserved name or the CIDR.
pub(super) fn of(endpoint: &Endpoint) -> String {
    let workload = endpoint.workloads.first().map(|workload| workload.name.as_str());
    match workload.unwrap_or(&endpoint.pod_name) {
        "" => reserved(&endpoint.labels),
        name if endpoint.namespace.is_empty() => name.to_owned(),
        name => format!("{}/{name}", endpoint.namespace),
    }
}

fn reserved(labels: &[String]) -> String {
    let cidr = labels.iter().find(|label| label.starts_with("cidr:"));
    let reserved = || labels.iter().find_map(|label| label.strip_prefix("reserved:"));
    cidr.map(String::as_str).or_else(reserved).unwrap_or("unknown").to_owned()
}

/// The name of an IANA protocol number; empty for 0, which is not IP.
pub fn protocol(number: u8) -> String {
    match number {
        0 => String::new(),
        1 => "ICMPv4".to_owned(),
        2 => "IGMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        112 => "VRRP".to_owned(),
        132 => "SCTP".to_owned(),
        other => other.to_string(),
    }
}
