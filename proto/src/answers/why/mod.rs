//! `why`: what is known of the way from A to B, and what keeps A from reaching B.
//!
//! [`Why`] takes in flows and keeps counts by the server's port; [`report`](Why::report) judges each port.

mod causes;
mod dns;
mod port;
mod report;
mod route;
mod text;

pub use causes::Cause;
pub use dns::{DnsTold, Name};
pub use report::{Drop, IcmpDrop, Outcome, Port, Report};
pub use route::Route;

use super::{
    about::{About, Time},
    ends, fields,
    groups::Groups,
};
use crate::{
    Facts,
    flow::{Flow, Verdict, layer4::Protocol},
    stats,
    text::parts::End,
};
use port::{DropKey, DropSums, PortState};
use route::Way;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Ports that are judged each by itself; flows of further ones are counted.
const MOST_PORTS: usize = 128;
/// Kinds of drops of one port, service backends, ICMP errors: each of them.
const MOST_ROWS: usize = 64;
/// Connections whose retransmits are remembered.
const MOST_CONNECTIONS: usize = 16_384;
/// Other ports and other peers that are named.
const MOST_NAMES: usize = 8;

/// Protocol and the server's port.
type PortKey = (String, u32);

/// A backend that a service's flows went to.
#[derive(Clone, Copy, Debug, Default)]
struct Backend {
    flows: u64,
    answers: u64,
    drops: u64,
}

/// What was seen of somebody at all.
#[derive(Clone, Debug, Default)]
struct Seen {
    flows: u64,
    /// With whom, besides the other of both.
    peers: BTreeSet<String>,
    /// Answers that B gave to others on the port asked for.
    answers_to_others: u64,
}

/// All that is known of a question.
#[derive(Debug)]
pub struct Why {
    about: About,
    route: Route,
    ports: BTreeMap<PortKey, PortState>,
    /// Flows of further ports.
    unjudged: u64,
    /// By service and frontend, then by backend.
    services: BTreeMap<(String, String), BTreeMap<String, Backend>>,
    /// Those in front of B; others that A calls are no part of the answer.
    asked: BTreeSet<String>,
    /// Who stands behind them, as the server is told.
    behind: BTreeMap<String, stats::Service>,
    /// From whom and what, to A.
    icmp_errors: BTreeMap<(String, String), u64>,
    /// Those that did not get there, with what dropped them.
    icmp_drops: Groups<(String, String, DropKey), DropSums>,
    retransmits: HashMap<(String, u32, String, u32), u64>,
    policies: BTreeMap<(String, &'static str), u64>,
    dns: dns::Asker,
    /// Of B, and of what stands for it, as flows have them.
    addresses_of_b: BTreeSet<String>,
    other_ports: BTreeSet<PortKey>,
    /// Flows that B opened to A.
    called_by_b: u64,
    untold: u64,
    a: Seen,
    b: Seen,
}

impl Why {
    /// Nothing is known yet; `about` says who counts.
    pub fn new(route: Route, about: About) -> Self {
        Self {
            about,
            route,
            ports: BTreeMap::new(),
            unjudged: 0,
            services: BTreeMap::new(),
            asked: BTreeSet::new(),
            behind: BTreeMap::new(),
            icmp_errors: BTreeMap::new(),
            icmp_drops: Groups::new(MOST_ROWS),
            retransmits: HashMap::new(),
            policies: BTreeMap::new(),
            dns: dns::Asker::default(),
            addresses_of_b: BTreeSet::new(),
            other_ports: BTreeSet::new(),
            called_by_b: 0,
            untold: 0,
            a: Seen::default(),
            b: Seen::default(),
        }
    }

    /// The services in front of B, those that the question names and those of the flows.
    pub fn services(&self) -> Vec<String> {
        let all: BTreeSet<&str> =
            self.route.services().chain(self.asked.iter().map(String::as_str)).collect();
        all.into_iter().take(MOST_ROWS).map(str::to_owned).collect()
    }

    /// Takes in who stands behind these.
    pub fn behind(&mut self, services: Vec<stats::Service>) {
        self.behind.extend(services.into_iter().map(|service| (service.name.clone(), service)));
    }

    /// Flows that did not come.
    pub fn lost(&mut self, flows: u64) {
        self.about.lost += flows;
    }

    /// Takes in any flow; those that have nothing to do with A or B only count.
    pub fn flow(&mut self, flow: &Flow) {
        self.about.flow(flow);
        let Some(way) = self.route.way(flow) else { return };
        match way {
            Way::There | Way::Back => self.between(flow, way == Way::Back),
            Way::OtherPortThere | Way::OtherPortBack => {
                self.see_both();
                if self.other_ports.len() < MOST_NAMES && icmp_error(flow).is_none() {
                    let (_, server) = ends::callers(flow);
                    self.other_ports.insert((ends::protocol(flow).to_owned(), server.port(flow)));
                }
                self.icmp(flow, way);
            }
            Way::FromA | Way::ToA => {
                self.a.flows += 1;
                let peer = if way == Way::FromA { End::Destination } else { End::Source };
                add_name(&mut self.a.peers, ends::shown(flow, peer));
                self.icmp(flow, way);
                self.dns.flow(flow);
                // Other backends of a service that A calls.
                self.service(flow);
            }
            Way::WithB => {
                self.b.flows += 1;
                let (client, server) = ends::callers(flow);
                // Whom others reach.
                self.address_of_b(self.route.address_of_b(flow));
                let is_answer = server == End::Source && !is_reset(flow) && !ends::is_drop(flow);
                self.b.answers_to_others += u64::from(is_answer && icmp_error(flow).is_none());
                add_name(&mut self.b.peers, ends::shown(flow, client));
            }
        }
    }

    fn address_of_b(&mut self, address: &str) {
        if self.addresses_of_b.len() < MOST_ROWS && !address.is_empty() {
            self.addresses_of_b.insert(address.to_owned());
        }
    }

    fn see_both(&mut self) {
        self.a.flows += 1;
        self.b.flows += 1;
    }

    fn between(&mut self, flow: &Flow, is_back: bool) {
        self.see_both();
        self.dns.flow(flow);
        if self.icmp(flow, if is_back { Way::Back } else { Way::There }) {
            return;
        }
        let (client, server) = ends::callers(flow);
        // Who called is the other end of this question.
        if (client == End::Source) == is_back {
            self.called_by_b += 1;
            return;
        }
        self.policies(flow);
        // A verdict is no packet: what became of that other flows tell.
        if ends::is_verdict(flow) && !ends::is_drop(flow) {
            return;
        }
        let facts = Facts::of(flow);
        // What is no packet tells of none.
        self.untold += u64::from(!facts.known && !ends::is_apart(flow));
        self.address_of_b(ends::address(flow, server));
        self.address_of_b(facts.frontend.rsplit_once(':').map_or("", |(ip, _)| ip.trim_matches(['[', ']'])));
        self.service(flow);
        if self.asked.len() < MOST_ROWS {
            self.asked.insert(ends::service(flow, server));
        }
        self.retransmits(flow, &facts, client, server);
        let key = (ends::protocol(flow).to_owned(), server.port(flow));
        if self.ports.len() >= MOST_PORTS && !self.ports.contains_key(&key) {
            self.unjudged += 1;
            return;
        }
        let port = self.ports.entry(key).or_default();
        let time = Time(flow.time);
        if ends::is_drop(flow) {
            port.drops.add(drop_key(flow, &facts, is_back), drop_sums(flow, &facts));
            return;
        }
        port.failed_connects += u64::from(facts.connect_failed);
        if !is_back {
            port.there += 1;
            port.delivered += u64::from(
                flow.trace_observation_point == crate::flow::TraceObservationPoint::ToEndpoint as i32,
            );
            port.resets_by_client += u64::from(is_reset(flow));
            port.last_there.later(flow.time);
        } else if is_reset(flow) && (port.answers == 0 || facts.packets == 1) {
            port.refused += 1;
            port.last_refused.later(time.0);
        } else if is_reset(flow) {
            port.resets_by_server += 1;
        } else {
            port.answers += 1;
            port.first_answer.earlier(time.0);
            port.last_answer.later(time.0);
        }
    }

    /// Whether it is an ICMP error, which tells of another packet.
    fn icmp(&mut self, flow: &Flow, way: Way) -> bool {
        let Some(error) = icmp_error(flow) else { return false };
        if !matches!(way, Way::Back | Way::ToA | Way::OtherPortBack) || !self.route.is_of_family(flow) {
            return true;
        }
        let from = ends::shown(flow, End::Source);
        if ends::is_drop(flow) {
            let facts = Facts::of(flow);
            let key = (from, error, drop_key(flow, &facts, true));
            self.icmp_drops.add(key, drop_sums(flow, &facts));
            return true;
        }
        let key = (from, error);
        if self.icmp_errors.len() < MOST_ROWS || self.icmp_errors.contains_key(&key) {
            *self.icmp_errors.entry(key).or_default() += 1;
        }
        if way != Way::ToA {
            self.ports.values_mut().for_each(|port| port.icmp_errors += 1);
        }
        true
    }

    fn policies(&mut self, flow: &Flow) {
        let lists = [
            (&flow.ingress_denied_by, "denied"),
            (&flow.egress_denied_by, "denied"),
            (&flow.ingress_allowed_by, "allowed"),
            (&flow.egress_allowed_by, "allowed"),
        ];
        let is_audit = flow.verdict == Verdict::Audit as i32;
        for (list, word) in lists {
            for policy in list {
                let word = if is_audit && word == "denied" { "would deny" } else { word };
                let key = (fields::policy(policy), word);
                if self.policies.len() < MOST_ROWS || self.policies.contains_key(&key) {
                    *self.policies.entry(key).or_default() += 1;
                }
            }
        }
    }

    /// The backend that a flow through a service went to, or came from.
    fn service(&mut self, flow: &Flow) {
        let (_, server) = ends::callers(flow);
        let service = ends::service(flow, server);
        if service.is_empty() {
            return;
        }
        let key = (service, Facts::of(flow).frontend);
        if self.services.len() >= MOST_ROWS && !self.services.contains_key(&key) {
            return;
        }
        let backends = self.services.entry(key).or_default();
        let pod = ends::pod(flow, server);
        let name = if pod.is_empty() { ends::address(flow, server).to_owned() } else { pod };
        let name = format!("{name}:{}", server.port(flow));
        if backends.len() >= MOST_ROWS && !backends.contains_key(&name) {
            return;
        }
        let backend = backends.entry(name).or_default();
        if ends::is_drop(flow) {
            backend.drops += 1;
        } else if server == End::Source {
            backend.answers += u64::from(!is_reset(flow));
        } else {
            backend.flows += 1;
        }
    }

    /// Each record has its connection's sum.
    fn retransmits(&mut self, flow: &Flow, facts: &Facts, client: End, server: End) {
        if facts.retransmits == 0 {
            return;
        }
        let side = |end: End| (ends::address(flow, end).to_owned(), end.port(flow));
        let ((client, client_port), (server, server_port)) = (side(client), side(server));
        let key = (client, client_port, server, server_port);
        if self.retransmits.len() < MOST_CONNECTIONS || self.retransmits.contains_key(&key) {
            let sum = self.retransmits.entry(key).or_default();
            *sum = facts.retransmits.max(*sum);
        }
    }
}

fn add_name(names: &mut BTreeSet<String>, name: String) {
    if names.len() < MOST_NAMES && !name.is_empty() {
        names.insert(name);
    }
}

fn is_reset(flow: &Flow) -> bool {
    match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
        Some(Protocol::Tcp(tcp)) => tcp.flags.is_some_and(|flags| flags.rst),
        _ => false,
    }
}

/// Its name, if it is one: RFC 792, RFC 4443.
fn icmp_error(flow: &Flow) -> Option<String> {
    let is_error = match flow.l4.as_ref()?.protocol.as_ref()? {
        Protocol::IcmPv4(icmp) => matches!(icmp.r#type, 3 | 4 | 5 | 11 | 12),
        Protocol::IcmPv6(icmp) => matches!(icmp.r#type, 1..=4),
        _ => false,
    };
    #[expect(deprecated, reason = "it is the field that every Hubble fills and prints")]
    is_error.then(|| flow.summary.clone())
}

fn drop_key(flow: &Flow, facts: &Facts, is_back: bool) -> DropKey {
    DropKey {
        cause: Cause::of(flow, facts),
        is_back,
        reason: causes::reason(flow, &facts.kernel_reason),
        location: facts.kernel_location.clone(),
        node: flow.node_name.strip_prefix("default/").unwrap_or(&flow.node_name).to_owned(),
        policies: fields::policies(flow),
        to: ends::shown(flow, End::Destination),
        address: ends::address(flow, End::Destination).to_owned(),
    }
}

fn drop_sums(flow: &Flow, facts: &Facts) -> DropSums {
    let time = Time(flow.time);
    // A verdict's packet has a flow of its own.
    let flows = u64::from(!ends::is_verdict(flow));
    DropSums {
        flows,
        packets: facts.packets,
        untold: flows * u64::from(!facts.known),
        first: time,
        last: time,
    }
}
