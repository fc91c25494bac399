//! What an explanation names is what it takes: with exactly the named clauses changed, the connection is allowed.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod support;

use observer_policy::{
    engine::Verdict,
    explain::{Clause, Query},
    model::Kind,
    source::{self, Options},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use support::{
    Question,
    random::{self, Random},
};

const DENIALS: usize = 1500;

fn parse(documents: &[Value]) -> Option<Vec<observer_policy::model::Policy>> {
    let text = documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    source::parse(&text, &Options::default()).ok()
}

/// The place in a document that a path such as `spec.ingress[0].ports[1]` names.
fn at<'a>(document: &'a mut Value, path: &str) -> &'a mut Value {
    let pointer = path.replace(['.', '['], "/").replace(']', "");
    document.pointer_mut(&format!("/{pointer}")).unwrap()
}

/// Makes a rule be about everybody.
fn meet_peer(rule: &mut Value, kind: Kind, front: &str) {
    let rule = rule.as_object_mut().unwrap();
    rule.retain(|field, _| matches!(field.as_str(), "ports" | "toPorts" | "icmps"));
    if kind != Kind::NetworkPolicy {
        rule.insert(format!("{front}Entities"), json!(["all"]));
    }
}

/// Gives a clause protocol or port of the question; `None` where the document can't say them.
fn meet_port(
    clause: &mut Value,
    path: &str,
    kind: Kind,
    failed: &[Clause],
    question: &Question,
) -> Option<()> {
    let name = match question.protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "",
    };
    let port =
        |number: u16| if kind == Kind::NetworkPolicy { json!(number) } else { json!(number.to_string()) };
    if path.contains("icmps") {
        let family = match question.protocol {
            1 => "IPv4",
            58 => "IPv6",
            _ => return None,
        };
        *clause = json!({"family": family, "type": question.port});
        return Some(());
    }
    if name.is_empty() || question.port == 0 {
        return None;
    }
    if path.ends_with(']')
        && clause.get("port").is_none()
        && clause.get("protocol").is_none()
        && kind != Kind::NetworkPolicy
    {
        clause["ports"] = json!([{"port": port(question.port), "protocol": name}]);
        return Some(());
    }
    if failed.contains(&Clause::Protocol) {
        clause["protocol"] = json!(name);
    }
    if failed.contains(&Clause::Port) {
        clause.as_object_mut().unwrap().remove("endPort");
        clause["port"] = port(question.port);
    }
    Some(())
}

#[test]
fn changing_exactly_the_named_clauses_allows() {
    let cluster = support::cluster();
    let mut engine = support::engine(&cluster);
    let (mut changed, mut seed) = (0, 0);
    let mut kinds: BTreeMap<Vec<Clause>, usize> = BTreeMap::new();
    while changed < DENIALS {
        seed += 1;
        let mut random = Random::new(seed);
        let mut documents = random::documents(&mut random);
        support::set_policies(&mut engine, parse(&documents).unwrap());
        let mut questions = (0..20).map(|_| random::question(&mut random, &cluster));
        let denied =
            |question: &Question| support::judge(&engine, &cluster, question).all == Verdict::DefaultDenied;
        let Some(question) = questions.find(denied) else { continue };
        let query = Query {
            subject: support::subject(&engine, &cluster, &question.subject),
            direction: question.direction,
            peer: support::peer(&engine, &cluster, &question.peer),
            protocol: question.protocol,
            port: question.port,
            request: None,
        };
        let explanation = engine.explain(query);
        assert!(!explanation.isolating.is_empty() && explanation.rules.is_empty());
        let Some(miss) = explanation.nearest else {
            // Then no policy that selects the endpoint has a rule at all.
            continue;
        };
        assert!(!miss.failed.is_empty());
        let (id, part) = (miss.policy.id.clone(), miss.policy.part as usize);
        let (path, rule_path, failed) = (miss.path.clone(), miss.rule.path.to_string(), miss.failed.clone());
        let document = documents.iter_mut().find(|document| {
            document["metadata"]["name"] == *id.name && document["kind"] == id.kind.to_string()
        });
        let document = document.unwrap();
        if document["specs"].is_array() {
            assert!(path.starts_with(&format!("specs[{part}]")));
        }
        let front = match (id.kind, rule_path.contains("ingress")) {
            (Kind::NetworkPolicy, _) => "",
            (_, true) => "from",
            (_, false) => "to",
        };
        if failed.contains(&Clause::Protocol) || failed.contains(&Clause::Port) {
            // What the document can't say is no case: GRE in a port, UDP beside HTTP rules.
            if meet_port(at(document, &path), &path, id.kind, &failed, &question).is_none() {
                continue;
            }
        }
        if failed.contains(&Clause::Peer) {
            meet_peer(at(document, &rule_path), id.kind, front);
        }
        let Some(policies) = parse(&documents) else { continue };
        support::set_policies(&mut engine, policies);
        let decision = support::judge(&engine, &cluster, &question);
        let shown = documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        assert!(decision.all.passes(), "seed {seed}: {question:?} {failed:?} at {path} of {id}:\n{shown}");
        changed += 1;
        *kinds.entry(failed).or_default() += 1;
    }
    for clause in [Clause::Peer, Clause::Protocol, Clause::Port] {
        let alone = kinds.get(&vec![clause]).copied().unwrap_or(0);
        assert!(alone > 20, "only {alone} for {clause} alone: {kinds:?}");
    }
}

#[test]
fn a_refused_request_names_its_rule() {
    let cluster = support::cluster();
    let mut engine = support::engine(&cluster);
    let spec = "{endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{path: /public}]}}]}]}";
    let policies = source::parse(&support::document("cnp", "a", "p", spec), &Options::default()).unwrap();
    support::set_policies(&mut engine, policies);
    let request =
        observer_policy::l7::Request::Http { method: "GET", path: "/private", host: "", headers: Vec::new() };
    let query = Query {
        subject: support::subject(&engine, &cluster, &naive_end(0)),
        direction: observer_policy::model::Direction::Ingress,
        peer: support::peer(&engine, &cluster, &naive_end(3)),
        protocol: 6,
        port: 80,
        request: Some(&request),
    };
    let explanation = engine.explain(query);
    let miss = explanation.nearest.unwrap();
    assert_eq!((miss.failed, &*miss.path), (vec![Clause::Request], "spec.ingress[0].toPorts[0].ports[0]"));
    assert_eq!(explanation.rules.len(), 1);
}

fn naive_end(pod: usize) -> support::naive::End {
    support::naive::End::Pod(pod)
}
