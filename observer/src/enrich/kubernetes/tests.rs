//! From lines of watches to names: hand-made events, no API server.

use super::*;
use observer_kubernetes::Resource;
use serde_json::{Value, json};
use std::net::IpAddr;

fn bed() -> (Arc<IpCache>, ByHand) {
    let cache = Arc::new(IpCache::new("n1"));
    let config = KubernetesConfig { policies: true, ..KubernetesConfig::default() };
    let mut api = KubernetesApi::new(&config, "default", Options::default(), Arc::clone(&cache));
    api.load(&cache).unwrap();
    let by_hand = api.by_hand();
    (cache, by_hand)
}

fn pod(uid: &str, name: &str, phase: &str, ips: &[&str]) -> Value {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"metadata": {"uid": uid, "name": name, "namespace": "shop"}, "spec": {"nodeName": "n1"},
        "status": {"phase": phase, "podIPs": ips}})
}

fn tell(by_hand: &mut ByHand, kind: &str, object: &Value) {
    let line = json!({"type": kind, "object": object}).to_string();
    by_hand.line(Resource::Pods, line.as_bytes()).unwrap();
}

fn listed(by_hand: &mut ByHand) {
    by_hand.end(Resource::Namespaces);
    by_hand.end(Resource::Pods);
}

fn name(cache: &IpCache, ip: &str, at: u64) -> String {
    let endpoint = cache.lookup(ip.parse().unwrap(), at);
    if endpoint.pod_name.is_empty() { endpoint.labels.join(",") } else { endpoint.pod_name.to_string() }
}

#[test]
fn until_all_pods_are_known_nobody_is_taken_for_the_world() {
    let (cache, mut by_hand) = bed();
    let now = Clock::kernel_now();
    assert_eq!(name(&cache, "10.0.0.1", now), "reserved:unknown");
    let generation = cache.generation();
    tell(&mut by_hand, "ADDED", &pod("a", "web", "Running", &["10.0.0.1", "fd00::1"]));
    assert_eq!(name(&cache, "10.0.0.1", now), "reserved:unknown", "nothing of an unfinished list");
    listed(&mut by_hand);
    assert!(cache.generation() > generation);
    // From the first list on it was so before, too.
    assert_eq!(name(&cache, "10.0.0.1", now), "web");
    assert_eq!(name(&cache, "fd00::1", Clock::kernel_now()), "web");
    assert_eq!(name(&cache, "10.0.0.9", now), "reserved:world");
}

#[test]
fn an_address_is_never_the_wrong_pods() {
    let (cache, mut by_hand) = bed();
    let ip = "10.0.0.1";
    let now = Clock::kernel_now;
    tell(&mut by_hand, "ADDED", &pod("a", "first", "Running", &[ip]));
    listed(&mut by_hand);
    let first = now();
    assert_eq!(name(&cache, ip, first), "first");
    // It has finished and shows the address for ever; its successor has it.
    tell(&mut by_hand, "MODIFIED", &pod("a", "first", "Succeeded", &[ip]));
    assert_eq!(name(&cache, ip, now()), "reserved:unknown");
    tell(&mut by_hand, "ADDED", &pod("b", "second", "Pending", &[]));
    tell(&mut by_hand, "MODIFIED", &pod("b", "second", "Running", &[ip]));
    let second = now();
    tell(&mut by_hand, "DELETED", &pod("a", "first", "Succeeded", &[ip]));
    assert_eq!(name(&cache, ip, now()), "second");
    // The new one is told of before the old one's end.
    tell(&mut by_hand, "ADDED", &pod("c", "third", "Running", &[ip]));
    tell(&mut by_hand, "DELETED", &pod("b", "second", "Running", &[ip]));
    let third = now();
    assert_eq!(name(&cache, ip, third), "third");
    // The same name again.
    tell(&mut by_hand, "DELETED", &pod("c", "third", "Running", &[ip]));
    tell(&mut by_hand, "ADDED", &pod("d", "third", "Running", &["10.0.0.2"]));
    assert_eq!(name(&cache, "10.0.0.2", now()), "third");
    assert_eq!(name(&cache, ip, now()), "reserved:unknown");
    // A pod of the node's network claims nothing.
    let mut hostly = pod("e", "hostly", "Running", &[ip]);
    hostly["spec"]["hostNetwork"] = true.into();
    tell(&mut by_hand, "ADDED", &hostly);
    assert_eq!(name(&cache, ip, now()), "reserved:unknown");
    for (at, who) in [(first, "first"), (second, "second"), (third, "third")] {
        assert_eq!(name(&cache, ip, at), who, "late flows have the name of their time");
    }
}

#[test]
fn what_happened_while_nobody_told_is_nobodys() {
    let (cache, mut by_hand) = bed();
    let ip = "10.0.0.1";
    tell(&mut by_hand, "ADDED", &pod("a", "first", "Running", &[ip]));
    listed(&mut by_hand);
    let before = Clock::kernel_now();
    tell(&mut by_hand, "MODIFIED", &pod("a", "first", "Running", &[ip]));
    let between = Clock::kernel_now();
    // The API server was away; what it tells now may be as old as that.
    by_hand.begin(Resource::Pods);
    tell(&mut by_hand, "ADDED", &pod("b", "second", "Running", &[ip]));
    assert_eq!(name(&cache, ip, Clock::kernel_now()), "first", "it is served until the list is complete");
    by_hand.end(Resource::Pods);
    let after = Clock::kernel_now();
    assert_eq!(name(&cache, ip, before), "first");
    assert_eq!(name(&cache, ip, between), "reserved:unknown");
    assert_eq!(name(&cache, ip, after), "second");
}

/// 0 wrong names of 1,000,000, while addresses are given again and again, with late flows among them.
#[test]
fn no_name_is_wrong_under_a_storm_of_addresses_used_again() {
    const ADDRESSES: usize = 50;
    const TURNS: usize = 2_200;
    let (cache, mut by_hand) = bed();
    let ip = |n: usize| format!("10.0.1.{n}");
    let mut holders: Vec<(String, Value)> = Vec::new();
    for n in 0..ADDRESSES {
        let uid = format!("{n}-0");
        holders.push((uid.clone(), pod(&uid, &uid, "Running", &[&ip(n)])));
        tell(&mut by_hand, "ADDED", &holders[n].1);
    }
    listed(&mut by_hand);
    // Flows as their packets were: address, time, whose it was.
    let mut flows: Vec<(usize, u64, String)> = Vec::new();
    let (mut asked, mut unknown) = (0, 0);
    for turn in 1..=TURNS {
        let n = turn * 7 % ADDRESSES;
        flows.push((n, Clock::kernel_now(), holders[n].0.clone()));
        let uid = format!("{n}-{turn}");
        let (_, old) = &holders[n];
        let new = pod(&uid, &uid, "Running", &[&ip(n)]);
        match turn % 3 {
            0 => {
                tell(&mut by_hand, "DELETED", old);
                tell(&mut by_hand, "ADDED", &new);
            }
            1 => {
                let mut done = old.clone();
                done["status"]["phase"] = "Failed".into();
                tell(&mut by_hand, "MODIFIED", &done);
                tell(&mut by_hand, "ADDED", &new);
                tell(&mut by_hand, "DELETED", &done);
            }
            _ => {
                tell(&mut by_hand, "ADDED", &new);
                tell(&mut by_hand, "DELETED", old);
            }
        }
        holders[n] = (uid.clone(), new);
        flows.push((n, Clock::kernel_now(), uid));
        let recent = flows.len().saturating_sub(500);
        for (n, at, whose) in &flows[recent..] {
            let found = cache.lookup(ip(*n).parse::<IpAddr>().unwrap(), *at);
            asked += 1;
            if found.pod_name.is_empty() {
                unknown += 1;
            } else {
                assert_eq!(found.pod_name, *whose, "10.0.1.{n} at {at}");
            }
        }
    }
    assert!(asked >= 1_000_000 && unknown < asked / 4, "{unknown} of {asked} unknown");
}
