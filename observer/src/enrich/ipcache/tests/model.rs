//! Ownership of addresses, held to a naive model.

use super::*;
use crate::enrich::recent::Recent;
use proptest::prelude::*;

/// The rules as they are said, replayed from the start for each question.
fn naive(events: &[(u64, Step)], address: u8, at: u64) -> Option<u8> {
    let mut had: HashMap<u8, HashSet<u8>> = HashMap::new();
    let (mut finished, mut owner) = (HashSet::new(), None);
    for (_, step) in events.iter().filter(|(time, _)| *time <= at) {
        match step {
            Step::Upsert { uid, ips, end, host } => {
                if *end {
                    finished.insert(*uid);
                }
                let none = HashSet::new();
                let now = if *host || finished.contains(uid) { &none } else { ips };
                let before = had.insert(*uid, now.clone()).unwrap_or_default();
                match (before.contains(&address), now.contains(&address)) {
                    (false, true) => owner = Some(*uid),
                    (true, false) if owner == Some(*uid) => owner = None,
                    _ => {}
                }
            }
            Step::Remove(uid) => {
                had.remove(uid);
                finished.remove(uid);
                owner = owner.filter(|owner| owner != uid);
            }
        }
    }
    owner
}

#[derive(Clone, Debug)]
enum Step {
    Upsert { uid: u8, ips: HashSet<u8>, end: bool, host: bool },
    Remove(u8),
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let upsert = (0..6_u8, prop::collection::hash_set(0..4_u8, 0..3), 0..8_u8, 0..10_u8)
        .prop_map(|(uid, ips, end, host)| Step::Upsert { uid, ips, end: end == 0, host: host == 0 });
    let step = prop_oneof![3 => upsert, 1 => (0..6_u8).prop_map(Step::Remove)];
    prop::collection::vec((0..3_u64, step), 1..40).prop_map(|steps| {
        let mut now = 0;
        let timed = steps.into_iter().map(|(pause, step)| {
            now += pause;
            (now, step)
        });
        timed.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn never_the_wrong_pod(events in steps()) {
        let cache = Arc::new(IpCache::new("n1"));
        let mut recent = Recent::new(Arc::clone(&cache));
        for (at, step) in &events {
            match step {
                Step::Upsert { uid, ips, end, host } => {
                    let ips = ips.iter().map(|n| IpAddr::from([10, 0, 0, *n])).collect();
                    let of = Pod { ips, finished: *end, host_network: *host, ..pod(&uid.to_string(), &[]) };
                    cache.upsert_pod(Rank::Kubernetes, of, Window::exact(*at));
                }
                Step::Remove(uid) => cache.remove_pod(Rank::Kubernetes, &uid.to_string(), Window::exact(*at)),
            }
            for (address, time) in (0..4).flat_map(|address| (0..=*at).map(move |time| (address, time))) {
                let address = IpAddr::from([10, 0, 0, address]);
                let next = IpAddr::from([10, 0, 1, 0]);
                let (remembered, _) = recent.find([address, next].map(|ip| Some(End::new(ip, 0))), time);
                for (remembered, ip) in remembered.into_iter().zip([address, next]) {
                    let (found, asked) = (&remembered.unwrap().endpoint, cache.lookup(ip, time));
                    prop_assert!(Arc::ptr_eq(found, &asked), "{} at {}", ip, time);
                }
            }
        }
        let end = events.last().map_or(0, |(at, _)| *at);
        for address in 0..4 {
            // An address remembers 8 past owners, so only the latest questions must have an answer.
            for at in 0..=end {
                let got = cache.lookup(IpAddr::from([10, 0, 0, address]), at);
                let right = naive(&events, address, at).map(|uid| uid.to_string());
                let named = (!got.pod_name.is_empty()).then(|| got.pod_name.to_string());
                if at == end {
                    prop_assert_eq!(named, right, "10.0.0.{} at {}", address, at);
                } else if named.is_some() {
                    prop_assert_eq!(named, right, "10.0.0.{} at {}", address, at);
                }
            }
        }
    }
}
