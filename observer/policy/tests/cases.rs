//! The cases of `testdata/policy/cases.txt`, judged by the engine and by the naive evaluator.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_policy::{
    Dialect,
    engine::Engine,
    l7::Request,
    model::Direction,
    source::{self, Options},
};
use serde_json::Value;
use std::{fs, path::Path};
use support::{
    Question,
    naive::{self, Cluster},
};

struct Case {
    name: String,
    dialect: Dialect,
    documents: Vec<String>,
    questions: Vec<String>,
}

fn cases() -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/policy/cases.txt");
    let mut cases: Vec<Case> = Vec::new();
    for line in fs::read_to_string(file).unwrap().lines() {
        if let Some(name) = line.strip_prefix("case ") {
            let (documents, questions) = (Vec::new(), Vec::new());
            cases.push(Case { name: name.into(), dialect: Dialect::Kubernetes, documents, questions });
        } else if !line.is_empty() && !line.starts_with('#') {
            let case = cases.last_mut().unwrap();
            match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
                ["dialect", "cilium"] => case.dialect = Dialect::Cilium,
                [kind @ ("knp" | "cnp" | "ccnp"), namespace, name, spec] => {
                    case.documents.push(support::document(kind, namespace, name, spec));
                }
                _ => case.questions.push(line.into()),
            }
        }
    }
    cases
}

fn question(cluster: &Cluster, words: &[&str]) -> Question {
    let [subject, side, peer, port] = words else { panic!("{words:?}") };
    let (port, protocol) = port.split_once('/').unwrap();
    let names = [("ICMP", 1), ("TCP", 6), ("UDP", 17), ("ICMPv6", 58), ("SCTP", 132)];
    Question {
        subject: support::end(cluster, subject),
        direction: if *side == "in" { Direction::Ingress } else { Direction::Egress },
        peer: support::end(cluster, peer),
        protocol: names.iter().find(|(name, _)| *name == protocol).unwrap().1,
        port: port.parse().unwrap(),
    }
}

fn request<'a>(words: &[&'a str]) -> Request<'a> {
    match words {
        ["QUERY", name] => Request::Dns(name),
        [method, target] => {
            let (host, path) = target.split_at(target.find('/').unwrap());
            Request::Http { method, path, host, headers: Vec::new() }
        }
        _ => panic!("{words:?}"),
    }
}

fn answer(engine: &Engine, cluster: &Cluster, words: &[&str]) -> &'static str {
    let decision = support::judge(engine, cluster, &question(cluster, &words[..4]));
    match &words[4..] {
        [] => support::word(decision.all),
        rest if engine.allows(decision, &request(rest)) => "pass",
        _ => "refuse",
    }
}

#[test]
fn each_case_has_its_verdict() {
    let cluster = support::cluster();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for case in cases() {
        let text = case.documents.join("---\n");
        let policies = source::parse(&text, &Options { dialect: case.dialect, ..Options::default() });
        let policies = policies.unwrap_or_else(|fault| panic!("{text}{fault:?}"));
        let values: Vec<Value> =
            case.documents.iter().map(|document| serde_saphyr::from_str(document).unwrap()).collect();
        let mut engine = support::engine(&cluster);
        support::set_policies(&mut engine, policies);
        for line in &case.questions {
            count += 1;
            let (asked, expected) = line.split_once(" = ").unwrap();
            let words: Vec<&str> = asked.split(' ').collect();
            let compiled = answer(&engine, &cluster, &words);
            // The naive evaluator knows connections only and Kubernetes' dialect.
            let naive = match &words[4..] {
                [] if case.dialect == Dialect::Kubernetes => {
                    naive::verdict(&values, &cluster, &question(&cluster, &words))
                }
                _ => expected,
            };
            if compiled != expected || naive != expected {
                wrong.push(format!("{}: {line}: compiled {compiled}, naive {naive}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 150, "{count} questions were asked");
}
