//! What must hold whatever a policy's file says; a fuzzer calls it, and the tests with its corpus.

use crate::{
    engine::{Change, Engine},
    label::Labels,
    model::{Direction, Mode},
    source::{Options, parse},
    world::Endpoint,
};
use std::sync::Arc;

/// The most characters of a path or a problem, and one that says that more was cut.
const LONGEST: usize = 1_001;

/// The text of a file of policies.
///
/// # Panics
///
/// Where something does not hold.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policies = match parse(text, &Options::default()) {
        Ok(policies) => policies,
        Err(fault) => {
            let lines = text.split(['\n', '\r']).count() as u64;
            assert!((1..=lines).contains(&fault.line), "{fault:?}");
            for part in [&fault.path, &fault.problem] {
                let good = !part.contains(char::is_control) && part.chars().count() <= LONGEST;
                assert!(good, "{fault:?}");
            }
            assert!(!fault.problem.is_empty());
            return;
        }
    };
    assert_eq!(parse(text, &Options::default()).ok().as_ref(), Some(&policies));
    let keys: Vec<_> = policies.iter().map(|policy| ((policy.id.clone(), policy.part), None)).collect();
    let mut engine = Engine::new(false);
    let pod = |name: &str, address: [u8; 4]| {
        let labels = Labels::parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=default"]);
        (name.into(), Some(Endpoint { labels, addresses: vec![address.into()], ports: Vec::new() }))
    };
    let endpoints = vec![pod("one", [10, 0, 0, 1]), pod("other", [192, 168, 0, 1])];
    engine.apply(Change { endpoints, ..Change::default() });
    let policies = policies.into_iter().map(|policy| (Arc::new(policy), Mode::Enforce)).collect();
    engine.apply(Change { policies: engine.difference(policies), ..Change::default() });
    let judge = |engine: &Engine| {
        let subject = engine.endpoint("one").map(|(subject, _)| subject)?;
        let peer = engine.peer_at([192, 168, 0, 1].into());
        Some(
            [Direction::Ingress, Direction::Egress]
                .map(|side| engine.judge(subject, side, peer, 6, 80).rules),
        )
    };
    judge(&engine);
    engine.warnings();
    // Without its policies everything is as before.
    engine.apply(Change { policies: keys, ..Change::default() });
    assert_eq!(judge(&engine), Some([None, None]));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/policy");
        let files: Vec<_> = fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            println!("{}", file.display());
            super::policy(&fs::read(file).unwrap());
        }
    }
}
