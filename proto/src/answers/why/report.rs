//! The judgement: what keeps A from reaching B on each port, and what was not seen.

use super::{
    DropKey, DropSums, PortKey, PortState, Why,
    causes::{Cause, Place},
    dns::DnsTold,
};
use crate::{
    answers::{
        about::{About, Time},
        ends,
    },
    stats,
};
use serde::Serialize;

/// How a port goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Packets are dropped, and no answer came since.
    Blocked,
    /// The server's side answers with a reset or an ICMP error.
    Refused,
    /// Packets go there, and nothing comes back.
    Unanswered,
    /// Some packets are dropped, others are answered.
    PartlyDropped,
    /// Answered; connections were reset by the server.
    Reset,
    /// Answered; segments had to be sent again.
    Lossy,
    /// Answered.
    Answered,
    /// No packet of it was seen.
    NotSeen,
}

impl Outcome {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Blocked => "BLOCKED",
            Self::Refused => "REFUSED",
            Self::Unanswered => "UNANSWERED",
            Self::PartlyDropped => "PARTLY DROPPED",
            Self::Reset => "RESET",
            Self::Lossy => "LOSSY",
            Self::Answered => "ANSWERED",
            Self::NotSeen => "NOT SEEN",
        }
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// `9000/TCP`.
    pub port: String,
    /// How it goes.
    pub outcome: Outcome,
    /// Why, where packets are dropped.
    pub cause: Option<Cause>,
    /// The outcome in a sentence.
    pub sentence: String,
    /// Where to look next.
    pub advice: Option<String>,
    /// Flows to the server that were not dropped.
    pub flows: u64,
    /// Flows of its answers.
    pub answers: u64,
    /// When the last answer came.
    pub last_answer: Time,
    /// Resets in place of an answer.
    pub refused: u64,
    /// Connections reset by the client.
    pub resets_by_client: u64,
    /// Connections reset by the server, after answers.
    pub resets_by_server: u64,
    /// Connects that nobody answered; none where the server doesn't tell.
    pub failed_connects: Option<u64>,
    /// What was dropped, the newest first.
    pub drops: Vec<Drop>,
}

/// One kind of drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drop {
    /// What the reason means.
    pub cause: Cause,
    /// Whether answers were dropped rather than packets to the server.
    pub is_answer: bool,
    /// The kernel's reason, else Hubble's words.
    pub reason: String,
    /// `symbol+0xoffset`; none where the server doesn't tell.
    pub kernel_location: Option<String>,
    /// The policies that deny it.
    pub policies: Vec<String>,
    /// The node that dropped it.
    pub node: String,
    /// Whom it was for.
    pub to: String,
    /// Whose address that is.
    pub address: String,
    /// Packets; none where the server doesn't tell.
    pub packets: Option<u64>,
    /// Flows that told of them.
    pub flows: u64,
    /// When the first was.
    pub first: Time,
    /// When the last was.
    pub last: Time,
}

/// A dropped ICMP error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IcmpDrop {
    /// Its kind and its sender.
    pub what: String,
    /// `ICMPv4` or `ICMPv6`.
    pub protocol: String,
    /// What dropped it.
    #[serde(flatten)]
    pub drop: Drop,
}

/// A service in front of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// `namespace/name`.
    pub name: String,
    /// The address that was called; none where the server doesn't tell.
    pub frontend: Option<String>,
    /// Backends that its flows went to.
    pub backends: Vec<Backend>,
    /// Who stands behind it; none where the server isn't told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// Who stands behind a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoints {
    /// Those that are ready first.
    pub known: Vec<Endpoint>,
    /// How many there are besides.
    pub more: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Address and ports.
    pub address: String,
    /// Whether it is called: `ready`, `draining` or `not ready`.
    pub state: String,
    /// `namespace/name` of the pod; empty where it is none.
    pub pod: String,
}

impl Endpoints {
    fn new(of: &stats::Service) -> Self {
        let known = of.backends.iter().map(|one| {
            let ports: Vec<String> = one.ports.iter().map(u32::to_string).collect();
            let bracketed =
                if one.address.contains(':') { format!("[{}]", one.address) } else { one.address.clone() };
            let address = if ports.is_empty() {
                one.address.clone()
            } else {
                format!("{bracketed}:{}", ports.join(","))
            };
            Endpoint { address, state: one.state.clone(), pod: one.pod.clone() }
        });
        Self { known: known.collect(), more: of.more }
    }

    /// Whether nobody is called. Those that are not told come later than the others.
    fn are_idle(&self) -> bool {
        self.known.iter().all(|one| one.state == NOT_READY)
    }
}

const NOT_READY: &str = "not ready";

/// One backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Pod or address, and port.
    pub name: String,
    /// Flows to it.
    pub flows: u64,
    /// Flows of its answers.
    pub answers: u64,
    /// Drops.
    pub drops: u64,
}

/// Something with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// What.
    pub what: String,
    /// How many flows told of it.
    pub flows: u64,
}

/// The page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The question in words.
    pub question: String,
    /// How the port of most trouble goes.
    pub outcome: Outcome,
    /// In a sentence.
    pub sentence: String,
    /// Where to look next.
    pub advice: Option<String>,
    /// Of most trouble first.
    pub ports: Vec<Port>,
    /// Flows of ports beyond those that are judged.
    pub unjudged: u64,
    /// Segments that were sent again; none where the server doesn't tell.
    pub retransmits: Option<u64>,
    /// ICMP errors that A received, by sender and kind.
    pub icmp_errors: Vec<Counted>,
    /// ICMP errors for A that were dropped, by sender and kind, and by what.
    pub icmp_drops: Vec<IcmpDrop>,
    /// Services in front of B.
    pub services: Vec<Service>,
    /// Policies of the flows between both, or null: not observed.
    pub policies: Option<Vec<Counted>>,
    /// What A asked DNS, or null: not observed.
    pub dns: Option<DnsTold>,
    /// What was looked for and not seen.
    pub not_seen: Vec<String>,
    /// What all this is from.
    pub about: About,
}

impl Why {
    /// What is known by now.
    pub fn report(&self) -> Report {
        let mut ports: Vec<Port> = self.ports.iter().map(|(key, port)| self.judge(key, port)).collect();
        ports.sort_by(|a, b| a.outcome.cmp(&b.outcome).then(b.drops.len().cmp(&a.drops.len())));
        let is_told = self.untold == 0 && self.about.flows > 0;
        let dns = self.dns.told(|name, addresses| {
            self.route.names_b(name, addresses) || !self.addresses_of_b.is_disjoint(addresses)
        });
        let blame = dns.as_ref().and_then(DnsTold::blame);
        let (outcome, sentence, advice) = match (ports.first(), blame) {
            (Some(worst), _) => (worst.outcome, worst.sentence.clone(), worst.advice.clone()),
            (None, Some((sentence, advice))) => (Outcome::NotSeen, sentence, Some(advice)),
            (None, None) => (Outcome::NotSeen, self.unseen(), None),
        };
        let counted = |what: &str, flows: &u64| Counted { what: what.to_owned(), flows: *flows };
        let policies =
            self.policies.iter().map(|((name, word), flows)| counted(&format!("{word} by {name}"), flows));
        let asked = self.services.iter().filter(|((service, _), _)| self.asked.contains(service));
        let endpoints = |service: &str| self.behind.get(service).map(Endpoints::new);
        let seen = asked.map(|((service, frontend), backends)| Service {
            name: service.clone(),
            frontend: (!frontend.is_empty()).then(|| frontend.clone()),
            endpoints: endpoints(service),
            backends: backends
                .iter()
                .map(|(name, backend)| Backend {
                    name: name.clone(),
                    flows: backend.flows,
                    answers: backend.answers,
                    drops: backend.drops,
                })
                .collect(),
        });
        let is_seen = |name: &String| self.services.keys().any(|(service, _)| service == name);
        let unseen = self.behind.keys().filter(|name| !(is_seen(name) && self.asked.contains(*name)));
        let unseen = unseen.map(|name| Service {
            name: name.clone(),
            frontend: None,
            backends: Vec::new(),
            endpoints: endpoints(name),
        });
        let services: Vec<Service> = seen.chain(unseen).collect();
        let idle = services.iter().find(|one| one.endpoints.as_ref().is_some_and(Endpoints::are_idle));
        let advice = match idle {
            Some(Service { name, .. }) if outcome <= Outcome::Unanswered || outcome == Outcome::NotSeen => {
                Some(format!(
                    "no endpoint of the service {name} is ready: kubectl get endpointslices, and the pods' readiness probes"
                ))
            }
            _ => advice,
        };
        let errors = self.icmp_errors.iter();
        let (dropped, _) = self.icmp_drops.heaviest(usize::MAX);
        let dropped = dropped.into_iter().map(|((from, kind, key), sums)| IcmpDrop {
            what: format!("{kind} from {from}"),
            protocol: kind.split(' ').next().unwrap_or_default().to_owned(),
            drop: told(key, sums),
        });
        Report {
            question: self.route.question(),
            outcome,
            sentence,
            advice,
            not_seen: self.not_seen(&ports),
            ports,
            unjudged: self.unjudged,
            retransmits: is_told.then(|| self.retransmits.values().sum()),
            icmp_errors: errors
                .map(|((from, kind), flows)| counted(&format!("{kind} from {from}"), flows))
                .collect(),
            icmp_drops: dropped.collect(),
            services,
            policies: (!self.policies.is_empty()).then(|| policies.collect()),
            dns,
            about: self.about.clone(),
        }
    }

    fn judge(&self, key: &PortKey, port: &PortState) -> Port {
        let name = ends::port(&key.0, key.1);
        let (mut drops, _) = port.drops.heaviest(usize::MAX);
        drops.sort_by_key(|(_, sums)| std::cmp::Reverse(sums.last.0.map(|time| (time.seconds, time.nanos))));
        let retransmits: u64 = self
            .retransmits
            .iter()
            .filter(|((.., server_port), _)| *server_port == key.1 && key.0 == "TCP")
            .map(|(_, sum)| *sum)
            .sum();
        let outcome = outcome(port, &drops, retransmits);
        let newest = drops.first().map(|(key, _)| key);
        let is_told = self.untold == 0;
        let (sentence, advice) = sentence(&name, port, outcome, newest, retransmits);
        Port {
            outcome,
            cause: newest
                .map(|key| key.cause)
                .filter(|_| matches!(outcome, Outcome::Blocked | Outcome::PartlyDropped)),
            sentence,
            advice,
            flows: port.there,
            answers: port.answers,
            last_answer: port.last_answer,
            refused: port.refused,
            resets_by_client: port.resets_by_client,
            resets_by_server: port.resets_by_server,
            failed_connects: is_told.then_some(port.failed_connects),
            drops: drops.into_iter().map(|(key, sums)| told(key, sums)).collect(),
            port: name,
        }
    }

    /// Why no port is judged.
    fn unseen(&self) -> String {
        match (self.a.flows, self.b.flows) {
            _ if self.about.flows == 0 => "no flow was seen at all".to_owned(),
            (0, 0) => "neither was seen: are both names right, and does one of the nodes asked see them?".to_owned(),
            (0, _) => "the first was not seen, with anybody: is its name right, and is its node asked?".to_owned(),
            _ if !self.other_ports.is_empty() => {
                let ports: Vec<String> = self.other_ports.iter().map(|(protocol, port)| ends::port(protocol, *port)).collect();
                format!("no packet for this port was seen; between both were flows on {}", ports.join(", "))
            }
            _ if self.called_by_b > 0 => "only the second calls the first; no call the other way was seen".to_owned(),
            _ => "the first sent nothing to the second that was seen: it does not try, its packets end before they leave it, or they go elsewhere".to_owned(),
        }
    }

    fn not_seen(&self, ports: &[Port]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |is: bool, text: String| {
            if is {
                lines.push(text);
            }
        };
        line(self.a.flows == 0, "the first of both, in any flow".to_owned());
        line(self.b.flows == 0, "the second of both, in any flow".to_owned());
        line(ports.is_empty() && self.a.flows > 0 && self.b.flows > 0, "a packet between both".to_owned());
        line(!ports.is_empty() && ports.iter().all(|port| port.answers == 0), "an answer".to_owned());
        let is_dropped = ports.iter().any(|port| !port.drops.is_empty());
        let is_error_dropped = || !self.icmp_drops.heaviest(1).0.is_empty();
        line(!ports.is_empty() && !is_dropped && !is_error_dropped(), "a drop".to_owned());
        line(
            ports.iter().any(|port| port.outcome <= Outcome::Unanswered) && self.b.answers_to_others == 0,
            "an answer of the second to anybody else on this port".to_owned(),
        );
        lines
    }
}

fn outcome(port: &PortState, drops: &[(DropKey, DropSums)], retransmits: u64) -> Outcome {
    // Where answers came only after all drops, what dropped them is gone.
    let are_over = port.answers > 0 && drops.iter().all(|(_, sums)| port.first_answer.is_after(sums.last));
    if !drops.is_empty() && !are_over {
        let came_later = drops.iter().all(|(_, sums)| sums.first.is_after(port.last_answer));
        return if port.answers == 0 || came_later { Outcome::Blocked } else { Outcome::PartlyDropped };
    }
    let has_no_later_answer = port.answers == 0 || port.last_refused.is_after(port.last_answer);
    if port.refused > 0 && has_no_later_answer || port.answers == 0 && port.icmp_errors > 0 {
        return Outcome::Refused;
    }
    match port.answers {
        0 => Outcome::Unanswered,
        _ if port.resets_by_server > 0 => Outcome::Reset,
        _ if retransmits > 0 => Outcome::Lossy,
        _ => Outcome::Answered,
    }
}

fn sentence(
    name: &str,
    port: &PortState,
    outcome: Outcome,
    newest: Option<&DropKey>,
    retransmits: u64,
) -> (String, Option<String>) {
    let of_drop = newest.map(|key| {
        let place = Place {
            node: &key.node,
            to: &key.to,
            address: &key.address,
            port: name,
            reason: &key.reason,
            is_told: port.refused > 0,
            policies: &key.policies,
        };
        let way = if key.is_back { "an answer is dropped: " } else { "" };
        (format!("{way}{}", key.cause.sentence(&place)), key.cause.advice(&place))
    });
    let is_datagrams = !name.ends_with("TCP");
    match (outcome, of_drop) {
        (Outcome::Blocked, Some((text, advice))) => (text, Some(advice)),
        (Outcome::PartlyDropped, Some((text, advice))) => {
            let of_requests = newest.is_some_and(|key| key.cause == Cause::Request);
            let so_far =
                if of_requests { "the server answers, but" } else { "some packets are dropped, others answered:" };
            (format!("{so_far} {text}"), Some(advice))
        }
        (Outcome::Refused, _) if port.refused > 0 => (
            format!("{} connects were answered with a reset: nothing listens on {name}, or a firewall rejects it; no drop was seen", port.refused),
            Some("on the server: ss -ltn; on its node: nft list ruleset, and is the daemon there to see drops?".to_owned()),
        ),
        (Outcome::Refused, _) => (
            "it was answered with ICMP errors; no drop was seen".to_owned(),
            Some("the errors below say who sent them and why".to_owned()),
        ),
        (Outcome::Unanswered, _) if port.delivered > 0 => (
            format!(
                "packets are delivered to the server, which answers nothing{}",
                if is_datagrams { " (some protocols need no answer)" } else { "" }
            ),
            Some("on the server: is the program hung, its accept queue full, or does its answer take another way?".to_owned()),
        ),
        (Outcome::Unanswered, _) => (
            "packets leave for the server, and no answer comes back to where flows were seen".to_owned(),
            Some("ask the server's node too, or a relay: does the packet arrive there?".to_owned()),
        ),
        (Outcome::Reset, _) => (
            format!("the server answers, and reset {} connections", port.resets_by_server),
            Some("on the server: its log, at the times of the resets".to_owned()),
        ),
        (Outcome::Lossy, _) => (
            format!("the server answers; {retransmits} segments were sent again: packets get lost on the way"),
            Some("observe -f --verdict DROPPED on the nodes between; ip -s link".to_owned()),
        ),
        (_, _) => (format!("it can: the server answers; the last at {}", port.last_answer.text()), None),
    }
}

fn told(key: DropKey, sums: DropSums) -> Drop {
    Drop {
        cause: key.cause,
        is_answer: key.is_back,
        reason: key.reason,
        kernel_location: (!key.location.is_empty()).then_some(key.location),
        policies: key.policies.split_whitespace().map(str::to_owned).collect(),
        node: key.node,
        to: key.to,
        address: key.address,
        packets: (sums.untold == 0 && sums.flows > 0).then_some(sums.packets),
        flows: sums.flows,
        first: sums.first,
        last: sums.last,
    }
}
