//! Verdicts straight from the documents, one policy after the other, by nothing of the engine's: no model, no index.
//!
//! It takes only what is valid, and knows no groups of CIDRs, no services and no names.

use ipnet::IpNet;
use observer_policy::model::Direction;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) namespace_labels: BTreeMap<String, String>,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) ports: Vec<(String, u8, u16)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) pods: Vec<Pod>,
    pub(crate) host_labels: BTreeMap<String, String>,
    pub(crate) host: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) dual_stack: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    Pod(usize),
    /// At one of its further addresses.
    PodAt(usize, usize),
    Host,
    Remote,
    World(IpAddr),
}

impl Cluster {
    pub(crate) fn pod(&self, end: &End) -> Option<&Pod> {
        match end {
            End::Pod(n) | End::PodAt(n, _) => Some(&self.pods[*n]),
            _ => None,
        }
    }

    pub(crate) fn address(&self, end: &End) -> IpAddr {
        match end {
            End::Pod(n) => self.pods[*n].ips[0],
            End::PodAt(n, at) => self.pods[*n].ips[*at],
            End::Host => self.host,
            End::Remote => self.remote,
            End::World(address) => *address,
        }
    }

    /// Cilium's labels of an end.
    pub(crate) fn labels(&self, end: &End) -> Vec<String> {
        let k8s = |labels: &BTreeMap<String, String>, front: &str| -> Vec<String> {
            labels.iter().map(|(key, value)| format!("k8s:{front}{key}={value}")).collect()
        };
        match end {
            End::Pod(_) | End::PodAt(..) => {
                let pod = self.pod(end).unwrap();
                let mut labels = k8s(&pod.labels, "");
                labels.extend(k8s(&pod.namespace_labels, "io.cilium.k8s.namespace.labels."));
                labels.push(format!("k8s:io.kubernetes.pod.namespace={}", pod.namespace));
                labels.push("k8s:io.cilium.k8s.policy.cluster=default".into());
                labels
            }
            End::Host => [vec!["reserved:host=".into()], k8s(&self.host_labels, "")].concat(),
            End::Remote => vec!["reserved:remote-node=".into()],
            End::World(address) if self.dual_stack && address.is_ipv4() => {
                vec!["reserved:world-ipv4=".into()]
            }
            End::World(_) if self.dual_stack => vec!["reserved:world-ipv6=".into()],
            End::World(_) => vec!["reserved:world=".into()],
        }
    }
}

/// What all policies together say, in the words of the tables.
pub(crate) fn verdict(documents: &[Value], cluster: &Cluster, question: &super::Question) -> &'static str {
    let (mut isolated, mut denied, mut plain, mut requests) = (false, false, false, false);
    let asked = Asked { cluster, question };
    for document in documents {
        let kind = document["kind"].as_str().unwrap();
        let namespace = document["metadata"]["namespace"].as_str().unwrap_or("");
        if kind == "NetworkPolicy" {
            let (by_this, allows) = asked.network_policy(namespace, &document["spec"]);
            isolated |= by_this;
            plain |= allows;
            continue;
        }
        let specs = document["specs"].as_array().cloned().unwrap_or_default();
        let spec = (!document["spec"].is_null()).then(|| document["spec"].clone());
        for spec in spec.iter().chain(&specs) {
            let found = asked.cilium(namespace, spec);
            isolated |= found.isolates;
            denied |= found.denies;
            plain |= found.allows;
            requests |= found.requests;
        }
    }
    // Kubernetes and Cilium let the own node reach its pods.
    let subject_is_pod = cluster.pod(&question.subject).is_some();
    let from_host = question.direction == Direction::Ingress && question.peer == End::Host && subject_is_pod;
    if denied {
        "deny"
    } else if plain || requests && (!isolated || from_host) {
        "allow"
    } else if requests {
        "requests"
    } else if !isolated {
        "open"
    } else if from_host {
        "allow"
    } else {
        "default-deny"
    }
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "what one policy says, each by itself")]
struct Found {
    isolates: bool,
    denies: bool,
    allows: bool,
    requests: bool,
}

struct Asked<'a> {
    cluster: &'a Cluster,
    question: &'a super::Question,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Kubernetes' selectors, over an object's own labels.
fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let empty = serde_json::Map::new();
    let equal = selector["matchLabels"].as_object().unwrap_or(&empty);
    equal.iter().all(|(key, value)| labels.get(key).is_some_and(|found| found == text(value)))
        && list(&selector["matchExpressions"]).iter().all(|expression| {
            let found = labels.get(text(&expression["key"]));
            let among =
                found.is_some_and(|found| list(&expression["values"]).iter().any(|v| text(v) == found));
            match text(&expression["operator"]) {
                "In" => among,
                "NotIn" => !among,
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

fn in_block(address: IpAddr, net: &Value, except: &Value) -> bool {
    let within = |net: &Value| text(net).parse::<IpNet>().unwrap().contains(&address);
    within(net) && !list(except).iter().any(within)
}

impl Asked<'_> {
    fn ingress(&self) -> bool {
        self.question.direction == Direction::Ingress
    }

    /// The pod whose ports have names here.
    fn destination(&self) -> Option<&Pod> {
        self.cluster.pod(if self.ingress() { &self.question.subject } else { &self.question.peer })
    }

    fn is_named(&self, name: &str) -> bool {
        let asked = (self.question.protocol, self.question.port);
        self.destination().is_some_and(|pod| {
            pod.ports.iter().any(|(own, protocol, port)| own == name && (*protocol, *port) == asked)
        })
    }

    // --- networking.k8s.io/v1 ---

    /// Whether a policy isolates the subject, and whether it allows the connection.
    fn network_policy(&self, namespace: &str, spec: &Value) -> (bool, bool) {
        let Some(pod) = self.cluster.pod(&self.question.subject) else { return (false, false) };
        if pod.namespace != namespace || !selects(&spec["podSelector"], &pod.labels) {
            return (false, false);
        }
        let types: Vec<&str> = list(&spec["policyTypes"]).iter().map(text).collect();
        let (wanted, rules) =
            if self.ingress() { ("Ingress", &spec["ingress"]) } else { ("Egress", &spec["egress"]) };
        let isolates = if types.is_empty() {
            self.ingress() || !list(rules).is_empty()
        } else {
            types.contains(&wanted)
        };
        if !isolates {
            return (false, false);
        }
        let allows = list(rules).iter().any(|rule| {
            let peers = list(&rule[if self.ingress() { "from" } else { "to" }]);
            let ports = list(&rule["ports"]);
            (peers.is_empty() || peers.iter().any(|peer| self.is_peer(namespace, peer)))
                && (ports.is_empty() || ports.iter().any(|port| self.is_port(port)))
        });
        (true, allows)
    }

    fn is_peer(&self, namespace: &str, peer: &Value) -> bool {
        if !peer["ipBlock"].is_null() {
            let address = self.cluster.address(&self.question.peer);
            return in_block(address, &peer["ipBlock"]["cidr"], &peer["ipBlock"]["except"]);
        }
        let Some(pod) = self.cluster.pod(&self.question.peer) else { return false };
        let right_namespace = match &peer["namespaceSelector"] {
            Value::Null => pod.namespace == namespace,
            selector => selects(selector, &pod.namespace_labels),
        };
        right_namespace && (peer["podSelector"].is_null() || selects(&peer["podSelector"], &pod.labels))
    }

    fn is_port(&self, port: &Value) -> bool {
        let protocol = match port["protocol"].as_str() {
            None | Some("TCP") => 6,
            Some("UDP") => 17,
            _ => 132,
        };
        if protocol != self.question.protocol {
            return false;
        }
        match &port["port"] {
            Value::Null => true,
            Value::String(name) => self.is_named(name),
            number => {
                let first = number.as_u64().unwrap();
                (first..=port["endPort"].as_u64().unwrap_or(first)).contains(&u64::from(self.question.port))
            }
        }
    }

    // --- cilium.io/v2 ---

    fn cilium(&self, namespace: &str, spec: &Value) -> Found {
        let mut found = Found::default();
        let on_pod = self.cluster.pod(&self.question.subject).is_some();
        let subject = self.cluster.labels(&self.question.subject);
        let selected = match (&spec["endpointSelector"], &spec["nodeSelector"]) {
            (Value::Null, node) => self.question.subject == End::Host && by_labels(node, &subject),
            (endpoint, _) => {
                let own = format!("k8s:io.kubernetes.pod.namespace={namespace}");
                on_pod && (namespace.is_empty() || subject.contains(&own)) && by_labels(endpoint, &subject)
            }
        };
        if !selected {
            return found;
        }
        let (allow, deny, said) = if self.ingress() {
            ("ingress", "ingressDeny", "ingress")
        } else {
            ("egress", "egressDeny", "egress")
        };
        let (allow, deny) = (list(&spec[allow]), list(&spec[deny]));
        let mentioned = !allow.is_empty() || !deny.is_empty();
        found.isolates = mentioned && spec["enableDefaultDeny"][said].as_bool().unwrap_or(true);
        for rule in deny {
            found.denies |= self.holds(namespace, rule).0;
        }
        for rule in allow {
            let (plain, requests) = self.holds(namespace, rule);
            found.allows |= plain;
            found.requests |= requests;
        }
        found
    }

    /// Whether a rule holds for the connection, without and with requests to judge.
    fn holds(&self, namespace: &str, rule: &Value) -> (bool, bool) {
        let front = if self.ingress() { "from" } else { "to" };
        let field = |name: &str| &rule[format!("{front}{name}")];
        let names = ["Endpoints", "Entities", "CIDR", "CIDRSet"];
        let has_peers = names.iter().any(|name| !field(name).is_null());
        let (ports, icmps) = (list(&rule["toPorts"]), list(&rule["icmps"]));
        let has_ports = !ports.is_empty() || !icmps.is_empty();
        let world = matches!(self.question.peer, End::World(_));
        let address = self.cluster.address(&self.question.peer);
        let is_peer = list(field("Endpoints")).iter().any(|selector| self.is_endpoint(namespace, selector))
            || list(field("Entities")).iter().any(|entity| self.is_entity(text(entity)))
            || world && list(field("CIDR")).iter().any(|net| in_block(address, net, &Value::Null))
            || world
                && list(field("CIDRSet")).iter().any(|set| in_block(address, &set["cidr"], &set["except"]));
        if has_peers && !is_peer || !has_peers && !has_ports {
            return (false, false);
        }
        if !has_ports {
            return (true, false);
        }
        let icmp = icmps.iter().flat_map(|icmp| list(&icmp["fields"])).any(|field| {
            let protocol = if field["family"] == "IPv6" { 58 } else { 1 };
            (protocol, field["type"].as_u64().unwrap())
                == (self.question.protocol, u64::from(self.question.port))
        });
        let mut held = (icmp, false);
        for entry in ports {
            if list(&entry["ports"]).iter().any(|port| self.is_cilium_port(port)) {
                if entry["rules"].as_object().is_some_and(|rules| !rules.is_empty()) {
                    held.1 = true;
                } else {
                    held.0 = true;
                }
            }
        }
        held
    }

    fn is_endpoint(&self, namespace: &str, selector: &Value) -> bool {
        let labels = self.cluster.labels(&self.question.peer);
        let has = |wanted: &str| labels.iter().any(|label| label == wanted);
        if !by_labels(selector, &labels) {
            return false;
        }
        let empty = serde_json::Map::new();
        let equal = selector["matchLabels"].as_object().unwrap_or(&empty).keys().map(String::as_str);
        let expressions =
            list(&selector["matchExpressions"]).iter().map(|expression| text(&expression["key"]));
        let keys: Vec<&str> = equal.chain(expressions).collect();
        if keys.iter().any(|key| key.starts_with("reserved:")) {
            return true;
        }
        let bare = |key: &&str| key.split_once(':').map_or(*key, |(_, key)| key).to_owned();
        let about_namespace = keys.iter().map(bare).any(|key| {
            key == "io.kubernetes.pod.namespace" || key.starts_with("io.cilium.k8s.namespace.labels.")
        });
        let of_namespace = if namespace.is_empty() {
            !keys.is_empty()
                || labels.iter().any(|label| label.starts_with("k8s:io.kubernetes.pod.namespace="))
        } else {
            about_namespace || has(&format!("k8s:io.kubernetes.pod.namespace={namespace}"))
        };
        of_namespace && has("k8s:io.cilium.k8s.policy.cluster=default")
    }

    fn is_entity(&self, entity: &str) -> bool {
        let peer = &self.question.peer;
        match entity {
            "all" => true,
            "world" => matches!(peer, End::World(_)),
            "cluster" => !matches!(peer, End::World(_)),
            "host" => *peer == End::Host,
            "remote-node" => *peer == End::Remote,
            _ => false,
        }
    }

    fn is_cilium_port(&self, port: &Value) -> bool {
        let right = match port["protocol"].as_str() {
            None | Some("ANY") => [6, 17, 132].contains(&self.question.protocol),
            Some("TCP") => self.question.protocol == 6,
            Some("UDP") => self.question.protocol == 17,
            _ => self.question.protocol == 132,
        };
        let number = text(&port["port"]);
        right
            && match number.parse::<u16>() {
                Err(_) => self.is_named(&number.to_ascii_lowercase()),
                Ok(0) => true,
                Ok(first) => {
                    let last = port["endPort"].as_u64().filter(|last| *last != 0).unwrap_or(u64::from(first));
                    (u64::from(first)..=last).contains(&u64::from(self.question.port))
                }
            }
    }
}

/// Cilium's selectors, over labels with sources; a key without one is of any.
fn by_labels(selector: &Value, labels: &[String]) -> bool {
    let values = |key: &str| -> Vec<&str> {
        let (source, key) = match key.split_once(':') {
            None | Some(("any", _)) => ("", key.strip_prefix("any:").unwrap_or(key)),
            Some(pair) => pair,
        };
        let split = labels.iter().filter_map(|label| {
            let (own_source, rest) = label.split_once(':')?;
            let (own_key, value) = rest.split_once('=')?;
            ((source.is_empty() || source == own_source) && key == own_key).then_some(value)
        });
        split.collect()
    };
    let empty = serde_json::Map::new();
    let equal = selector["matchLabels"].as_object().unwrap_or(&empty);
    equal.iter().all(|(key, value)| values(key).contains(&text(value)))
        && list(&selector["matchExpressions"]).iter().all(|expression| {
            let found = values(text(&expression["key"]));
            let among = list(&expression["values"]).iter().any(|value| found.contains(&text(value)));
            match text(&expression["operator"]) {
                "In" => among,
                "NotIn" => !among,
                "Exists" => !found.is_empty(),
                _ => found.is_empty(),
            }
        })
}
