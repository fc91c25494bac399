//! Names and commands: how a scenario becomes namespaces, links, addresses and routes.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::scenario::{Cause, Node, Pod, Scenario, Wiring};
use crate::{Result, netns, rules};

/// A node's link to the outside, and a pod's to its node.
pub(crate) const UPLINK: &str = "eth0";
/// The pods' gateways in routed wiring, the same on every host veth.
const ROUTED_GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1"];
/// The MTU that the "too big" cause leaves; IPv6 allows no smaller one.
pub(crate) const SMALL_MTU: u32 = 1280;

/// Namespaces' names by prefix, and the building of what is in them.
#[derive(Clone, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) prefix: &'a str,
}

impl Plan<'_> {
    pub(crate) fn outside(&self) -> String {
        format!("{}-outside", self.prefix)
    }

    pub(crate) fn node(&self, node: &str) -> String {
        format!("{}-{node}", self.prefix)
    }

    pub(crate) fn pod(&self, pod: &Pod) -> String {
        format!("{}-{}-{}", self.prefix, pod.node, pod.name)
    }

    /// All namespaces, in the order they are made.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        std::iter::once(self.outside())
            .chain(self.scenario.nodes.iter().map(|node| self.node(&node.name)))
            .chain(self.scenario.pods.iter().map(|pod| self.pod(pod)))
            .collect()
    }

    /// The node's end of a pod's veth.
    pub(crate) fn pod_link(&self, pod: &Pod) -> String {
        let index = self.scenario.pods.iter().position(|other| other.name == pod.name).unwrap_or_default();
        format!("veth{index}")
    }

    /// Makes everything. On an error the caller takes down what is there.
    pub(crate) fn build(&self) -> Result<()> {
        let script =
            self.namespaces().iter().fold(String::new(), |script, name| script + "netns add " + name + "\n");
        netns::feed("ip", &["-batch", "-"], &script, "the host")?;
        for name in self.namespaces() {
            let pod = self.scenario.pods.iter().any(|pod| self.pod(pod) == name);
            netns::inside(&name, || prepare(!pod))?;
        }
        // From the outside inwards: each script makes the links to what is further in.
        self.configure(&self.outside(), &self.outside_script(), "")?;
        for (index, node) in self.scenario.nodes.iter().enumerate() {
            let rules = rules::ruleset(self.scenario, node);
            self.configure(&self.node(&node.name), &self.node_script(index, node), &rules)?;
        }
        for pod in &self.scenario.pods {
            self.configure(&self.pod(pod), &self.pod_script(pod), "")?;
        }
        Ok(())
    }

    /// Links, addresses, routes and rules of one namespace.
    fn configure(&self, name: &str, script: &str, rules: &str) -> Result<()> {
        netns::inside(name, || {
            netns::feed("ip", &["-batch", "-"], script, name)?;
            if !rules.is_empty() {
                netns::feed("nft", &["-f", "-"], rules, name)?;
            }
            quicken_neighbours()?;
            if self.scenario.offload { Ok(()) } else { switch_offload_off(name) }
        })
    }

    fn outside_script(&self) -> String {
        let mut script = String::from("link set lo up\nlink add br0 type bridge\nlink set br0 up\n");
        for range in &self.scenario.outside.addresses {
            push(&mut script, format_args!("addr add {range} dev br0 {}", nodad(range.addr())));
        }
        for address in self.scenario.externals.iter().flat_map(|external| &external.addresses) {
            push(&mut script, format_args!("addr add {address} dev br0 {}", nodad(*address)));
        }
        for node in &self.scenario.nodes {
            let (link, namespace) = (&node.name, self.node(&node.name));
            push(&mut script, format_args!("link add {link} type veth peer name {UPLINK} netns {namespace}"));
            push(&mut script, format_args!("link set {link} master br0 up"));
            for address in self.pods_of(&node.name).flat_map(|pod| &pod.ips) {
                if let Some(via) = same_family(&node.addresses, *address) {
                    push(&mut script, format_args!("route add {address} via {via}"));
                }
            }
        }
        script
    }

    fn pods_of(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.scenario.pods.iter().filter(move |pod| pod.node == node)
    }

    fn node_script(&self, index: usize, node: &Node) -> String {
        let scenario = self.scenario;
        let mut script = format!("link set lo up\nlink set {UPLINK} up\n");
        for range in &scenario.outside.addresses {
            let gateway = range.addr();
            let Some(own) = node.addresses.iter().find(|own| own.is_ipv4() == gateway.is_ipv4()) else {
                continue;
            };
            let length = range.prefix_len();
            push(&mut script, format_args!("addr add {own}/{length} dev {UPLINK} {}", nodad(*own)));
            push(&mut script, format_args!("route add default via {gateway} dev {UPLINK} src {own}"));
        }
        if node.wiring == Wiring::Bridged {
            script.push_str(
                "link add br0 address 02:1a:b0:00:00:01 type bridge mcast_snooping 0\nlink set br0 up\n",
            );
            for range in &node.gateways {
                push(&mut script, format_args!("addr add {range} dev br0 {}", nodad(range.addr())));
            }
        }
        for pod in self.pods_of(&node.name) {
            self.attach(&mut script, node, pod);
        }
        for other in scenario.nodes.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, other)| other) {
            for address in self.pods_of(&other.name).flat_map(|pod| &pod.ips) {
                if let Some(via) = same_family(&other.addresses, *address) {
                    push(&mut script, format_args!("route add {address} via {via}"));
                }
            }
        }
        self.drop_routes(&mut script, node);
        script
    }

    /// A pod's veth. Both ends know each other's address, so that no ARP or neighbour solicitation is among the traffic.
    fn attach(&self, script: &mut String, node: &Node, pod: &Pod) {
        let (link, namespace) = (self.pod_link(pod), self.pod(pod));
        let (host_mac, pod_mac) = self.macs(pod);
        push(
            script,
            format_args!(
                "link add {link} address {host_mac} type veth peer name eth0 address {pod_mac} netns {namespace}"
            ),
        );
        push(script, format_args!("link set {link} up"));
        match node.wiring {
            Wiring::Bridged => {
                push(script, format_args!("link set {link} master br0"));
                push(script, format_args!("link set {link} type bridge_slave hairpin on"));
                for address in &pod.ips {
                    push(
                        script,
                        format_args!("neigh replace {address} lladdr {pod_mac} dev br0 nud permanent"),
                    );
                }
            }
            Wiring::Routed => {
                // The gateway stands on the veth itself: proxy_arp doesn't answer for it without a route.
                push(script, format_args!("addr add {}/32 dev {link}", ROUTED_GATEWAYS[0]));
                push(script, format_args!("addr add {}/64 dev {link} nodad", ROUTED_GATEWAYS[1]));
                for address in &pod.ips {
                    let source = same_family(&node.addresses, *address);
                    let source = source.map_or_else(String::new, |own| format!(" src {own}"));
                    push(script, format_args!("route add {address} dev {link}{source}"));
                    push(
                        script,
                        format_args!("neigh replace {address} lladdr {pod_mac} dev {link} nud permanent"),
                    );
                }
            }
        }
    }

    fn macs(&self, pod: &Pod) -> (String, String) {
        let index = self.scenario.pods.iter().position(|other| other.name == pod.name).unwrap_or_default();
        let (high, low) = (index >> 8 & 0xff, index & 0xff);
        (format!("02:1a:b0:01:{high:02x}:{low:02x}"), format!("02:1a:b0:02:{high:02x}:{low:02x}"))
    }

    fn drop_routes(&self, script: &mut String, node: &Node) {
        let mut void = false;
        for rule in &self.scenario.drops {
            for address in &rule.addresses {
                let via = self
                    .scenario
                    .outside
                    .addresses
                    .iter()
                    .map(ipnet::IpNet::addr)
                    .find(|gateway| gateway.is_ipv4() == address.is_ipv4());
                match rule.cause {
                    // Ends the look-up in this table; no other has a route.
                    Cause::NoRoute => push(script, format_args!("route add throw {address}")),
                    Cause::Blackhole => push(script, format_args!("route add blackhole {address}")),
                    Cause::TooBig => {
                        if let Some(via) = via {
                            push(script, format_args!("route add {address} via {via} mtu lock {SMALL_MTU}"));
                        }
                    }
                    Cause::Neighbour => {
                        if !void {
                            // A link with nobody behind it: its far end is up, and has no address.
                            script.push_str("link add void0 type veth peer name void1\nlink set void0 up\n");
                            script.push_str("link set void1 arp off up\n");
                            void = true;
                        }
                        let source = same_family(&node.addresses, *address);
                        let source = source.map_or_else(String::new, |own| format!(" src {own}"));
                        push(script, format_args!("route add {address} dev void0{source}"));
                    }
                    Cause::None | Cause::NftDrop | Cause::NftReject | Cause::ClosedPort | Cause::Ttl => {}
                }
            }
        }
    }

    fn pod_script(&self, pod: &Pod) -> String {
        let mut script = String::from("link set lo up\nlink set eth0 up\n");
        let Some(node) = self.scenario.nodes.iter().find(|node| node.name == pod.node) else { return script };
        let (host_mac, _) = self.macs(pod);
        for address in &pod.ips {
            let dad = nodad(*address);
            match node.wiring {
                Wiring::Routed => {
                    let gateway = ROUTED_GATEWAYS[usize::from(!address.is_ipv4())];
                    push(&mut script, format_args!("addr add {address} dev eth0 {dad}"));
                    push(
                        &mut script,
                        format_args!("neigh replace {gateway} lladdr {host_mac} dev eth0 nud permanent"),
                    );
                    push(
                        &mut script,
                        format_args!("route add default via {gateway} dev eth0 onlink src {address}"),
                    );
                }
                Wiring::Bridged => {
                    let Some(range) = node.gateways.iter().find(|range| range.contains(address)) else {
                        continue;
                    };
                    let (gateway, length) = (range.addr(), range.prefix_len());
                    push(&mut script, format_args!("addr add {address}/{length} dev eth0 {dad}"));
                    push(
                        &mut script,
                        format_args!(
                            "neigh replace {gateway} lladdr 02:1a:b0:00:00:01 dev eth0 nud permanent"
                        ),
                    );
                    push(&mut script, format_args!("route add default via {gateway} dev eth0"));
                    for other in self.pods_of(&node.name).filter(|other| other.name != pod.name) {
                        let Some(ip) = same_family(&other.ips, *address) else { continue };
                        let (_, mac) = self.macs(other);
                        push(
                            &mut script,
                            format_args!("neigh replace {ip} lladdr {mac} dev eth0 nud permanent"),
                        );
                    }
                }
            }
        }
        script
    }
}

/// Sysctls of the calling thread's namespace, before it has links: links copy them when they are made.
fn prepare(forwarding: bool) -> Result<()> {
    for (key, value) in [
        // Addresses are usable at once, and a silent lab is silent.
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
        ("ipv6/conf/default/mldv2_unsolicited_report_interval", "10"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Unprivileged ping sockets for root's group, which the kernel refuses by default.
        ("ipv4/ping_group_range", "0 0"),
        // No limit on the ICMP errors that tell a client of a drop.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
    ] {
        netns::sysctl(key, value, false)?;
    }
    if forwarding {
        netns::sysctl("ipv4/ip_forward", "1", false)?;
        netns::sysctl("ipv6/conf/all/forwarding", "1", false)?;
        // Bridged packets pass nftables too, so that services work between pods of one bridge.
        for family in ["iptables", "ip6tables"] {
            netns::sysctl(&format!("bridge/bridge-nf-call-{family}"), "1", true)?;
        }
    }
    Ok(())
}

/// An unanswered ARP or neighbour solicitation fails after 0.6 s, not 3, on all links of the calling thread's namespace.
fn quicken_neighbours() -> Result<()> {
    for link in links_here() {
        for family in ["ipv4", "ipv6"] {
            netns::sysctl(&format!("{family}/neigh/{link}/retrans_time_ms"), "200", true)?;
        }
    }
    Ok(())
}

fn switch_offload_off(name: &str) -> Result<()> {
    for link in links_here().iter().filter(|link| *link != "lo") {
        netns::feed(
            "ethtool",
            &["-K", link, "tso", "off", "gso", "off", "gro", "off", "tx", "off"],
            "",
            name,
        )?;
    }
    Ok(())
}

/// One line of a script; writing to a String cannot fail.
fn push(script: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(script, "{line}");
}

fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "" } else { "nodad" }
}

fn same_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv4() == like.is_ipv4())
}

/// Links of the calling thread's namespace, as its sysctls list them.
fn links_here() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/sys/net/ipv4/conf").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name != "all" && name != "default").collect()
}
