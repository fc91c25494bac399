//! The engine and the naive evaluator say the same of random policies, however the engine came to them.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_policy::{
    engine::{Change, Verdict},
    model::Mode,
    source::{self, Options},
};
use serde_json::Value;
use std::env;
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
                    let subject = support::subject(&engine, &cluster, &question.subject);
                    let by_all = engine.ruling(subject, rules, Mode::Observe).unwrap();
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
                    let enforced = engine.ruling(subject, rules, Mode::Enforce);
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

/// The kernel's longest prefix gives the same rules as the table.
#[test]
fn entries_for_the_kernel_say_what_the_tables_say() {
    let cluster = support::cluster();
    let mut engine = support::engine(&cluster);
    for round in 0..rounds() / 20 {
        let mut random = Random::new(round);
        support::set_policies(&mut engine, parse(&random::documents(&mut random)));
        for _ in 0..QUESTIONS {
            let question = random::question(&mut random, &cluster);
            let subject = support::subject(&engine, &cluster, &question.subject);
            let peer = support::peer(&engine, &cluster, &question.peer);
            let decision = support::judge(&engine, &cluster, &question);
            let Some(entries) = engine.entries(subject, question.direction) else {
                assert_eq!(decision.all, Verdict::Open);
                continue;
            };
            let own = entries.iter().any(|entry| entry.peer == Some(peer)).then_some(peer);
            let key = u32::from(question.protocol) << 16 | u32::from(question.port);
            let covers = |entry: &&observer_policy::engine::Entry| {
                let of = u32::from(entry.protocol) << 16 | u32::from(entry.port);
                entry.peer == own && (entry.bits == 0 || (of ^ key) >> (24 - entry.bits) == 0)
            };
            let longest = entries.iter().filter(covers).max_by_key(|entry| entry.bits).unwrap();
            assert_eq!(Some(longest.rules), decision.rules, "round {round}, {question:?}");
        }
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
