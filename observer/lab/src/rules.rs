//! A node's nftables rules: services, masquerade, drops.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::plan::UPLINK;
use crate::scenario::{Cause, DropRule, Node, Protocol, Scenario};

/// Both families' tables of one node, as `nft -f` reads them.
pub(crate) fn ruleset(scenario: &Scenario, node: &Node) -> String {
    let mut script = String::new();
    for ipv4 in [true, false] {
        let Some(own) = node.addresses.iter().find(|address| address.is_ipv4() == ipv4) else { continue };
        let (family, addr, icmp) = if ipv4 { ("ip", "ip", "icmp") } else { ("ip6", "ip6", "icmpv6") };
        let translations = translations(scenario, ipv4, addr);
        // Writing to a String cannot fail.
        let _ = writeln!(
            script,
            "table {family} lab {{\n\
             chain services {{\n{translations}}}\n\
             chain prerouting {{\ntype nat hook prerouting priority -100\njump services\n}}\n\
             chain output {{\ntype nat hook output priority -100\njump services\n}}\n\
             chain postrouting {{\ntype nat hook postrouting priority 100\n{}}}\n\
             chain forward {{\ntype filter hook forward priority 0\n{}}}\n}}",
            source_translations(scenario, *own, ipv4, addr),
            drops(&scenario.drops, ipv4, addr, icmp),
        );
    }
    script
}

/// Service port -> backends by turns.
fn translations(scenario: &Scenario, ipv4: bool, addr: &str) -> String {
    let mut rules = String::new();
    for service in &scenario.services {
        for cluster_ip in service.cluster_ips.iter().filter(|address| address.is_ipv4() == ipv4) {
            for port in &service.ports {
                let backends: Vec<IpAddr> = scenario
                    .backends(service)
                    .iter()
                    .flat_map(|pod| pod.ips.iter().copied().filter(|address| address.is_ipv4() == ipv4))
                    .collect();
                let target = match backends[..] {
                    [] => continue,
                    [only] => SocketAddr::new(only, port.target_port).to_string(),
                    _ => {
                        let map: Vec<_> = backends
                            .iter()
                            .enumerate()
                            .map(|(i, backend)| format!("{i} : {backend} . {}", port.target_port))
                            .collect();
                        format!("numgen inc mod {} map {{ {} }}", map.len(), map.join(", "))
                    }
                };
                let _ = writeln!(
                    rules,
                    "{addr} daddr {cluster_ip} {} dport {} dnat to {target}",
                    port.protocol.nft(),
                    port.port
                );
            }
        }
    }
    rules
}

/// Hairpin: a pod that reaches itself through a service must see another source than itself. Outside: pods go out under
/// the node's address, except to pods of other nodes.
fn source_translations(scenario: &Scenario, own: IpAddr, ipv4: bool, addr: &str) -> String {
    let mut rules = String::new();
    let pods: BTreeSet<IpAddr> = scenario
        .pods
        .iter()
        .flat_map(|pod| pod.ips.iter().copied())
        .filter(|ip| ip.is_ipv4() == ipv4)
        .collect();
    let backends: BTreeSet<IpAddr> = scenario
        .services
        .iter()
        .flat_map(|service| scenario.backends(service))
        .flat_map(|pod| pod.ips.iter().copied())
        .filter(|ip| ip.is_ipv4() == ipv4)
        .collect();
    for backend in backends {
        let _ = writeln!(rules, "ct status dnat {addr} saddr {backend} {addr} daddr {backend} snat to {own}");
    }
    if !pods.is_empty() {
        let set: Vec<_> = pods.iter().map(ToString::to_string).collect();
        let set = set.join(", ");
        let _ = writeln!(
            rules,
            "oifname \"{UPLINK}\" {addr} saddr {{ {set} }} {addr} daddr != {{ {set} }} masquerade"
        );
    }
    rules
}

fn drops(drops: &[DropRule], ipv4: bool, addr: &str, icmp: &str) -> String {
    let mut rules = String::new();
    for rule in drops {
        let verdict = match rule.cause {
            Cause::NftDrop => "drop".to_owned(),
            // TCP overlooks an ICMP error that comes while connect() still holds the socket; a RST it never does.
            Cause::NftReject if rule.port.is_some() && rule.protocol == Protocol::Tcp => {
                "reject with tcp reset".to_owned()
            }
            Cause::NftReject => format!("reject with {icmp} type port-unreachable"),
            _ => continue,
        };
        for address in rule.addresses.iter().filter(|address| address.is_ipv4() == ipv4) {
            let port =
                rule.port.map_or_else(String::new, |port| format!(" {} dport {port}", rule.protocol.nft()));
            let _ = writeln!(rules, "{addr} daddr {address}{port} {verdict}");
        }
    }
    rules
}
