//! The answers of the statistics service made of flows that were read, for a server that doesn't count: the same messages,
//! so that whoever shows them shows both.

use super::{
    ends, fields,
    groups::{Counts, Groups},
    signals::Signals,
    volume::{Connections, Volume},
};
use crate::{
    Facts,
    flow::{Flow, Policy, TrafficDirection, Verdict},
    stats::{
        DropCount, Edge, GetDropsResponse, GetEdgesResponse, GetPoliciesResponse, GetSignalsResponse,
        GetTalkersResponse, PolicyCount, Talker, Window,
    },
    text::parts::{End, deciding},
};
use std::{hash::Hash, ops::AddAssign};

/// Rows kept of each answer.
const MOST: usize = 1024;

/// Which answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Drops by reason and pair.
    Drops,
    /// Who calls whom.
    Edges,
    /// Who talks most.
    Talkers,
    /// Verdicts by policies.
    Policies,
    /// HTTP and DNS.
    Signals,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Drops by reason and pair.
    Drops(GetDropsResponse),
    /// Who calls whom.
    Edges(GetEdgesResponse),
    /// Who talks most.
    Talkers(GetTalkersResponse),
    /// Verdicts by policies.
    Policies(GetPoliciesResponse),
    /// HTTP and DNS.
    Signals(Box<GetSignalsResponse>),
}

/// Of any row; each answer reads what it has.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    flows: u64,
    received_flows: u64,
    sent: Volume,
    received: Volume,
    /// Drops, errors, or denied.
    bad: u64,
    audited: u64,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.flows += other.flows;
        self.received_flows += other.received_flows;
        self.sent += other.sent;
        self.received += other.received;
        self.bad += other.bad;
        self.audited += other.audited;
    }
}

impl Counts for Sums {
    fn weight(&self) -> (u64, u64) {
        (self.sent.bytes + self.received.bytes, self.flows + self.received_flows)
    }
}

/// Names, protocol, port; what an answer doesn't have is empty.
type Key = (Vec<String>, &'static str, u32);

/// Takes in flows.
#[derive(Debug)]
pub struct Counter {
    topic: Topic,
    window: Window,
    groups: Groups<Key, Sums>,
    connections: Connections,
    signals: Signals,
    untold: u64,
}

impl Counter {
    /// Bytes count from `since` on.
    pub fn new(topic: Topic, since: Option<prost_types::Timestamp>) -> Self {
        Self {
            topic,
            window: Window { from: since, ..Window::default() },
            groups: Groups::new(MOST),
            connections: Connections::new(since),
            signals: Signals::default(),
            untold: 0,
        }
    }

    /// Takes in a flow.
    pub fn flow(&mut self, flow: &Flow) {
        if ends::is_verdict(flow) {
            self.window.policy_verdicts += 1;
            if self.topic == Topic::Policies {
                self.verdict(flow);
            }
            return;
        }
        if ends::is_l7(flow) {
            let is_counted = self.topic == Topic::Signals && self.signals.flow(flow);
            self.window.l7 += u64::from(is_counted);
            // One that was refused is a drop, of which no packet tells.
            if self.topic != Topic::Drops || !ends::is_drop(flow) {
                return;
            }
        }
        self.window.flows += 1;
        if matches!(self.topic, Topic::Policies | Topic::Signals) {
            return;
        }
        let facts = Facts::of(flow);
        let volume = self.connections.new_of(flow, &facts);
        self.untold += volume.silent();
        let is_drop = ends::is_drop(flow);
        let moved = if is_drop { Volume::default() } else { volume };
        let bad = u64::from(is_drop);
        match self.topic {
            Topic::Drops if is_drop => {
                let reason = ends::reason(flow, &facts.kernel_reason).into_owned();
                let [source, destination] =
                    [End::Source, End::Destination].map(|end| ends::workload(flow, end));
                self.add(
                    (vec![reason, source, destination], "", 0),
                    Sums { flows: 1, sent: volume, ..Sums::default() },
                );
            }
            Topic::Drops | Topic::Policies | Topic::Signals => {}
            Topic::Edges => {
                let (client, server) = ends::callers(flow);
                let names = vec![ends::workload(flow, client), ends::workload(flow, server)];
                let errors = u64::from(is_drop || facts.connect_failed);
                let sums = Sums { flows: 1, sent: moved, bad: errors, ..Sums::default() };
                self.add((names, ends::protocol(flow), server.port(flow)), sums);
            }
            Topic::Talkers => {
                let name = |end| (vec![ends::workload(flow, end)], "", 0);
                self.add(name(End::Source), Sums { flows: 1, sent: moved, bad, ..Sums::default() });
                let sums = Sums { received_flows: 1, received: moved, bad, ..Sums::default() };
                self.add(name(End::Destination), sums);
            }
        }
    }

    fn verdict(&mut self, flow: &Flow) {
        let full = |policy| {
            let policy: &Policy = policy;
            format!("{} {}", policy.kind, fields::policy(policy)).trim_start().to_owned()
        };
        let mut names: Vec<String> = deciding(flow).iter().map(full).collect();
        names.sort();
        let (bad, audited) = match flow.verdict() {
            Verdict::Dropped | Verdict::Error => (1, 0),
            Verdict::Audit => (0, 1),
            _ => (0, 0),
        };
        let direction = match flow.traffic_direction() {
            TrafficDirection::Ingress => "ingress",
            TrafficDirection::Egress => "egress",
            TrafficDirection::Unknown => "",
        };
        self.add((names, direction, 0), Sums { flows: 1, bad, audited, ..Sums::default() });
    }

    fn add(&mut self, key: Key, sums: Sums) {
        self.groups.add(key, sums);
    }

    /// Flows that did not come.
    pub fn lost(&mut self, flows: u64) {
        self.window.lost += flows;
    }

    /// Whether packets and bytes are known: only Observer's daemon tells them.
    pub fn tells_bytes(&self) -> bool {
        self.untold == 0 || self.untold < self.window.flows
    }

    /// The rows, and the sum of those that there was no room for.
    pub fn answer(&self, until: Option<prost_types::Timestamp>) -> Answer {
        let window = Some(Window { until, ..self.window });
        match self.topic {
            Topic::Drops => {
                let (drops, other) = rows(&self.groups, drop_count);
                Answer::Drops(GetDropsResponse { window, drops, other })
            }
            Topic::Edges => {
                let (edges, other) = rows(&self.groups, edge);
                Answer::Edges(GetEdgesResponse { window, edges, other })
            }
            Topic::Talkers => {
                let (talkers, other) = rows(&self.groups, talker);
                Answer::Talkers(GetTalkersResponse { window, talkers, other })
            }
            Topic::Policies => {
                let (policies, other) = rows(&self.groups, policy);
                Answer::Policies(GetPoliciesResponse { window, policies, other, ..Default::default() })
            }
            Topic::Signals => Answer::Signals(Box::new(self.signals.answer(window))),
        }
    }
}

fn rows<K: Clone + Default + Eq + Hash + Ord, R>(
    groups: &Groups<K, Sums>,
    row: fn(K, Sums) -> R,
) -> (Vec<R>, Option<R>) {
    let (heaviest, other) = groups.heaviest(MOST);
    let told = heaviest.into_iter().map(|(key, sums)| row(key, sums)).collect();
    (told, (other.rows > 0).then(|| row(K::default(), other.counts)))
}

fn name(names: &mut [String], at: usize) -> String {
    names.get_mut(at).map(std::mem::take).unwrap_or_default()
}

fn drop_count((mut names, ..): Key, sums: Sums) -> DropCount {
    let [reason, source, destination] = [0, 1, 2].map(|at| name(&mut names, at));
    let Volume { packets, bytes, .. } = sums.sent;
    DropCount { reason, source, destination, packets, bytes, flows: sums.flows, trend: Vec::new() }
}

fn edge((mut names, protocol, port): Key, sums: Sums) -> Edge {
    let [client, server] = [0, 1].map(|at| name(&mut names, at));
    let (protocol, bytes) = (protocol.to_owned(), sums.sent.bytes);
    Edge { client, server, protocol, port, flows: sums.flows, bytes, errors: sums.bad }
}

fn talker((mut names, ..): Key, sums: Sums) -> Talker {
    Talker {
        name: name(&mut names, 0),
        sent_flows: sums.flows,
        received_flows: sums.received_flows,
        sent_bytes: sums.sent.bytes,
        received_bytes: sums.received.bytes,
        drops: sums.bad,
        trend: Vec::new(),
    }
}

fn policy((policies, direction, _): Key, sums: Sums) -> PolicyCount {
    PolicyCount {
        policies,
        direction: direction.to_owned(),
        allowed: sums.flows - sums.bad - sums.audited,
        audited: sums.audited,
        denied: sums.bad,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{CiliumEventType, Endpoint, Http, Layer7, layer7::Record};

    fn flow(source: &str, destination: &str, verdict: Verdict) -> Flow {
        let end = |name: &str| {
            Some(Endpoint { namespace: "shop".into(), pod_name: name.into(), ..Endpoint::default() })
        };
        Flow {
            source: end(source),
            destination: end(destination),
            verdict: verdict as i32,
            is_reply: Some(false),
            ..Flow::default()
        }
    }

    fn answer(topic: Topic, flows: &[Flow]) -> Answer {
        let mut counter = Counter::new(topic, None);
        for flow in flows {
            counter.flow(flow);
        }
        assert!(!counter.tells_bytes() || topic == Topic::Policies);
        counter.answer(None)
    }

    #[test]
    fn flows_become_the_messages_of_the_service() {
        let flows = [
            flow("web", "cart", Verdict::Forwarded),
            flow("web", "cart", Verdict::Dropped),
            flow("web", "db", Verdict::Dropped),
        ];
        let Answer::Drops(drops) = answer(Topic::Drops, &flows) else { panic!("drops") };
        assert_eq!(drops.window.map(|window| window.flows), Some(3));
        let pairs: Vec<_> =
            drops.drops.iter().map(|row| (&*row.source, &*row.destination, row.flows)).collect();
        assert_eq!(pairs, [("shop/web", "shop/cart", 1), ("shop/web", "shop/db", 1)]);
        let request = |verdict| Flow {
            event_type: Some(CiliumEventType { r#type: crate::names::EVENT_L7, sub_type: 0 }),
            l7: Some(Layer7 { record: Some(Record::Http(Http::default())), ..Layer7::default() }),
            ..flow("web", "cart", verdict)
        };
        let requests = [Verdict::Forwarded, Verdict::Dropped, Verdict::Dropped].map(request);
        let Answer::Drops(drops) = answer(Topic::Drops, &requests) else { panic!("drops") };
        let [row] = &drops.drops[..] else { panic!("{drops:?}") };
        assert_eq!((&*row.reason, row.flows, row.packets), ("HTTP request denied", 2, 0));
        assert_eq!(drops.window.map(|window| window.flows), Some(2));
        let Answer::Edges(edges) = answer(Topic::Edges, &flows) else { panic!("edges") };
        assert_eq!((edges.edges[0].flows, edges.edges[0].errors), (2, 1));
        let Answer::Talkers(talkers) = answer(Topic::Talkers, &flows) else { panic!("talkers") };
        let web = &talkers.talkers[0];
        assert_eq!((&*web.name, web.sent_flows, web.received_flows, web.drops), ("shop/web", 3, 0, 2));
    }

    #[test]
    fn verdicts_are_counted_by_their_policies() {
        let verdict = |verdict| Flow {
            event_type: Some(CiliumEventType { r#type: crate::names::EVENT_POLICY_VERDICT, sub_type: 0 }),
            traffic_direction: TrafficDirection::Ingress as i32,
            ..flow("web", "cart", verdict)
        };
        let flows = [Verdict::Forwarded, Verdict::Audit, Verdict::Dropped].map(verdict);
        let Answer::Policies(policies) = answer(Topic::Policies, &flows) else { panic!("policies") };
        let [row] = &policies.policies[..] else { panic!("{policies:?}") };
        assert_eq!((row.allowed, row.audited, row.denied), (1, 1, 1));
        assert_eq!(
            (&*row.direction, policies.window.map(|window| window.policy_verdicts)),
            ("ingress", Some(3))
        );
    }
}
