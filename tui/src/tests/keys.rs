//! What keys and messages lead to.

use super::*;
use crate::{
    link::{Ask, Topic, Window},
    rows::MOST_ROWS,
    state::counts::Basis,
    views::{View, flows::Field},
};
use observer_proto::{
    answers::rows::Answer,
    control::{PolicyEnd, policy_end},
    stats,
};
use std::time::Duration;

fn asked_flows(effects: &[Effect]) -> Option<(u64, u64)> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Ask(Ask::Flows { run, last, .. }) => Some((*run, *last)),
        _ => None,
    })
}

fn head(dashboard: &Dashboard) -> String {
    dashboard.screen().lines().next().unwrap().to_owned()
}

/// The flow under the cursor, by its source port.
fn selected(dashboard: &Dashboard) -> u32 {
    let (_, flow) = crate::views::flows::selected(&dashboard.state).unwrap();
    match flow.l4.unwrap().protocol.unwrap() {
        Protocol::Tcp(tcp) => tcp.source_port - 41_000,
        _ => 0,
    }
}

fn with_flows(count: i64) -> Dashboard {
    let mut dashboard = Dashboard::new();
    (0..count).for_each(|number| dashboard.flow(flow(number, "shop/web", "shop/cart", 8080)));
    dashboard
}

#[test]
fn following_scrolling_and_pausing() {
    let mut dashboard = with_flows(100);
    assert_eq!(selected(&dashboard), 99);
    assert!(head(&dashboard).contains("● LIVE"));
    dashboard.keys("k k");
    assert_eq!(selected(&dashboard), 97);
    dashboard.flow(flow(100, "shop/web", "shop/cart", 8080));
    assert_eq!(selected(&dashboard), 97, "the selection stays with its flow");
    assert!(head(&dashboard).contains("SCROLLED +1"), "{}", head(&dashboard));
    dashboard.keys("G");
    assert_eq!(selected(&dashboard), 100);
    dashboard.keys("Space");
    let before = dashboard.screen();
    dashboard.flow(flow(101, "shop/web", "shop/cart", 8080));
    let after = dashboard.screen();
    assert!(head(&dashboard).contains("PAUSED +1"), "{}", head(&dashboard));
    assert_eq!(before.lines().skip(4).collect::<Vec<_>>(), after.lines().skip(4).collect::<Vec<_>>());
    dashboard.keys("Space");
    assert_eq!(selected(&dashboard), 101);
    dashboard.keys("g");
    assert_eq!(selected(&dashboard), 0);
    dashboard.keys("PgDn");
    assert!(selected(&dashboard) > 5);
}

#[test]
fn a_scrolled_view_stands_while_its_rows_are_kept() {
    let mut dashboard = with_flows(50);
    dashboard.keys("g j");
    assert_eq!(selected(&dashboard), 1);
    // The row goes; the next that is there takes its place.
    (50..50 + MOST_ROWS as i64).for_each(|number| dashboard.flow(flow(number, "shop/web", "shop/cart", 80)));
    assert_eq!(selected(&dashboard), 50);
}

#[test]
fn a_filter_asks_anew_and_old_rows_stay_until_the_answer() {
    let mut dashboard = with_flows(3);
    dashboard.effects();
    dashboard.keys("/");
    dashboard.types("--verdict DROPPED --last 7");
    dashboard.keys("Enter");
    let effects = dashboard.effects();
    assert_eq!(asked_flows(&effects), Some((2, 7)));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::SaveHistory(text) if text.contains("DROPPED")))
    );
    assert_eq!(dashboard.state.rows.shown().len(), 3);
    // What was under way is of the question before.
    dashboard.flow(flow(9, "shop/web", "shop/cart", 80));
    assert_eq!(dashboard.state.rows.shown().len(), 3);
    dashboard.tell(Message::Began { run: 1 });
    assert_eq!(dashboard.state.rows.shown().len(), 3);
    dashboard.tell(Message::Began { run: 2 });
    assert_eq!(dashboard.state.rows.shown().len(), 0);
    dashboard.flow(dropped(10, "shop/web", "pay/ledger"));
    assert_eq!(dashboard.state.rows.shown().len(), 1);
    // Began again, as after a connection that broke: nothing is forgotten.
    dashboard.tell(Message::Began { run: 2 });
    assert_eq!(dashboard.state.rows.shown().len(), 1);
    dashboard.keys("\\");
    assert_eq!(asked_flows(&dashboard.effects()), Some((3, crate::filter::LAST)));
}

#[test]
fn a_faulty_filter_is_shown_with_a_caret_and_changes_nothing() {
    let mut dashboard = with_flows(3);
    dashboard.effects();
    dashboard.keys("/");
    dashboard.types("--port 80 --verdict WRONG");
    dashboard.keys("Enter");
    assert_eq!(asked_flows(&dashboard.effects()), None);
    let screen = dashboard.screen();
    let lines: Vec<&str> = screen.lines().collect();
    assert_eq!(lines[2], "/ --port 80 --verdict WRONG");
    assert_eq!(lines[3], "            ^^^^^^^^^^^^^^^");
    assert!(lines[4].contains("WRONG"), "{}", lines[4]);
    dashboard.keys("Esc");
    assert!(dashboard.state.prompt.is_none() && dashboard.state.filter.text.is_empty());
}

#[test]
fn words_are_searched_in_the_rows_alone() {
    let mut dashboard = with_flows(3);
    dashboard.flow(dropped(3, "shop/web", "pay/ledger"));
    dashboard.effects();
    dashboard.keys("/");
    dashboard.types("LEDGER");
    dashboard.keys("Enter");
    assert_eq!(asked_flows(&dashboard.effects()), None);
    assert!(dashboard.screen().contains("1 rows [local]"), "{}", dashboard.screen());
    dashboard.flow(dropped(4, "shop/web", "pay/ledger"));
    dashboard.flow(flow(5, "shop/web", "shop/cart", 80));
    assert_eq!(selected(&dashboard), 4);
}

#[test]
fn fields_under_the_cursor_become_filters_and_esc_takes_them_back() {
    let mut dashboard = Dashboard::new();
    dashboard.flow(dropped(3, "shop/web", "pay/ledger"));
    dashboard.state.flows.field = Field::ALL.iter().position(|field| *field == Field::Verdict).unwrap();
    dashboard.keys("i");
    assert_eq!(dashboard.state.filter.text, "--verdict DROPPED");
    dashboard.keys("Right x");
    assert_eq!(dashboard.state.filter.text, "--verdict DROPPED --not --from-pod shop/web-7d9f-x2kqp");
    dashboard.keys("Right x");
    assert!(dashboard.state.filter.text.contains("--denylist"), "{}", dashboard.state.filter.text);
    dashboard.keys("Esc Esc Esc Esc");
    assert_eq!(dashboard.state.filter.text, "");
    dashboard.state.flows.field = 0;
    dashboard.keys("i");
    assert!(dashboard.screen().contains("there is no filter for this field"));
}

#[test]
fn drilling_down_and_back() {
    let mut dashboard = Dashboard::new();
    dashboard.effects();
    dashboard.keys("2");
    let asked = Effect::Ask(Ask::Counts { topic: Topic::Drops, window: Window::Minute });
    assert_eq!(dashboard.effects(), [asked]);
    let row = |reason: &str, packets| stats::DropCount {
        reason: reason.into(),
        source: "shop/web".into(),
        destination: "pay/ledger".into(),
        packets,
        flows: packets,
        ..stats::DropCount::default()
    };
    let answer = stats::GetDropsResponse {
        window: Some(stats::Window { flows: 90, ..stats::Window::default() }),
        drops: vec![row("POLICY_DENIED", 7), row("NO_SOCKET", 2)],
        other: None,
    };
    let refused = stats::GetDropsResponse { drops: vec![row("HTTP request denied", 0)], ..answer.clone() };
    dashboard.tell(Message::Counts(Window::Minute, Box::new(Answer::Drops(answer.clone()))));
    assert!(dashboard.screen().contains("[server stats]"), "{}", dashboard.screen());
    dashboard.keys("w");
    // What still comes of the other window is not shown as of this.
    dashboard.tell(Message::Counts(Window::Minute, Box::new(Answer::Drops(answer.clone()))));
    assert_eq!(dashboard.state.counts.drops, None);
    dashboard.tell(Message::Counts(Window::Five, Box::new(Answer::Drops(answer))));
    dashboard.keys("m G j k Enter");
    assert_eq!(dashboard.state.view, View::Flows);
    let text = "--type drop --drop-reason-desc POLICY_DENIED --from-pod shop/web --to-pod pay/ledger \
                --not --drop-reason-desc KERNEL";
    assert_eq!(dashboard.state.filter.text, text);
    dashboard.keys("Esc");
    assert_eq!((dashboard.state.view, dashboard.state.filter.text.as_str()), (View::Drops, ""));
    dashboard.tell(Message::Counts(Window::Five, Box::new(Answer::Drops(refused))));
    dashboard.keys("m g Enter");
    assert_eq!(dashboard.state.filter.text, "--verdict DROPPED --protocol http");
    dashboard.keys("Esc Esc");
    assert_eq!(dashboard.state.view, View::Flows);
}

#[test]
fn a_server_without_counts_is_counted_from_rows() {
    let mut dashboard = Dashboard::new();
    dashboard.tell_all(sample());
    dashboard.keys("2");
    dashboard.tell(Message::NoCounts(Topic::Drops));
    assert!(matches!(dashboard.state.counts.basis, Basis::Rows(33)), "{:?}", dashboard.state.counts.basis);
    let screen = dashboard.screen();
    assert!(screen.contains("[from 33 rows]") && screen.contains("POLICY_DENIED"), "{screen}");
    // And so is a part of the flows, which no server counts by itself.
    let mut dashboard = Dashboard::new();
    dashboard.keys("/");
    dashboard.types("-n pay");
    dashboard.keys("Enter");
    dashboard.tell(Message::Began { run: 2 });
    dashboard.flow(dropped(3, "shop/web", "pay/ledger"));
    dashboard.keys("2");
    dashboard.now += 2000;
    dashboard.event(Event::Tick);
    assert!(dashboard.screen().contains("[from 1 rows]"), "{}", dashboard.screen());
}

#[test]
fn a_connection_that_breaks_is_told_and_what_was_there_stays() {
    let mut dashboard = with_flows(3);
    let wait = Duration::from_secs(3);
    dashboard.tell(Message::Waiting { tries: 4, wait, why: "connection refused\nhint: x".to_owned() });
    assert!(head(&dashboard).contains("RECONNECTING 4s (try 4)"), "{}", head(&dashboard));
    assert!(dashboard.screen().contains("connection refused: hint: x"));
    assert_eq!(dashboard.state.rows.shown().len(), 3);
    dashboard.tell(Message::Began { run: 1 });
    dashboard.tell(Message::Gap { from: at(3), until: at(9).unwrap() });
    assert!(head(&dashboard).contains("● LIVE"));
    assert!(dashboard.screen().contains("the server has them no more"));
    dashboard.now += 20_000;
    assert!(dashboard.state.reduce(Event::Tick, dashboard.now, &mut Vec::new()));
    assert!(head(&dashboard).contains("STALE 20s"), "{}", head(&dashboard));
    dashboard.tell(Message::Response(lost(1204)));
    assert!(head(&dashboard).contains("LAGGED 1,204 lost 0s ago"), "{}", head(&dashboard));
    assert!(dashboard.screen().contains("1,204 events lost here on n1"));
    dashboard.tell(Message::Refused("invalid filter".to_owned()));
    assert!(head(&dashboard).contains("REFUSED"));
}

#[test]
fn what_is_copied_and_written() {
    let mut dashboard = Dashboard::new();
    dashboard.flow(dropped(3, "shop/web", "pay/ledger"));
    dashboard.keys("/");
    dashboard.types("--http-path '^/a b'");
    dashboard.keys("Enter");
    dashboard.effects();
    dashboard.keys("y Y e E");
    dashboard.tell(Message::Began { run: 2 });
    dashboard.flow(dropped(4, "shop/web", "pay/ledger"));
    dashboard.keys("E");
    let effects = dashboard.effects();
    assert_eq!(effects[0], Effect::Copy("observe -f -o wide --http-path '^/a b'".to_owned()));
    let Effect::Copy(json) = &effects[1] else { panic!("{effects:?}") };
    assert!(json.starts_with("{\"flow\":{") && json.contains("\"DROPPED\""), "{json}");
    let Effect::Write { name, text } = &effects[2] else { panic!("{effects:?}") };
    assert_eq!((name.as_str(), text.lines().count()), ("observe-flows-20260105-120431.jsonl", 1));
    let name = "observe-record-20260105-120431.jsonl".to_owned();
    assert_eq!(effects[3], Effect::Record(name));
    assert!(matches!(effects[4], Effect::Recorded(_)) && effects[5] == Effect::StopRecording, "{effects:?}");
    dashboard.event(Event::Written(Err("disk full".to_owned())));
    assert!(dashboard.screen().contains("disk full"));
}

#[test]
fn the_rules_behind_a_verdict_are_asked_for_and_shown() {
    let mut dashboard = Dashboard::new();
    let ip = Ip { source: "fd00::11".into(), destination: "fd00::5".into(), ..Ip::default() };
    dashboard.flow(Flow { ip: Some(ip), ..audited(4, "ops/scan", "pay/ledger") });
    dashboard.effects();
    dashboard.keys("v");
    let asked = dashboard.effects();
    let [Effect::Ask(Ask::Explain { uuid, request })] = &asked[..] else { panic!("{asked:?}") };
    let end = |end: &Option<PolicyEnd>| end.as_ref().unwrap().end.clone().unwrap();
    let pod = |name: &str| policy_end::End::Pod(format!("{name}-7d9f-x2kqp"));
    assert_eq!((end(&request.source), end(&request.destination)), (pod("ops/scan"), pod("pay/ledger")));
    assert_eq!((request.protocol, request.port), (6, 9000));
    let at = |end: &Option<PolicyEnd>| end.as_ref().unwrap().at.clone();
    assert_eq!(
        (at(&request.source), at(&request.destination)),
        ("fd00::11".to_owned(), "fd00::5".to_owned())
    );
    assert!(dashboard.screen().contains("the daemon is asked"), "{}", dashboard.screen());
    // Of another flow.
    let answer = Ok("ingress: open".to_owned());
    dashboard.tell(Message::Explained { uuid: "else".to_owned(), answer });
    assert!(!dashboard.screen().contains("ingress: open"));
    let answer = Ok("ingress: denied\n  isolated by NetworkPolicy pay/deny-all".to_owned());
    dashboard.tell(Message::Explained { uuid: uuid.clone(), answer });
    assert!(dashboard.screen().contains("isolated by NetworkPolicy pay/deny-all"), "{}", dashboard.screen());
}

#[test]
fn columns_help_and_views() {
    let mut dashboard = with_flows(2);
    assert!(dashboard.screen().contains("NODE"));
    dashboard.keys("c j Space Esc");
    assert!(!dashboard.state.look.columns.contains(&Field::Node));
    dashboard.keys("?");
    assert!(dashboard.screen().contains("Keys of Flows"), "{}", dashboard.screen());
    dashboard.keys("j j k G");
    assert!(dashboard.state.help.is_none());
    dashboard.keys("Tab Tab");
    assert_eq!(dashboard.state.view, View::Map);
    dashboard.keys("Shift-Tab Shift-Tab Shift-Tab");
    assert_eq!(dashboard.state.view, View::Nodes);
    dashboard.effects();
    dashboard.keys("Ctrl-z Ctrl-l q");
    assert_eq!(dashboard.effects(), [Effect::Suspend, Effect::Redraw, Effect::Quit]);
}

#[test]
fn tab_completes_from_the_table_and_from_what_was_seen() {
    let mut dashboard = with_flows(2);
    dashboard.tell(Message::Namespaces(vec!["zoo".to_owned()]));
    dashboard.keys("/");
    dashboard.types("--from-po");
    dashboard.keys("Tab");
    assert!(dashboard.screen().contains("--from-pod"), "{}", dashboard.screen());
    dashboard.keys("Ctrl-u");
    dashboard.types("--from-pod shop/w");
    dashboard.keys("Tab");
    assert_eq!(dashboard.state.prompt.as_ref().unwrap().text(), "--from-pod shop/web-7d9f-x2kqp ");
    dashboard.types("-n z");
    dashboard.keys("Tab");
    assert!(dashboard.state.prompt.as_ref().unwrap().text().ends_with("-n zoo "));
}

#[test]
fn escapes_never_reach_the_screen() {
    let mut dashboard = Dashboard::new();
    dashboard.tell_all(sample().into_iter().take(7));
    for keys in ["Enter", "Esc / Esc", "3", "5", "?"] {
        dashboard.keys(keys);
        let screen = dashboard.screen();
        assert!(
            screen.chars().all(|c| c == '\n' || !observer_proto::text::sanitize::is_unsafe(c)),
            "{screen:?}"
        );
    }
    assert!(clean(HOSTILE).contains("^[[2J"));
}
