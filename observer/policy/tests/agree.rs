//! The engine and the naive evaluator say the same of random policies, however the engine came to them.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use ipnet::IpNet;
use observer_policy::{
    engine::{Change, Decision, Engine, PeerId, SubjectId, TableId, Verdict},
    model::{Direction, Mode},
    source::{self, Options},
};
use serde_json::Value;
use std::{collections::HashMap, env, net::IpAddr};
use support::{
    naive,
    random::{self, Random},
};

const QUESTIONS: usize = 50;

/// 100,000 questions, ten times as many with `SOAK=1`.
fn rounds() -> u64 {
    let all = if env::var("SOAK").is_ok_and(|soak| soak == "1") { 1_000_000 } else { 100_000 };
    all / QUESTIONS as u64
}

fn parse(documents: &[Value]) -> Vec<observer_policy::model::Policy> {
    let text = documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    source::parse(&text, &Options::default()).unwrap_or_else(|fault| panic!("{fault:?}\n{text}"))
}

fn show(documents: &[Value]) -> String {
    documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn naive_and_compiled_agree() {
    let mut told = std::collections::BTreeMap::new();
    for dual_stack in [false, true] {
        let cluster = naive::Cluster { dual_stack, ..support::cluster() };
        // One engine takes all sets one after the other, so that changes are judged, too.
        let mut engine = support::engine(&cluster);
        for round in 0..rounds() / 2 {
            let mut random = Random::new(round * 2 + u64::from(dual_stack));
            let documents = random::documents(&mut random);
            let mut policies = parse(&documents);
            let enforced: Vec<bool> = documents.iter().map(|_| random.percent(60)).collect();
            for policy in &mut policies {
                let place = policy.id.name[1..].parse::<usize>().unwrap();
                policy.mode = Some(if enforced[place] { Mode::Enforce } else { Mode::Audit });
            }
            support::set_policies(&mut engine, policies);
            let only: Vec<Value> =
                documents.iter().zip(&enforced).filter(|(_, on)| **on).map(|(d, _)| d.clone()).collect();
            for _ in 0..QUESTIONS {
                let question = random::question(&mut random, &cluster);
                let decision = support::judge(&engine, &cluster, &question);
                let expected = naive::verdict(&documents, &cluster, &question);
                let context = || format!("round {round}, {question:?}\n{}", show(&documents));
                assert_eq!(support::word(decision.all), expected, "{}", context());
                let expected = naive::verdict(&only, &cluster, &question);
                assert_eq!(
                    support::word(decision.enforced),
                    expected,
                    "enforced: {enforced:?} {}",
                    context()
                );
                // The same again from the rules, as it is told where some policies are evaluated only.
                if let Some(rules) = decision.rules {
                    let by_all = engine.ruling(rules, Mode::Observe).unwrap();
                    assert_eq!(
                        (by_all.verdict, by_all.match_type),
                        (decision.all, engine.match_type(rules)),
                        "{}",
                        context()
                    );
                    assert_eq!(
                        by_all.isolating.is_empty(),
                        decision.all != Verdict::DefaultDenied,
                        "{}",
                        context()
                    );
                    let enforced = engine.ruling(rules, Mode::Enforce);
                    let enforced = enforced.map_or(Verdict::Open, |ruling| ruling.verdict);
                    assert_eq!(enforced, decision.enforced, "{}", context());
                }
                *told.entry(support::word(decision.all)).or_insert(0) += 1;
            }
        }
    }
    // Each verdict came up often enough for the agreement to mean something.
    for verdict in ["open", "allow", "requests", "deny", "default-deny"] {
        assert!(told.get(verdict).is_some_and(|count| *count > 300), "{told:?}");
    }
}

/// What the kernel looks up, in the maps that it looks in.
struct Maps {
    endpoints: HashMap<IpAddr, (SubjectId, PeerId)>,
    nets: HashMap<IpNet, PeerId>,
    sides: HashMap<SubjectId, [Option<TableId>; 2]>,
    rows: HashMap<(TableId, Option<PeerId>), Row>,
}

/// From which protocol and port on which decision holds.
type Row = Vec<(u32, Decision)>;

impl Maps {
    fn of(engine: &Engine) -> Self {
        let rows = engine.tables().flat_map(|rows| {
            rows.places().map(move |(peer, place)| ((rows.table, peer), rows.cuts()[place].to_vec()))
        });
        Self {
            endpoints: engine.addresses().map(|(address, _, at)| (address, (at.subject, at.peer))).collect(),
            nets: engine.world_nets().collect(),
            sides: engine.sides().collect(),
            rows: rows.collect(),
        }
    }

    fn peer(&self, address: IpAddr) -> PeerId {
        if let Some((_, peer)) = self.endpoints.get(&address) {
            return *peer;
        }
        let holding = self.nets.iter().filter(|(net, _)| net.contains(&address));
        *holding.max_by_key(|(net, _)| net.prefix_len()).unwrap().1
    }

    fn judge(
        &self,
        subject: IpAddr,
        direction: Direction,
        peer: IpAddr,
        (protocol, port): (u8, u16),
    ) -> Decision {
        let sides = self.sides[&self.endpoints[&subject].0];
        let Some(table) = sides[usize::from(direction == Direction::Ingress)] else { return Decision::OPEN };
        let row =
            self.rows.get(&(table, Some(self.peer(peer)))).unwrap_or_else(|| &self.rows[&(table, None)]);
        let key = u32::from(protocol) << 16 | u32::from(port);
        row.iter().rev().find(|(from, _)| *from <= key).unwrap().1
    }
}

/// A look-up in the maps of the kernel decides as the engine does.
#[test]
fn maps_for_the_kernel_say_what_the_engine_says() {
    for dual_stack in [false, true] {
        let cluster = naive::Cluster { dual_stack, ..support::cluster() };
        let mut engine = support::engine(&cluster);
        let mut judged = 0;
        for round in 0..rounds() / 20 {
            let mut random = Random::new(round * 2 + u64::from(dual_stack));
            support::set_policies(&mut engine, parse(&random::documents(&mut random)));
            let maps = Maps::of(&engine);
            for _ in 0..QUESTIONS {
                let question = random::question(&mut random, &cluster);
                let decision = support::judge(&engine, &cluster, &question);
                let [subject, peer] = [&question.subject, &question.peer].map(|end| cluster.address(end));
                let found = maps.judge(subject, question.direction, peer, (question.protocol, question.port));
                assert_eq!(found, decision, "round {round}, {question:?}");
                judged += usize::from(decision.rules.is_some());
            }
        }
        assert!(judged > 1000, "{judged}");
    }
}

/// Endpoints that come, go and change one by one leave the engine as if it had begun with them.
#[test]
fn changes_of_endpoints_are_followed() {
    let cluster = support::cluster();
    for round in 0..rounds() / 20 {
        let mut random = Random::new(round);
        let documents = random::documents(&mut random);
        let mut engine = support::engine(&cluster);
        support::set_policies(&mut engine, parse(&documents));
        let mut changed = cluster.clone();
        // Two pods change places in labels and ports, keeping their addresses; another goes and comes back.
        let (one, other) = (random.below(6), random.below(6));
        let labels = changed.pods[one].labels.clone();
        changed.pods[one].labels = std::mem::replace(&mut changed.pods[other].labels, labels);
        let ports = changed.pods[one].ports.clone();
        changed.pods[one].ports = std::mem::replace(&mut changed.pods[other].ports, ports);
        let gone = changed.pods[random.below(6)].clone();
        let gone = format!("{}/{}", gone.namespace, gone.name);
        engine.apply(Change { endpoints: vec![(gone.into(), None)], ..Change::default() });
        engine.apply(Change { endpoints: support::endpoints(&changed), ..Change::default() });
        for _ in 0..QUESTIONS {
            let question = random::question(&mut random, &changed);
            let decision = support::judge(&engine, &changed, &question);
            let expected = naive::verdict(&documents, &changed, &question);
            assert_eq!(support::word(decision.all), expected, "{round} {question:?}\n{}", show(&documents));
        }
    }
}
