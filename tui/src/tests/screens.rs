//! Every view and state as a picture in a file.

use super::*;
use crate::link::{Topic, Window};
use observer_proto::{
    answers::rows::Answer,
    control::{self, CaptureStatusResponse, Hook, ListPoliciesResponse},
    observer::{Node, ServerStatusResponse},
    relay::NodeState,
    stats,
};
use std::time::Duration;

const SIZES: [(usize, usize); 3] = [(120, 36), (80, 24), (60, 12)];

/// The screen at every size, and in the largest once more without colours, of which nothing may be lost.
fn check(name: &str, dashboard: &mut Dashboard) {
    for (across, down) in SIZES {
        dashboard.event(Event::Resize(across, down));
        let screen = dashboard.screen();
        assert!(screen.lines().all(|line| line.chars().count() <= across), "{screen}");
        insta::assert_snapshot!(format!("{name}-{across}x{down}"), screen);
        let mono = dashboard.buffer(Theme::Mono);
        assert!(
            mono.content.iter().all(|cell| cell.fg == ratatui::style::Color::Reset),
            "{name}: no colours in mono"
        );
        assert_eq!(text(&mono), screen, "{name}: the same words in mono");
    }
}

fn with_sample() -> Dashboard {
    let mut dashboard = Dashboard::new();
    dashboard.tell_all(sample());
    let status = ServerStatusResponse { num_flows: 2498, max_flows: 4095, ..ServerStatusResponse::default() };
    dashboard.tell(Message::Status(Box::new(status)));
    dashboard.now += 31_000;
    dashboard.tell(Message::Status(Box::default()));
    dashboard
}

#[expect(clippy::unnecessary_wraps, reason = "as the messages hold it")]
fn window() -> Option<stats::Window> {
    let at = |seconds| Some(Timestamp { seconds: NOW / 1000 - seconds, nanos: 0 });
    Some(stats::Window {
        from: at(60),
        until: at(0),
        flows: 18_233,
        policy_verdicts: 4_212,
        ..stats::Window::default()
    })
}

fn counts(dashboard: &mut Dashboard, answer: Answer) {
    dashboard.tell(Message::Counts(Window::Minute, Box::new(answer)));
}

#[test]
fn flows() {
    let mut dashboard = with_sample();
    check("flows", &mut dashboard);
    dashboard.keys("g j j");
    dashboard.event(Event::Resize(120, 36));
    check("flows-scrolled", &mut dashboard);
    dashboard.keys("Enter");
    check("flow-detail", &mut dashboard);
    dashboard.keys("Esc N t");
    check("flows-numeric", &mut dashboard);
}

#[test]
fn flows_in_ascii() {
    let mut dashboard = with_sample();
    dashboard.state.look.is_ascii = true;
    let screen = dashboard.screen();
    assert!(screen.is_ascii(), "{screen}");
    insta::assert_snapshot!("flows-ascii", screen);
}

fn drops() -> Answer {
    let row = |reason: &str, source: &str, destination: &str, packets| stats::DropCount {
        reason: reason.into(),
        source: source.into(),
        destination: destination.into(),
        packets,
        bytes: packets * 60,
        flows: packets / 2 + 1,
        trend: (0..12).map(|part| packets * part / 100).collect(),
    };
    let drops = vec![
        row("POLICY_DENIED", "shop/web", "pay/ledger", 1102),
        row("NETFILTER_DROP", "world", "shop/web", 402),
        row("POLICY_DENIED", "shop/cart", "pay/ledger", 78),
        row("NO_SOCKET", "ops/scan", "cidr:10.0.0.0/8", 24),
        stats::DropCount { flows: 57, ..row("HTTP request denied", "shop/cart", "pay/ledger", 0) },
    ];
    Answer::Drops(stats::GetDropsResponse { window: window(), drops, other: None })
}

#[test]
fn drops_by_reason_and_by_pair() {
    let mut dashboard = with_sample();
    dashboard.keys("2");
    check("drops-awaited", &mut dashboard);
    counts(&mut dashboard, drops());
    check("drops", &mut dashboard);
    dashboard.keys("m j s S");
    check("drops-by-pair", &mut dashboard);
    dashboard.tell(Message::NoCounts(Topic::Drops));
    dashboard.now += 2000;
    dashboard.event(Event::Tick);
    check("drops-from-rows", &mut dashboard);
    counts(&mut dashboard, Answer::Drops(stats::GetDropsResponse { window: window(), ..Default::default() }));
    check("drops-none", &mut dashboard);
}

fn edges() -> Answer {
    let row = |client: &str, server: &str, port, flows, errors| stats::Edge {
        client: client.into(),
        server: server.into(),
        protocol: "TCP".into(),
        port,
        flows,
        bytes: flows * 1500,
        errors,
    };
    let edges = vec![
        row("world", "shop/web", 443, 12_840, 0),
        row("shop/web", "shop/cart", 8080, 10_800, 0),
        row("shop/cart", "shop/redis-with-a-very-long-name-of-its-own", 6379, 5_760, 0),
        row("shop/web", "pay/ledger", 9000, 222, 222),
        row("ops/scan", "kube-apiserver", 443, 30, 3),
    ];
    Answer::Edges(stats::GetEdgesResponse { window: window(), edges, other: None })
}

#[test]
fn the_map_as_list_and_matrix() {
    let mut dashboard = with_sample();
    dashboard.keys("3");
    counts(&mut dashboard, edges());
    dashboard.keys("j");
    check("map", &mut dashboard);
    dashboard.keys("b");
    check("map-by-namespace", &mut dashboard);
    dashboard.keys("m");
    check("matrix", &mut dashboard);
    dashboard.keys("e");
    check("map-export", &mut dashboard);
}

#[test]
fn talkers() {
    let mut dashboard = with_sample();
    dashboard.keys("5");
    let row = |name: &str, bytes, flows, drops| stats::Talker {
        name: name.into(),
        sent_flows: flows,
        received_flows: flows / 3,
        sent_bytes: bytes,
        received_bytes: bytes / 50,
        drops,
        trend: (0..12).map(|part| bytes / (1 + (part * 7) % 5)).collect(),
    };
    let talkers = vec![
        row("batch/sync", 2_886_000_000, 1860, 0),
        row("shop/web", 114_000_000, 23_640, 1102),
        row("kube-system/coredns", 6_000_000, 7080, 0),
    ];
    counts(
        &mut dashboard,
        Answer::Talkers(stats::GetTalkersResponse { window: window(), talkers, other: None }),
    );
    check("talkers", &mut dashboard);
    dashboard.keys("m m b");
    check("talkers-by-drops", &mut dashboard);
}

#[test]
fn policies() {
    let mut dashboard = with_sample();
    dashboard.keys("4");
    dashboard.tell(Message::Policies(Err(
        "cannot reach unix:///run/observer/control.sock\npermission denied".into(),
    )));
    let row = |policies: &[&str], allowed, audited, denied| stats::PolicyCount {
        policies: policies.iter().map(|name| (*name).to_owned()).collect(),
        direction: "ingress".into(),
        allowed,
        audited,
        denied,
    };
    let counted = vec![
        row(&["NetworkPolicy pay/deny-all"], 0, 151, 1180),
        row(&["NetworkPolicy pay/ledger-allow"], 9920, 0, 0),
        row(&[], 3300, 0, 0),
    ];
    let answer = stats::GetPoliciesResponse { window: window(), policies: counted, ..Default::default() };
    counts(&mut dashboard, Answer::Policies(answer.clone()));
    check("policies-unlisted", &mut dashboard);
    let policy = |name: &str, mode: control::policy::Mode| control::Policy {
        kind: "NetworkPolicy".into(),
        namespace: "pay".into(),
        name: name.into(),
        mode: mode as i32,
        selects: "app=ledger".into(),
        selected: 2,
        isolates_ingress: true,
        rules: vec![control::PolicyRule {
            path: "spec.ingress[0]".into(),
            peers: vec!["app=cart".into()],
            ports: vec!["9000/TCP".into()],
            ..control::PolicyRule::default()
        }],
        file: "policies/pay.yaml".into(),
        line: 12,
        ..control::Policy::default()
    };
    let listed = ListPoliciesResponse {
        policies: vec![
            policy("deny-all", control::policy::Mode::Enforce),
            policy("ledger-allow", control::policy::Mode::Audit),
        ],
        open_count: 102,
        open_pods: vec![
            control::OpenPod { name: "shop/web-7d9f-x2kqp".into(), ingress: true, egress: true },
            control::OpenPod { name: "pay/ledger-6b44-k8s2d".into(), ingress: false, egress: true },
        ],
        ..ListPoliciesResponse::default()
    };
    dashboard.tell(Message::Policies(Ok(Box::new(listed))));
    check("policies", &mut dashboard);
    dashboard.keys("a");
    check("policies-audit-only", &mut dashboard);
    dashboard.keys("u");
    check("policies-uncovered", &mut dashboard);
    dashboard.keys("u");
    let none = stats::GetPoliciesResponse { not_built_in: "no policies here".into(), ..Default::default() };
    counts(&mut dashboard, Answer::Policies(none));
    dashboard.tell(Message::Policies(Ok(Box::default())));
    dashboard.keys("a");
    check("policies-not-counted", &mut dashboard);
    // The verdicts of that policy, not of all.
    counts(&mut dashboard, Answer::Policies(answer));
    dashboard.keys("Enter");
    assert_eq!(dashboard.state.filter.text, "--type policy-verdict pay/deny-all");
}

/// Counts of a server as it tells them.
fn signal(server: &str, route: &str, times: [u64; 4], failed: u64) -> stats::Signal {
    let responses = times.iter().sum();
    let mut signal = stats::Signal {
        server: server.into(),
        route: route.into(),
        requests: responses + 2,
        responses,
        server_errors: failed,
        times: vec![0; 18],
        ..stats::Signal::default()
    };
    signal.times[2..6].copy_from_slice(&times);
    let code = |code: &str, responses| stats::CodeCount { code: code.into(), responses };
    signal.codes = vec![code("2xx", responses - failed), code("5xx", failed)];
    signal
}

#[test]
fn golden_signals() {
    let mut dashboard = Dashboard::new();
    dashboard.keys("6");
    let http = stats::ProtocolSignals {
        servers: vec![signal("shop/cart", "", [700, 250, 40, 10], 4)],
        routes: vec![
            signal("shop/cart", "GET /cart", [600, 250, 39, 10], 1),
            signal("shop/cart", "POST /cart/items", [100, 0, 1, 0], 3),
            signal("pay/ledger", "POST /entries", [12, 0, 0, 0], 0),
        ],
        other_routes: Some(signal("", "", [3, 0, 0, 0], 0)),
        ..Default::default()
    };
    let window = stats::Window { l7: 2000, ..stats::Window::default() };
    let answer = stats::GetSignalsResponse { window: Some(window), http: Some(http), ..Default::default() };
    counts(&mut dashboard, Answer::Signals(Box::new(answer)));
    check("golden", &mut dashboard);
    dashboard.keys("b");
    check("golden-servers", &mut dashboard);
    dashboard.keys("m");
    check("golden-dns", &mut dashboard);
    let off = stats::GetSignalsResponse { not_built_in: "not watched".into(), ..Default::default() };
    counts(&mut dashboard, Answer::Signals(Box::new(off)));
    check("golden-off", &mut dashboard);
}

#[test]
fn golden_signals_of_rows() {
    let mut dashboard = with_sample();
    dashboard.keys("6");
    dashboard.tell(Message::NoCounts(Topic::Signals));
    dashboard.now += 2000;
    dashboard.event(Event::Tick);
    check("golden-rows", &mut dashboard);
    dashboard.keys("m");
    check("golden-rows-dns", &mut dashboard);
    let mut dashboard = Dashboard::new();
    dashboard.flow(flow(1, "shop/web", "shop/cart", 80));
    dashboard.keys("6");
    dashboard.tell(Message::NoCounts(Topic::Signals));
    dashboard.now += 2000;
    dashboard.event(Event::Tick);
    check("golden-none", &mut dashboard);
}

#[test]
fn nodes() {
    let mut dashboard = with_sample();
    dashboard.keys("7");
    let node = |name: &str, state: NodeState, seen: u64| Node {
        name: name.into(),
        version: "0.1.0".into(),
        address: "10.0.0.4:4244".into(),
        state: state as i32,
        uptime_ns: 273_600_000_000_000,
        num_flows: 2498,
        max_flows: 4095,
        seen_flows: seen,
        ..Node::default()
    };
    let nodes =
        vec![node("n1", NodeState::NodeConnected, 91_204_118), node("n2", NodeState::NodeUnavailable, 0)];
    dashboard.tell(Message::Nodes(Ok(nodes)));
    dashboard.tell(Message::Capture(Err("the daemon tells it on its own machine only".into())));
    check("nodes", &mut dashboard);
    let hook = |name: &str, state: control::hook::State, reason: &str| Hook {
        name: name.into(),
        state: state as i32,
        reason: reason.into(),
    };
    let capture = CaptureStatusResponse {
        node_name: "n1".into(),
        kernel: "6.12.0".into(),
        hooks: vec![
            hook("flows: tcx", control::hook::State::Attached, ""),
            hook("drops: tp_btf kfree_skb", control::hook::State::Unavailable, "the kernel has no BTF"),
            hook("service addresses: nf_conntrack", control::hook::State::Attached, ""),
        ],
        links: vec![control::Link::default(); 3],
        counters: vec![control::Counter {
            stage: "store".into(),
            kind: control::counter::Kind::Lost as i32,
            cause: "overwritten".into(),
            value: 1204,
        }],
        ..CaptureStatusResponse::default()
    };
    dashboard.tell(Message::Capture(Ok(Box::new(capture))));
    dashboard.tell(Message::Health(Box::new(stats::GetHealthResponse {
        windows: vec![stats::Health::default(), stats::Health { lost_in_kernel: 12, ..Default::default() }],
        ..Default::default()
    })));
    check("nodes-captured", &mut dashboard);
    dashboard.tell(Message::Nodes(Err("Unimplemented".into())));
    check("nodes-unlisted", &mut dashboard);
}

#[test]
fn states() {
    let mut dashboard = Dashboard::new();
    check("empty", &mut dashboard);
    dashboard.tell(Message::Waiting {
        tries: 4,
        wait: Duration::from_millis(2500),
        why: "cannot reach unix:///run/observer/hubble.sock\nno such socket\nhint: start the daemon with `sudo observer`".into(),
    });
    check("reconnecting", &mut dashboard);
    dashboard.tell(Message::Refused("invalid filter".into()));
    check("refused", &mut dashboard);
    let mut dashboard = with_sample();
    dashboard.keys("Space");
    dashboard.flow(flow(60, "shop/web", "shop/cart", 80));
    dashboard.tell(Message::Response(lost(1204)));
    let status = ServerStatusResponse {
        num_connected_nodes: Some(3),
        num_unavailable_nodes: Some(1),
        ..ServerStatusResponse::default()
    };
    dashboard.tell(Message::Status(Box::new(status)));
    check("paused-lagged-partial", &mut dashboard);
    dashboard.keys("G");
    dashboard.now += 43_000;
    dashboard.event(Event::Tick);
    check("stale", &mut dashboard);
}

#[test]
fn offline() {
    let look = Config::default().look(false).unwrap();
    let state = State::new(look, "flows.jsonl.gz".to_owned(), true, Filter::default(), NOW);
    let mut dashboard = Dashboard { state, now: NOW, effects: Vec::new() };
    let effects = dashboard.state.begin();
    dashboard.effects.extend(effects);
    dashboard.tell(Message::Began { run: 1 });
    dashboard.tell_all(sample());
    dashboard.tell(Message::End("skipped 2 of 35 lines, which hold no flow".to_owned()));
    check("offline", &mut dashboard);
    dashboard.keys("3");
    dashboard.now += 7000;
    dashboard.event(Event::Tick);
    check("offline-map", &mut dashboard);
    dashboard.keys("7");
    check("offline-nodes", &mut dashboard);
}

#[test]
fn prompt_help_menu_and_too_small() {
    let mut dashboard = with_sample();
    dashboard.keys("/");
    check("prompt", &mut dashboard);
    dashboard.types("--verdict ");
    dashboard.keys("Tab");
    check("prompt-offers", &mut dashboard);
    dashboard.types("--port x");
    dashboard.keys("Enter");
    check("prompt-fault", &mut dashboard);
    dashboard.keys("Esc ?");
    check("help", &mut dashboard);
    dashboard.keys("Esc c");
    check("columns", &mut dashboard);
    dashboard.event(Event::Resize(59, 12));
    insta::assert_snapshot!("too-small", dashboard.screen());
}
