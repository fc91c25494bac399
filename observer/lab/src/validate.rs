//! The checks that a scenario's types can't make.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::scenario::{Cause, Family, Kind, Party, Scenario, Traffic, Wiring};
use crate::{LabError, Result};

/// The payload's shortest length: the token (16 bytes) and the wish for an echo (1 byte).
pub(crate) const MIN_BYTES: usize = 17;

/// IFNAMSIZ without the end.
const MAX_LINK_NAME: usize = 15;

impl Scenario {
    /// Holds what the player relies on: every name is known, unique and fit for a namespace's name.
    pub(crate) fn validate(&self) -> Result<()> {
        self.check().map_err(|message| LabError::Invalid { scenario: self.name.clone(), message })
    }

    fn check(&self) -> Result<(), String> {
        label("name", &self.name)?;
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for address in &self.outside.addresses {
            unique_address(&mut addresses, "outside", address.addr())?;
        }
        for node in &self.nodes {
            label("nodes.name", &node.name)?;
            if node.name.len() > MAX_LINK_NAME {
                return Err(format!(
                    "node {}: a link carries its name, use at most {MAX_LINK_NAME} letters",
                    node.name
                ));
            }
            unique(&mut names, "node", &node.name)?;
            one_per_family(&format!("node {}: addresses", node.name), &node.addresses)?;
            for address in &node.addresses {
                unique_address(&mut addresses, &node.name, *address)?;
                if !self.outside.addresses.iter().any(|range| range.contains(address)) {
                    return Err(format!("node {}: {address} is in no range of outside.addresses", node.name));
                }
            }
            if (node.wiring == Wiring::Bridged) == node.gateways.is_empty() {
                return Err(format!(
                    "node {}: gateways go with wiring = \"bridged\", and only there",
                    node.name
                ));
            }
        }
        if names.contains("outside") {
            return Err("node outside: this name is taken by the network outside".into());
        }
        for pod in &self.pods {
            label("pods.name", &pod.name)?;
            unique(&mut names, "pod", &pod.name)?;
            one_per_family(&format!("pod {}: ips", pod.path()), &pod.ips)?;
            for address in &pod.ips {
                unique_address(&mut addresses, &pod.path(), *address)?;
            }
            let Some(node) = self.nodes.iter().find(|node| node.name == pod.node) else {
                return Err(format!(
                    "pod {}: node '{}' is not declared under [[nodes]]",
                    pod.path(),
                    pod.node
                ));
            };
            for address in &pod.ips {
                if node.wiring == Wiring::Bridged
                    && !node.gateways.iter().any(|range| range.contains(address))
                {
                    return Err(format!(
                        "pod {}: {address} is in no range of its node's gateways",
                        pod.path()
                    ));
                }
            }
        }
        for service in &self.services {
            let path = format!("service {}/{}", service.namespace, service.name);
            unique(&mut names, "service", &path)?;
            for address in &service.cluster_ips {
                unique_address(&mut addresses, &path, *address)?;
            }
            if service.selector.is_empty() || self.backends(service).is_empty() {
                return Err(format!(
                    "{path}: its selector matches no pod of namespace {}",
                    service.namespace
                ));
            }
        }
        for external in &self.externals {
            unique(&mut names, "external", &format!("external {}", external.name))?;
            for address in &external.addresses {
                unique_address(&mut addresses, &external.name, *address)?;
            }
        }
        for rule in &self.drops {
            unique(&mut names, "drop", &format!("drop {}", rule.name))?;
            if !rule.cause.is_rule() {
                return Err(format!(
                    "drop {}: its cause is made by traffic alone, with expect = ...",
                    rule.name
                ));
            }
            if rule.addresses.is_empty() {
                return Err(format!("drop {}: addresses is empty", rule.name));
            }
            if rule.port.is_some() && !matches!(rule.cause, Cause::NftDrop | Cause::NftReject) {
                return Err(format!("drop {}: a port goes with nft-drop and nft-reject only", rule.name));
            }
        }
        for traffic in &self.traffic {
            unique(&mut names, "traffic", &format!("traffic {}", traffic.name))?;
            self.check_traffic(traffic).map_err(|message| format!("traffic {}: {message}", traffic.name))?;
        }
        Ok(())
    }

    fn check_traffic(&self, traffic: &Traffic) -> Result<(), String> {
        if !matches!(traffic.from, Party::Pod(..) | Party::Node(_) | Party::External(_)) {
            return Err(format!("from = \"{}\": only a pod, node or external can send", traffic.from));
        }
        let families: &[bool] = match traffic.family {
            Family::V4 => &[true],
            Family::V6 => &[false],
            Family::Both => &[true, false],
        };
        for (end, party) in [("from", &traffic.from), ("to", &traffic.to)] {
            let addresses = self.addresses(party);
            for ipv4 in families {
                if !addresses.iter().any(|address| address.is_ipv4() == *ipv4) {
                    let family = if *ipv4 { "IPv4" } else { "IPv6" };
                    return Err(format!("{end} = \"{party}\" is not declared, or has no {family} address"));
                }
            }
        }
        match (traffic.kind, traffic.port) {
            (Kind::Ping, Some(_)) => return Err("a ping has no port".into()),
            (Kind::Ping, None) | (_, Some(1..)) => {}
            (_, None | Some(0)) => return Err("port is missing".into()),
        }
        if matches!(traffic.kind, Kind::Http | Kind::Dns) != traffic.path.is_some() {
            return Err("path goes with kind http and dns, and only there".into());
        }
        if (traffic.kind == Kind::Flood) != traffic.rate.is_some() {
            return Err("rate goes with kind flood, and only there".into());
        }
        if traffic.kind == Kind::Flood && (traffic.count.is_none() || traffic.rate == Some(0)) {
            return Err("a flood needs a count and a rate above 0".into());
        }
        if traffic.kind == Kind::Flood && traffic.family == Family::Both {
            return Err("a flood needs family = \"v4\" or \"v6\"".into());
        }
        if !(MIN_BYTES..=65_000).contains(&traffic.bytes) {
            return Err(format!("bytes = {} is not in {MIN_BYTES}..=65000", traffic.bytes));
        }
        Ok(())
    }
}

/// Names become parts of namespaces' names and of DNS names.
fn label(field: &str, name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.len() > 100 || !name.bytes().all(fits) {
        return Err(format!("{field} = \"{name}\": use lower-case letters, digits, '-' and '.'"));
    }
    Ok(())
}

fn unique(names: &mut BTreeSet<String>, what: &str, name: &str) -> Result<(), String> {
    if names.insert(name.to_owned()) { Ok(()) } else { Err(format!("{what} {name} is declared twice")) }
}

fn unique_address(seen: &mut BTreeSet<IpAddr>, owner: &str, address: IpAddr) -> Result<(), String> {
    if seen.insert(address) { Ok(()) } else { Err(format!("{owner}: {address} is used twice")) }
}

fn one_per_family(field: &str, addresses: &[IpAddr]) -> Result<(), String> {
    let ipv4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    if addresses.is_empty() || ipv4 > 1 || addresses.len() - ipv4 > 1 {
        return Err(format!("{field}: give one IPv4 address, one IPv6 address or one of each"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
name = "t"
[outside]
addresses = ["192.168.50.1/24"]
[[nodes]]
name = "n1"
wiring = "routed"
addresses = ["192.168.50.11"]
[[pods]]
name = "a"
namespace = "x"
node = "n1"
ips = ["10.1.0.1"]
"#;

    #[test]
    fn a_small_scenario_is_valid() {
        let scenario = Scenario::parse(BASE, "t.toml").unwrap();
        assert_eq!(scenario.pods[0].uid(), scenario.pods[0].uid());
    }

    #[test]
    fn errors_name_the_place_and_the_remedy() {
        let cases = [
            ("[[pods]]\nnam = \"b\"", "t.toml:15: unknown field `nam`"),
            (
                "[[pods]]\nname=\"b\"\nnamespace=\"x\"\nnode=\"n9\"\nips=[\"10.1.0.2\"]",
                "node 'n9' is not declared",
            ),
            (
                "[[pods]]\nname=\"b\"\nnamespace=\"x\"\nnode=\"n1\"\nips=[\"10.1.0.1\"]",
                "10.1.0.1 is used twice",
            ),
            (
                "[[pods]]\nname=\"A b\"\nnamespace=\"x\"\nnode=\"n1\"\nips=[\"10.1.0.2\"]",
                "use lower-case letters",
            ),
            (
                "[[traffic]]\nname=\"t\"\nfrom=\"pod/x/a\"\nkind=\"tcp\"\nto=\"pod/x\"",
                "t.toml:18: 'pod/x' is no end of traffic",
            ),
            (
                "[[traffic]]\nname=\"t\"\nfrom=\"pod/x/a\"\nkind=\"tcp\"\nto=\"ip/1.2.3.4\"\nport=1",
                "has no IPv6 address",
            ),
            (
                "[[traffic]]\nname=\"t\"\nfrom=\"pod/x/a\"\nkind=\"tcp\"\nto=\"ip/1.2.3.4\"\nfamily=\"v4\"",
                "port is missing",
            ),
            ("[[drops]]\nname=\"d\"\ncause=\"ttl\"\naddresses=[\"1.2.3.4\"]", "made by traffic alone"),
        ];
        for (addition, expected) in cases {
            let error = Scenario::parse(&format!("{BASE}{addition}\n"), "t.toml").unwrap_err().to_string();
            assert!(error.contains(expected), "{addition}\ngave: {error}\nwant: {expected}");
        }
    }
}
