use super::*;
use observer_ebpf::policy::{CutLine, PolicyRow, cut_key};
use observer_inventory::{Backend, BackendState, Slice, SlicePort};
use observer_policy::{
    engine::Change,
    model::{Direction, Mode},
    source::{Options, parse},
};
use std::sync::Arc;

const POLICIES: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  ingress:
    - fromCIDR: [192.0.2.0/24]
    - fromEndpoints: [{matchLabels: {app: web}}]
      toPorts: [{ports: [{port: '80', protocol: TCP}]}]
  ingressDeny: [{toPorts: [{ports: [{port: '22', protocol: TCP}]}]}]
";

fn endpoint(name: &str, labels: &[&str], addresses: &[&str]) -> (Arc<str>, Option<Endpoint>) {
    let labels = labels.iter().map(ToString::to_string);
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let ports = vec![NamedPort { name: "http".into(), protocol: 6, port: 8080 }];
    (name.into(), Some(Endpoint { labels: Labels::parse(labels), ports, addresses }))
}

fn engine(mode: Mode) -> Engine {
    let with = |name: &str, app: &str, addresses: &[&str]| {
        let app = format!("k8s:app={app}");
        let besides = ["k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.policy.cluster=default"];
        endpoint(name, &[&app, besides[0], besides[1]], addresses)
    };
    let policies = parse(POLICIES, &Options::default()).unwrap().into_iter();
    let mut engine = Engine::new(false);
    let policies = policies.map(|policy| (Arc::new(policy), mode)).collect();
    let policies = engine.difference(policies);
    let endpoints = vec![
        with("shop/web", "web", &["10.0.0.1", "fd00::1"]),
        with("shop/api-0", "api", &["10.0.0.2", "fd00::2"]),
        with("shop/api-1", "api", &["10.0.0.3"]),
        endpoint("host", &["reserved:host"], &["192.168.0.1"]),
        endpoint("node:n2", &["reserved:remote-node"], &["192.168.0.2"]),
    ];
    engine.apply(Change { endpoints, policies, surroundings: None });
    engine
}

/// As the programs look up what becomes of a connection to `to`.
fn look_up(tables: &PolicyTables, from: &str, to: &str, protocol: u8, port: u16) -> u32 {
    let [from, to] = [from, to].map(|text| octets(text.parse().unwrap()));
    let holds = |(bits, net): &(u8, [u8; 16])| {
        let shift = 128 - u32::from(*bits);
        let of = |octets: &[u8; 16]| u128::from_be_bytes(*octets).checked_shr(shift).unwrap_or(0);
        of(net) == of(&from)
    };
    let peer = tables.endpoints.get(&from).map_or_else(
        || *tables.nets.iter().filter(|(net, _)| holds(net)).max_by_key(|(net, _)| net.0).unwrap().1,
        |endpoint| endpoint.peer,
    );
    let table = tables.sides[tables.endpoints[&to].subject as usize][1];
    if table == NO_TABLE {
        return 0;
    }
    let row = |peer| tables.rows.get(&PolicyRowKey { table, peer });
    let PolicyRow { begin, len } = *row(peer).or_else(|| row(OTHERS)).unwrap();
    let lines = &tables.cuts[begin as usize..][..len as usize];
    let cuts: Vec<_> = lines.iter().flat_map(CutLine::taken).collect();
    assert_eq!(cuts[0].from, 0);
    cuts.iter().rev().find(|cut| cut.from <= cut_key(protocol, port)).unwrap().decision
}

#[test]
fn decisions_have_their_bits_and_the_numbers_of_their_rules() {
    use decision::{AUDITED, BY_RULE, DENIED, JUDGED};
    for (mode, denied, by_rule) in [(Mode::Enforce, DENIED, BY_RULE), (Mode::Audit, 0, 0)] {
        let engine = engine(mode);
        let (tables, left_out) = tables(&engine, &[], |_| false);
        assert_eq!((left_out, tables.endpoints.len()), (0, 7));
        for (from, to, protocol, port, bits) in [
            ("10.0.0.1", "10.0.0.2", 6, 80, JUDGED),
            ("fd00::1", "fd00::2", 6, 80, JUDGED),
            ("10.0.0.1", "10.0.0.2", 17, 80, JUDGED | denied | AUDITED),
            ("10.0.0.1", "10.0.0.2", 6, 22, JUDGED | denied | by_rule | AUDITED),
            ("192.0.2.9", "10.0.0.3", 17, 9, JUDGED),
            ("198.51.100.9", "10.0.0.3", 17, 9, JUDGED | denied | AUDITED),
            ("2001:db8::9", "fd00::2", 6, 80, JUDGED | denied | AUDITED),
            ("192.168.0.1", "10.0.0.2", 6, 80, JUDGED),
            ("192.168.0.2", "10.0.0.2", 6, 80, JUDGED | denied | AUDITED),
            ("10.0.0.2", "10.0.0.1", 6, 80, 0),
        ] {
            let found = look_up(&tables, from, to, protocol, port);
            assert_eq!(found & !decision::RULES, bits, "{from} -> {to} {port}, {mode:?}");
            let [from, to] = [from, to].map(|text| text.parse::<IpAddr>().unwrap());
            let subject = engine.subject_at(to).unwrap();
            let decided = engine.judge(subject, Direction::Ingress, engine.peer_at(from), protocol, port);
            assert_eq!(decided.rules, (found != 0).then(|| rules(found)));
        }
    }
    let (tables, _) = tables(&engine(Mode::Audit), &[], |_| false);
    let flags = |address: &str| tables.endpoints[&octets(address.parse().unwrap())].flags;
    let (host, node) = (endpoint_flags::HOST, endpoint_flags::NODE);
    let addresses = ["192.168.0.1", "192.168.0.2", "10.0.0.1"];
    assert_eq!(addresses.map(flags), [host | node, node, 0]);
}

#[test]
fn services_have_the_pods_that_they_select_at_their_own_ports() {
    let service = |addresses: &[&str], selector: &[(&str, &str)], target| ServiceEntry {
        namespace: "shop".into(),
        name: "api".into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ports: vec![ServicePort { name: String::new(), port: 80, protocol: 6, target, node_port: None }],
        selector: selector.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..ServiceEntry::default()
    };
    let told = |service: ServiceEntry| {
        let backend = |(ip, state): (&str, _)| Backend { address: ip.parse().unwrap(), state };
        let (ready, not) = (BackendState::Ready, BackendState::NotReady);
        // An endpoint may be twice for a moment.
        let all = [("203.0.113.9", ready), ("10.0.0.2", not), ("10.0.0.3", ready), ("10.0.0.3", ready)];
        let ports = [SlicePort { name: "".into(), protocol: 6, number: Some(8080) }];
        let slice = Slice { ports: ports.into(), backends: all.map(backend).into() };
        ServiceEntry { slices: Some(vec![Arc::new(slice)]), ..service }
    };
    let known = [
        service(&["10.96.0.1", "fd00:96::1"], &[("app", "api")], TargetPort::Name("HTTP".into())),
        service(&["10.96.0.2"], &[("app", "none")], TargetPort::Number(81)),
        // Who stands behind it nobody tells.
        service(&["10.96.0.3"], &[], TargetPort::Number(81)),
        // What is told counts, and not who is selected; without a selector, too.
        told(service(&["10.96.0.4", "fd00:96::4"], &[("app", "api")], TargetPort::Number(80))),
        told(service(&["10.96.0.5"], &[], TargetPort::Number(80))),
    ];
    let (tables, left_out) = tables(&engine(Mode::Audit), &known, |_| false);
    assert_eq!((left_out, tables.frontends.len()), (0, 7));
    let behind = |address: &str| -> Vec<(IpAddr, u16)> {
        let address = octets(address.parse().unwrap());
        let PolicyBackends { begin, len } =
            tables.frontends[&PolicyFrontend { address, port: 80, protocol: 6, pad: 0 }];
        let backends = &tables.backends[begin as usize..][..len as usize];
        let ip = |octets: [u8; 16]| IpAddr::from(octets).to_canonical();
        backends.iter().map(|backend| (ip(backend.address), backend.port)).collect()
    };
    let at = |address: &str| (address.parse::<IpAddr>().unwrap(), 8080);
    assert_eq!(behind("10.96.0.1"), [at("10.0.0.2"), at("10.0.0.3")]);
    assert_eq!(behind("fd00:96::1"), [at("fd00::2")]);
    assert!(behind("10.96.0.2").is_empty() && behind("10.96.0.3").is_empty());
    for service in ["10.96.0.4", "10.96.0.5"] {
        assert_eq!(behind(service), [at("10.0.0.3"), at("203.0.113.9")], "{service}");
    }
    assert!(behind("fd00:96::4").is_empty());
}

#[test]
fn a_node_port_leads_to_the_pods_from_the_nodes_own_addresses() {
    let port = ServicePort {
        name: String::new(),
        port: 80,
        protocol: 6,
        target: TargetPort::Number(8080),
        node_port: Some(30080),
    };
    let service = ServiceEntry {
        namespace: "shop".into(),
        name: "api".into(),
        ports: vec![port],
        selector: [("app".to_owned(), "api".to_owned())].into(),
        ..ServiceEntry::default()
    };
    let (tables, _) = tables(&engine(Mode::Audit), &[service], |_| false);
    let frontend = |address: &str, port| PolicyFrontend {
        address: octets(address.parse().unwrap()),
        port,
        protocol: 6,
        pad: 0,
    };
    assert_eq!(tables.frontends.len(), 1, "another node's port is not translated here");
    assert_eq!(tables.frontends[&frontend("192.168.0.1", 30080)].len, 2);
}

/// Whatever changes, the tables that follow it are those that would be made anew, and what differs is said.
#[test]
fn tables_that_follow_changes_are_those_made_anew() {
    let mut engine = engine(Mode::Enforce);
    let policies = parse(POLICIES, &Options::default()).unwrap();
    let key = (policies[0].id.clone(), policies[0].part);
    let mut kept = Made::anew(None, &mut engine, &[], |_| false);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = |of: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) % of
    };
    let mut some = 0;
    for _ in 0..2_000 {
        let mut change = Change::default();
        for _ in 0..=pick(2) {
            let name = format!("shop/pod-{}", pick(6));
            // Some addresses are in the policy's network, some are others' too.
            let address = [format!("192.0.2.{}", pick(4)), format!("10.0.1.{}", pick(6))];
            let app = format!("k8s:app={}", ["web", "api", "db"][pick(3) as usize]);
            let labels = [&*app, "k8s:io.kubernetes.pod.namespace=shop"];
            let mut put = endpoint(&name, &labels, &[&address[pick(2) as usize]]);
            if pick(5) == 0 {
                put.1 = None;
            }
            change.endpoints.push(put);
        }
        if pick(30) == 0 {
            let mode = [Mode::Audit, Mode::Enforce][pick(2) as usize];
            let policy = (pick(4) > 0).then(|| (Arc::new(policies[0].clone()), mode));
            change.policies.push((key.clone(), policy));
        }
        let before = kept.tables.clone();
        engine.apply(change);
        kept = Made::anew(Some(kept), &mut engine, &[], |_| false);
        let (anew, left_out) = tables(&engine, &[], |_| false);
        assert_eq!((&kept.tables, kept.left_out), (&anew, left_out));
        let Some(only) = &kept.only else { continue };
        some += 1;
        let said = |address: &&[u8; 16]| !only.contains(*address);
        for address in before.endpoints.keys().chain(anew.endpoints.keys()).filter(said) {
            assert_eq!(before.endpoints.get(address), anew.endpoints.get(address));
        }
        assert_eq!(
            PolicyTables { endpoints: HashMap::default(), ..before },
            PolicyTables { endpoints: HashMap::default(), ..anew }
        );
    }
    assert!(some > 100, "{some}");
}
