//! Random policies over a vocabulary so small that they meet, and random questions.

use super::{
    Question,
    naive::{Cluster, End},
};
use observer_policy::model::Direction;
use serde_json::{Map, Value, json};

/// Always the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut this = Self(seed ^ 0x9e37_79b9_7f4a_7c15);
        this.below(2);
        this
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 33) as usize) % end
    }

    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn up_to<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = if self.percent(10) { 0 } else { 1 + self.below(most) };
        (0..count).map(|_| make(self)).collect()
    }
}

const NAMESPACES: &[&str] = &["a", "a", "b", "c"];
const KEYS: &[(&str, &[&str])] =
    &[("app", &["web", "api", "db"]), ("tier", &["front", "back"]), ("flag", &[""])];
const TEAMS: &[&str] = &["red", "blue"];
const NETS: &[&str] = &[
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.1.0/24",
    "10.1.0.0/16",
    "172.16.0.1/32",
    "192.0.2.0/25",
    "192.168.0.0/16",
];
const NETS6: &[&str] = &["::/0", "fd00::/8", "2001:db8::/32"];
const PORTS: &[u16] = &[53, 80, 81, 82, 443, 8080];
const NAMES: &[&str] = &["http", "dns", "none"];

/// Up to eight policies.
pub(crate) fn documents(random: &mut Random) -> Vec<Value> {
    let count = 1 + random.below(8);
    (0..count).map(|n| document(random, n)).collect()
}

fn document(random: &mut Random, n: usize) -> Value {
    let namespace = *random.pick(NAMESPACES);
    match random.below(10) {
        0..4 => json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("p{n}"), "namespace": namespace}, "spec": network_policy(random),
        }),
        kind => {
            let clusterwide = kind > 7;
            let (kind, metadata) = if clusterwide {
                ("CiliumClusterwideNetworkPolicy", json!({"name": format!("p{n}")}))
            } else {
                ("CiliumNetworkPolicy", json!({"name": format!("p{n}"), "namespace": namespace}))
            };
            let spec = cilium(random, clusterwide);
            if random.percent(10) {
                let other = cilium(random, clusterwide);
                json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "specs": [spec, other]})
            } else {
                json!({"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec})
            }
        }
    }
}

fn selector(random: &mut Random, keys: &[(&str, &[&str])], front: &str) -> Value {
    let mut selector = Map::new();
    if random.percent(30) {
        let (key, values) = random.pick(keys);
        let value = random.pick(values);
        selector.insert("matchLabels".into(), json!({format!("{front}{key}"): value}));
    }
    if random.percent(20) {
        let (key, values) = random.pick(keys);
        let value = random.pick(values);
        let expression = match random.below(4) {
            0 => json!({"key": format!("{front}{key}"), "operator": "In", "values": [value]}),
            1 => json!({"key": format!("{front}{key}"), "operator": "NotIn", "values": [value]}),
            2 => json!({"key": format!("{front}{key}"), "operator": "Exists"}),
            _ => json!({"key": format!("{front}{key}"), "operator": "DoesNotExist"}),
        };
        selector.insert("matchExpressions".into(), json!([expression]));
    }
    Value::Object(selector)
}

fn block(random: &mut Random) -> (Value, Value) {
    if random.percent(20) {
        return (json!(random.pick(NETS6)), json!([]));
    }
    match random.below(4) {
        0 => (json!("10.0.0.0/8"), json!(["10.1.0.0/16"])),
        1 => (json!("0.0.0.0/0"), json!(["10.0.1.0/24", "192.0.2.0/25"])),
        _ => (json!(random.pick(NETS)), json!([])),
    }
}

fn network_policy(random: &mut Random) -> Value {
    let mut spec = Map::new();
    spec.insert("podSelector".into(), selector(random, KEYS, ""));
    match random.below(5) {
        0 => drop(spec.insert("policyTypes".into(), json!(["Ingress"]))),
        1 => drop(spec.insert("policyTypes".into(), json!(["Egress"]))),
        2 => drop(spec.insert("policyTypes".into(), json!(["Ingress", "Egress"]))),
        _ => {}
    }
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        if random.percent(60) {
            let rules = random.up_to(2, |random| network_rule(random, peers));
            spec.insert(direction.into(), json!(rules));
        }
    }
    Value::Object(spec)
}

fn network_rule(random: &mut Random, peers: &str) -> Value {
    let mut rule = Map::new();
    if random.percent(75) {
        let peer = |random: &mut Random| match random.below(4) {
            0 => {
                let (cidr, except) = block(random);
                json!({"ipBlock": {"cidr": cidr, "except": except}})
            }
            1 => json!({"podSelector": selector(random, KEYS, "")}),
            2 => json!({"namespaceSelector": selector(random, &[("team", TEAMS)], "")}),
            _ => {
                let namespaces = selector(random, &[("team", TEAMS)], "");
                json!({"namespaceSelector": namespaces, "podSelector": selector(random, KEYS, "")})
            }
        };
        rule.insert(peers.into(), json!(random.up_to(2, peer)));
    }
    if random.percent(60) {
        let port = |random: &mut Random| {
            let protocol = *random.pick(&["TCP", "TCP", "UDP", "SCTP"]);
            let number = *random.pick(PORTS);
            match random.below(5) {
                0 => json!({"protocol": protocol}),
                1 => json!({"protocol": protocol, "port": random.pick(NAMES)}),
                2 => json!({"protocol": protocol, "port": number, "endPort": number + 2}),
                3 => json!({"port": number}),
                _ => json!({"protocol": protocol, "port": number}),
            }
        };
        rule.insert("ports".into(), json!(random.up_to(2, port)));
    }
    Value::Object(rule)
}

fn cilium(random: &mut Random, clusterwide: bool) -> Value {
    let mut spec = Map::new();
    let on_node = clusterwide && random.percent(25);
    if on_node {
        let any = random.percent(60);
        let selector =
            if any { json!({}) } else { json!({"matchLabels": {"role": random.pick(&["edge", "core"])}}) };
        spec.insert("nodeSelector".into(), selector);
    } else {
        spec.insert("endpointSelector".into(), selector(random, KEYS, ""));
    }
    for (direction, deny) in
        [("ingress", false), ("ingressDeny", true), ("egress", false), ("egressDeny", true)]
    {
        if random.percent(if deny { 25 } else { 60 }) {
            let rules = random.up_to(2, |random| cilium_rule(random, direction, deny, on_node));
            spec.insert(direction.into(), json!(rules));
        }
    }
    let is_empty = |spec: &Map<String, Value>| {
        ["ingress", "ingressDeny", "egress", "egressDeny"]
            .iter()
            .all(|name| spec.get(*name).and_then(Value::as_array).is_none_or(Vec::is_empty))
    };
    if is_empty(&spec) {
        spec.insert("ingress".into(), json!([{}]));
    }
    if random.percent(25) {
        let direction = *random.pick(&["ingress", "egress"]);
        spec.insert("enableDefaultDeny".into(), json!({direction: random.percent(30)}));
    }
    Value::Object(spec)
}

fn cilium_rule(random: &mut Random, direction: &str, deny: bool, on_node: bool) -> Value {
    let front = if direction.starts_with("ingress") { "from" } else { "to" };
    let mut rule = Map::new();
    if !deny && !on_node && random.percent(12) {
        rule.insert("toPorts".into(), json!([to_http(random)]));
        return Value::Object(rule);
    }
    let entities = ["all", "world", "cluster", "host", "remote-node", "none"];
    match random.below(6) {
        0 => {}
        1 => {
            let nets = random.up_to(2, |random| block(random).0);
            rule.insert(format!("{front}CIDR"), json!(nets));
        }
        2 => {
            let sets = random.up_to(2, |random| {
                let (cidr, except) = block(random);
                json!({"cidr": cidr, "except": except})
            });
            rule.insert(format!("{front}CIDRSet"), json!(sets));
        }
        3 => {
            let list = random.up_to(2, |random| *random.pick(&entities));
            rule.insert(format!("{front}Entities"), json!(list));
        }
        _ => {
            let list = random.up_to(2, cilium_peer);
            rule.insert(format!("{front}Endpoints"), json!(list));
        }
    }
    match random.below(8) {
        0..3 => {}
        3 => {
            let (family, number) = *random.pick(&[("IPv4", 8), ("IPv6", 128), ("IPv4", 0)]);
            rule.insert("icmps".into(), json!([{"fields": [{"family": family, "type": number}]}]));
        }
        _ => {
            let entries = random.up_to(2, |random| to_ports(random, deny || on_node));
            rule.insert("toPorts".into(), json!(entries));
        }
    }
    Value::Object(rule)
}

fn cilium_peer(random: &mut Random) -> Value {
    match random.below(8) {
        0 => json!({"matchLabels": {"k8s:io.kubernetes.pod.namespace": random.pick(NAMESPACES)}}),
        1 => json!({"matchExpressions": [{"key": "io.kubernetes.pod.namespace", "operator": "Exists"}]}),
        2 => {
            json!({"matchExpressions": [{"key": "k8s:io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["a"]}]})
        }
        3 => {
            let name = *random.pick(&["host", "world", "remote-node"]);
            let operator = *random.pick(&["Exists", "DoesNotExist"]);
            json!({"matchExpressions": [{"key": format!("reserved:{name}"), "operator": operator}]})
        }
        4 => selector(random, &[("team", TEAMS)], "k8s:io.cilium.k8s.namespace.labels."),
        5 => selector(random, KEYS, "k8s:"),
        _ => selector(random, KEYS, ""),
    }
}

fn to_http(random: &mut Random) -> Value {
    let port = random.pick(&[80, 80, 443, 8080]).to_string();
    json!({"ports": [{"port": port, "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}})
}

fn to_ports(random: &mut Random, plain: bool) -> Value {
    if !plain && random.percent(25) {
        return to_http(random);
    }
    let port = |random: &mut Random| {
        let protocol = *random.pick(&["TCP", "TCP", "UDP", "SCTP", "ANY"]);
        let number = *random.pick(PORTS);
        match random.below(6) {
            0 => json!({"port": "0", "protocol": protocol}),
            1 => json!({"port": random.pick(&["http", "DNS", "none"]), "protocol": protocol}),
            2 => json!({"port": number.to_string(), "endPort": number + 2, "protocol": protocol}),
            3 => json!({"port": number.to_string(), "endPort": number - 1, "protocol": protocol}),
            4 => json!({"port": number.to_string()}),
            _ => json!({"port": number.to_string(), "protocol": protocol}),
        }
    };
    json!({"ports": random.up_to(2, port)})
}

/// A side of a connection of any kind of ends.
pub(crate) fn question(random: &mut Random, cluster: &Cluster) -> Question {
    let pods = cluster.pods.len();
    let subject = if random.percent(12) { End::Host } else { End::Pod(random.below(pods)) };
    let world = ["192.0.2.1", "192.0.2.200", "10.1.9.9", "10.9.9.9", "8.8.8.8", "2001:db8::1", "fd00::99"];
    let peer = match random.below(10) {
        0 => End::Host,
        1 => End::Remote,
        2..5 => End::World(random.pick(&world).parse().unwrap()),
        _ => {
            let pod = random.below(pods);
            if random.percent(50) { End::PodAt(pod, cluster.pods[pod].ips.len() - 1) } else { End::Pod(pod) }
        }
    };
    let direction = *random.pick(&[Direction::Ingress, Direction::Egress]);
    let (protocol, port) = match random.below(10) {
        0 => (1, *random.pick(&[0, 8])),
        1 => (58, 128),
        2 => (132, *random.pick(PORTS)),
        3 | 4 => (17, *random.pick(PORTS)),
        5 => (47, 0),
        _ => (6, *random.pick(&[53, 79, 80, 80, 80, 81, 82, 83, 443, 8000, 8080])),
    };
    Question { subject, direction, peer, protocol, port }
}
