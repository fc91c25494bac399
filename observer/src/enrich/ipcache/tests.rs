use super::*;
use crate::{
    decode::End,
    enrich::{
        Enricher, Packet,
        source::{CidrGroup, Node, ServiceEntry, ServicePort, TargetPort},
    },
};

mod model;

const UNKNOWN: u32 = 0;
const HOST: u32 = 1;
const WORLD: u32 = 2;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pod(uid: &str, ips: &[&str]) -> Pod {
    Pod {
        uid: uid.to_owned(),
        namespace: "shop".to_owned(),
        name: uid.trim_end_matches('\'').into(),
        ips: ips.iter().map(|text| ip(text)).collect(),
        labels: vec![format!("k8s:uid={uid}")],
        local: true,
        ..Pod::default()
    }
}

/// What happens to pods, at a time.
enum Event {
    Add(Pod),
    Finish(Pod),
    Remove(&'static str),
}
use Event::{Add, Finish, Remove};

/// The label that tells whose the address is, or the reserved one.
fn owner(cache: &IpCache, address: &str, at: u64) -> String {
    cache.lookup(ip(address), at).labels[0].replace("k8s:uid=", "").replace("reserved:", "")
}

fn play(events: Vec<(u64, Event)>) -> IpCache {
    let cache = IpCache::new("n1");
    for (at, event) in events {
        let window = Window::exact(at);
        match event {
            Add(pod) => cache.upsert_pod(Rank::Kubernetes, pod, window),
            Finish(pod) => {
                cache.upsert_pod(Rank::Kubernetes, Pod { finished: true, ..pod }, window);
            }
            Remove(uid) => cache.remove_pod(Rank::Kubernetes, uid, window),
        }
    }
    cache
}

/// Name, events, and whose the address is when.
type Case = (&'static str, Vec<(u64, Event)>, &'static [(u64, &'static str)]);

#[test]
fn an_address_is_its_pods_from_the_first_event_to_the_end() {
    let a = "10.0.0.1";
    let table: Vec<Case> = vec![
        (
            "never before the first event, never after the delete",
            vec![(10, Add(pod("a", &[a]))), (20, Remove("a"))],
            &[(9, "unknown"), (10, "a"), (19, "a"), (20, "unknown")],
        ),
        (
            "a finished pod keeps its address in its status, a running one has it",
            vec![
                (10, Add(pod("job", &[a]))),
                (20, Finish(pod("job", &[a]))),
                (30, Add(pod("web", &[a]))),
                (40, Finish(pod("job", &[a]))),
                (50, Add(pod("job", &[a]))),
                (60, Remove("job")),
            ],
            &[(19, "job"), (25, "unknown"), (30, "web"), (45, "web"), (55, "web"), (70, "web")],
        ),
        (
            "add before delete: the successor has it, the late delete takes nothing",
            vec![(10, Add(pod("old", &[a]))), (20, Add(pod("new", &[a]))), (30, Remove("old"))],
            &[(19, "old"), (20, "new"), (29, "new"), (30, "new"), (99, "new")],
        ),
        (
            "delete after add, then the successor goes: it does not fall back to the first",
            vec![(10, Add(pod("old", &[a]))), (20, Add(pod("new", &[a]))), (30, Remove("new"))],
            &[(20, "new"), (30, "unknown")],
        ),
        (
            "an update of a pod that lost the address does not take it back",
            vec![
                (10, Add(pod("old", &[a]))),
                (20, Add(pod("new", &[a]))),
                (30, Add(Pod { labels: vec!["k8s:uid=old2".into()], ..pod("old", &[a]) })),
            ],
            &[(20, "new"), (35, "new")],
        ),
        (
            "same name, new UID",
            vec![(10, Add(pod("db", &[a]))), (20, Add(pod("db'", &[a]))), (21, Remove("db"))],
            &[(15, "db"), (25, "db'")],
        ),
        (
            "host network: never",
            vec![(10, Add(Pod { host_network: true, ..pod("agent", &[a]) }))],
            &[(15, "world")],
        ),
        (
            "new labels are a new version from then on",
            vec![
                (10, Add(pod("a", &[a]))),
                (20, Add(Pod { labels: vec!["k8s:uid=a2".into()], ..pod("a", &[a]) })),
            ],
            &[(19, "a"), (20, "a2")],
        ),
        (
            "an address that the pod drops and gets again",
            vec![(10, Add(pod("a", &[a]))), (20, Add(pod("a", &[]))), (30, Add(pod("a", &[a])))],
            &[(15, "a"), (25, "unknown"), (35, "a")],
        ),
    ];
    for (name, events, expected) in table {
        let cache = play(events);
        for &(at, who) in expected {
            assert_eq!(owner(&cache, a, at), who, "{name}, at {at}");
        }
    }
}

#[test]
fn both_families_are_one_pods_and_an_ipv6_header_with_a_mapped_address_is_nobodys() {
    let cache = play(vec![(10, Add(pod("a", &["10.0.0.1", "fd00::1", "::ffff:10.0.0.2"])))]);
    // A source may write an IPv4 address so; a header that has it is of another family.
    for address in ["10.0.0.1", "fd00::1", "10.0.0.2"] {
        assert_eq!(owner(&cache, address, 10), "a", "{address}");
    }
    for address in ["::ffff:10.0.0.1", "::ffff:10.0.0.2", "::ffff:127.0.0.1"] {
        assert_eq!(owner(&cache, address, 10), "world", "{address}");
    }
}

#[test]
fn two_pods_with_one_address_in_one_list_are_nobodys() {
    let cache = IpCache::new("n1");
    let pods = vec![pod("a", &["10.0.0.1"]), pod("b", &["10.0.0.1"])];
    cache.replace(Rank::Kubernetes, Snapshot { pods, ..Snapshot::default() }, Window::exact(10));
    assert_eq!(owner(&cache, "10.0.0.1", 10), "unknown");
    assert_eq!(owner(&cache, "10.0.0.1", 99), "unknown");
}

#[test]
fn a_look_now_and_then_does_not_guess_who_had_it_in_between() {
    let list = |pods| Snapshot { pods, ..Snapshot::default() };
    let cache = IpCache::new("n1");
    let look = |pods, since, at| cache.replace(Rank::Inventory, list(pods), Window { since, at });
    look(vec![pod("a", &["10.0.0.1"])], 0, 10);
    look(vec![pod("b", &["10.0.0.1"]), pod("c", &["10.0.0.2"])], 20, 30);
    look(vec![pod("b", &["10.0.0.1"])], 30, 40);
    for (address, at, who) in [
        ("10.0.0.1", 0, "a"),
        ("10.0.0.1", 19, "a"),
        ("10.0.0.1", 20, "unknown"),
        ("10.0.0.1", 29, "unknown"),
        ("10.0.0.1", 30, "b"),
        // Nobody else had it, so the name holds through the whole window.
        ("10.0.0.2", 20, "c"),
        ("10.0.0.2", 39, "c"),
        ("10.0.0.2", 40, "unknown"),
    ] {
        assert_eq!(owner(&cache, address, at), who, "{address} at {at}");
    }
}

#[test]
fn the_greater_source_is_right() {
    let cache = IpCache::new("n1");
    let at = Window::exact(10);
    cache.upsert_pod(Rank::Inventory, pod("named", &["10.0.0.1"]), at);
    cache.upsert_pod(Rank::Local, pod("netns", &["10.0.0.1", "10.0.0.2"]), at);
    assert_eq!(owner(&cache, "10.0.0.1", 10), "named");
    assert_eq!(owner(&cache, "10.0.0.2", 10), "netns");
    cache.remove_pod(Rank::Inventory, "named", Window::exact(20));
    assert_eq!(owner(&cache, "10.0.0.1", 19), "named");
    assert_eq!(owner(&cache, "10.0.0.1", 20), "netns");
    // A removal is for its own source only.
    cache.remove_pod(Rank::Inventory, "netns", Window::exact(30));
    assert_eq!(owner(&cache, "10.0.0.2", 30), "netns");
}

fn surroundings() -> Surroundings {
    let node =
        |name: &str, address| Node { name: name.into(), addresses: vec![ip(address)], ..Node::default() };
    let port = |port, protocol| ServicePort {
        name: String::new(),
        port,
        protocol,
        target: TargetPort::Number(port),
        node_port: None,
    };
    let service = |name: &str, ports| ServiceEntry {
        namespace: "shop".into(),
        name: name.into(),
        addresses: vec![ip("10.96.0.1")],
        ports,
        ..ServiceEntry::default()
    };
    Surroundings {
        nodes: vec![node("n1", "192.168.0.1"), node("n2", "192.168.0.2")],
        kube_apiservers: vec![ip("192.168.0.3")],
        services: vec![service("web", vec![port(80, 6), port(53, 6)]), service("dns", vec![port(53, 17)])],
        cidr_groups: vec![CidrGroup {
            name: "office".into(),
            cidrs: vec!["10.1.0.0/16".parse().unwrap(), "10.1.2.0/24".parse().unwrap()],
            ..CidrGroup::default()
        }],
        ..Surroundings::default()
    }
}

#[test]
fn what_is_no_pod_has_a_reserved_or_cidr_identity() {
    let cache = IpCache::new("n1");
    cache.set_surroundings(Rank::Inventory, surroundings());
    // Even if a pod claims a node's address.
    cache.upsert_pod(Rank::Inventory, pod("a", &["192.168.0.1"]), Window::exact(0));
    let table = [
        ("192.168.0.1", HOST),
        ("::ffff:192.168.0.1", WORLD),
        ("127.0.0.1", HOST),
        ("::1", HOST),
        ("192.168.0.2", 6),
        ("192.168.0.3", 7),
        ("1.1.1.1", WORLD),
        ("2001:db8::1", WORLD),
        ("224.0.0.1", WORLD),
        ("0.0.0.0", UNKNOWN),
        ("169.254.3.4", UNKNOWN),
        ("fe80::1", UNKNOWN),
        ("10.1.9.9", 0x0100_0001),
        ("10.1.2.3", 0x0100_0002),
    ];
    for (address, identity) in table {
        assert_eq!(cache.lookup(ip(address), 1).identity, identity, "{address}");
    }
    let office = cache.lookup(ip("10.1.2.3"), 1);
    let labels = ["cidr:10.1.2.0/24", "cidrgroup:io.cilium.policy.cidrgroupname/office=", "reserved:world"];
    assert_eq!(*office.labels, labels);
    assert_eq!(cache.node_addresses(), [ip("192.168.0.1")]);
    // It is the pod's once no node has it.
    cache.set_surroundings(Rank::Inventory, Surroundings::default());
    assert_eq!(cache.lookup(ip("192.168.0.1"), 1).pod_name, "a");
    assert_eq!(cache.lookup(ip("192.168.0.2"), 1).identity, WORLD);
}

#[test]
fn services_are_found_by_address_port_and_protocol() {
    let cache = IpCache::new("n1");
    cache.set_surroundings(Rank::Inventory, surroundings());
    let name = |port, protocol| cache.service(ip("10.96.0.1"), port, protocol).map(|s| s.name.clone());
    assert_eq!(name(53, 17).as_deref(), Some("dns"));
    assert_eq!(name(53, 6).as_deref(), Some("web"));
    assert_eq!(name(53, 0).as_deref(), Some("web"), "TCP first");
    assert_eq!((name(80, 17), name(81, 6)), (None, None));
    assert_eq!(cache.service_ports().len(), 3);

    let cache = Arc::new(cache);
    cache.upsert_pod(Rank::Inventory, pod("backend", &["10.0.0.1"]), Window::exact(0));
    let frontend = Some(End::new(ip("10.96.0.1"), 80));
    let call = Packet {
        kernel_ns: 5,
        source: Some(End::new(ip("10.0.0.9"), 40_000)),
        destination: Some(End::new(ip("10.0.0.1"), 8080)),
        protocol: 6,
        frontend,
        is_reply: false,
    };
    let mut enricher = Enricher::new(cache);
    let ends = enricher.ends(&call);
    assert_eq!(ends.destination.pod_name, "backend");
    assert_eq!(ends.destination_service.unwrap().name, "web");
    assert!(ends.source_service.is_none());
    let reply = Packet { source: call.destination, destination: call.source, is_reply: true, ..call };
    let ends = enricher.ends(&reply);
    assert_eq!(ends.source_service.unwrap().name, "web");
    assert!(ends.destination_service.is_none());
    let bare = enricher.ends(&Packet { source: None, ..call });
    assert_eq!(bare.source.identity, UNKNOWN);
}

#[test]
fn what_listens_on_the_node_has_a_name_but_stands_for_nobody_else() {
    let cache = IpCache::new("n1");
    let entry = |name: &str, port| ServiceEntry {
        name: name.into(),
        addresses: vec![ip("192.168.0.1")],
        ports: vec![ServicePort {
            name: String::new(),
            port,
            protocol: 6,
            target: TargetPort::Number(port),
            node_port: None,
        }],
        ..ServiceEntry::default()
    };
    let listeners = vec![entry("sshd.service", 22), entry("proxy.service", 80)];
    cache.set_surroundings(Rank::Local, Surroundings { listeners, ..Surroundings::default() });
    let services = vec![entry("web", 80)];
    cache.set_surroundings(Rank::Inventory, Surroundings { services, ..Surroundings::default() });
    let name = |port| cache.service(ip("192.168.0.1"), port, 6).map(|service| service.name.clone());
    assert_eq!((name(22).as_deref(), name(80).as_deref()), (Some("sshd.service"), Some("web")));
    // A packet that was sent on to somebody else never reached what listens here.
    let frontend = |port| cache.frontend(ip("192.168.0.1"), port, 6).map(|service| service.name.clone());
    assert_eq!((frontend(22), frontend(80).as_deref()), (None, Some("web")));
    assert_eq!(cache.service_ports().len(), 2);
}

#[test]
fn kernel_lists_follow_and_the_generation_tells() {
    let cache = IpCache::new("n1");
    let mut last = cache.generation();
    let mut moved = |cache: &IpCache| std::mem::replace(&mut last, cache.generation()) != cache.generation();
    cache.upsert_pod(Rank::Local, pod("a", &["10.0.0.2", "10.0.0.1"]), Window::exact(1));
    cache.upsert_pod(Rank::Local, Pod { local: false, ..pod("b", &["10.0.0.3"]) }, Window::exact(1));
    assert!(moved(&cache));
    assert_eq!(cache.local_pod_addresses(), [ip("10.0.0.1"), ip("10.0.0.2")]);
    assert!(cache.known_pod("shop", "a") && !cache.known_pod("web", "a"));
    cache.upsert_pod(Rank::Local, pod("a", &["10.0.0.1", "10.0.0.2"]), Window::exact(2));
    cache.remove_pod(Rank::Local, "nobody", Window::exact(2));
    assert!(!moved(&cache), "nothing changed");
    cache.remove_pod(Rank::Local, "a", Window::exact(3));
    assert!(moved(&cache));
    assert!(cache.local_pod_addresses().is_empty() && !cache.known_pod("shop", "a"));
}

#[test]
fn endpoint_ids_are_for_local_pods_and_unique() {
    let cache = IpCache::new("n1");
    let mut ids = HashSet::new();
    for n in 1..=2000_u32 {
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        let of = Pod { ips: vec![address], ..pod(&format!("uid-{n}"), &[]) };
        cache.upsert_pod(Rank::Local, of, Window::exact(0));
        let id = cache.lookup(address, 0).id;
        assert!((1..=65_535).contains(&id) && ids.insert(id));
    }
    cache.upsert_pod(Rank::Local, Pod { local: false, ..pod("far", &["10.9.9.9"]) }, Window::exact(0));
    assert_eq!(cache.lookup(ip("10.9.9.9"), 0).id, 0);
}

#[test]
fn the_memory_of_past_owners_is_bounded() {
    let cache = IpCache::new("n1");
    for n in 0..20_000_u64 {
        let address = IpAddr::from((0x0a00_0000 + n as u32).to_be_bytes());
        let of = Pod { ips: vec![address], ..pod("churn", &[]) };
        cache.upsert_pod(Rank::Local, of, Window::exact(n));
    }
    let last = IpAddr::from((0x0a00_0000_u32 + 19_000).to_be_bytes());
    assert_eq!(cache.lookup(last, 19_000).pod_name, "churn", "late events are still named");
    let first = IpAddr::from(0x0a00_0000_u32.to_be_bytes());
    assert_eq!(cache.lookup(first, 0).identity, WORLD, "forgotten");
}

#[test]
fn pods_that_stand_have_the_addresses_that_are_their_own() {
    let cache = IpCache::new("n1");
    cache.upsert_pod(Rank::Local, pod("netns", &["10.0.0.1", "10.0.0.2"]), Window::exact(0));
    cache.upsert_pod(Rank::Inventory, pod("web", &["10.0.0.1"]), Window::exact(1));
    cache.upsert_pod(Rank::Inventory, pod("web", &["10.0.0.1", "10.0.0.3"]), Window::exact(2));
    cache.upsert_pod(Rank::Inventory, pod("job", &["10.0.0.4"]), Window::exact(3));
    cache.upsert_pod(Rank::Inventory, Pod { finished: true, ..pod("job", &["10.0.0.4"]) }, Window::exact(4));
    let mut standing = Vec::new();
    for Standing { endpoint, addresses, .. } in cache.standing().0 {
        for address in addresses {
            assert!(Arc::ptr_eq(&cache.lookup(address, 10), &endpoint), "{address} is of one version");
            standing.push((address.to_string(), endpoint.pod_name.to_string()));
        }
    }
    standing.sort();
    let wanted = [("10.0.0.1", "web"), ("10.0.0.2", "netns"), ("10.0.0.3", "web")];
    assert_eq!(standing, wanted.map(|(ip, name)| (ip.to_owned(), name.to_owned())));
}
