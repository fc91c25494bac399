//! Whatever is typed, pasted and told at whatever size: no panic, no row past the edge, nothing that steers a terminal.

use super::*;
use crate::{
    keys::{BINDINGS, Code},
    link::{Topic, Window},
    rows::{MOST_BYTES, MOST_ROWS},
};
use observer_proto::{
    answers::rows::Answer, observer::ServerStatusResponse, stats, text::sanitize::is_unsafe,
};
use proptest::prelude::*;
use std::time::Duration;

fn key() -> impl Strategy<Value = Key> {
    let bound: Vec<Key> = BINDINGS.iter().flat_map(|binding| binding.keys).copied().collect();
    let typed = any::<char>().prop_map(|letter| Key { code: Code::Char(letter), ctrl: false });
    let edits = [Code::Backspace, Code::Delete, Code::Left, Code::Right, Code::Home, Code::End];
    let edits = proptest::sample::select(edits.map(|code| Key { code, ctrl: false }).to_vec());
    prop_oneof![6 => proptest::sample::select(bound), 2 => typed, 1 => edits]
}

fn message() -> impl Strategy<Value = Message> {
    let any_flow = (any::<String>(), any::<String>(), 0..9i32, any::<u32>(), 0..60i64).prop_map(
        |(a, b, verdict, port, number)| {
            let mut flow = dropped(number, "shop/web", "pay/ledger");
            (flow.verdict, flow.drop_reason_desc) = (verdict, port as i32);
            flow.destination_names = vec![a.clone()];
            flow.destination = Some(Endpoint { pod_name: b, namespace: a.clone(), ..Endpoint::default() });
            flow.node_name = a;
            Message::Response(encoded(flow))
        },
    );
    let counts = (any::<String>(), any::<u64>()).prop_map(|(name, count)| {
        let count = count / 1024;
        let edge = stats::Edge {
            client: name.clone(),
            server: "a/b".into(),
            flows: count,
            bytes: count,
            errors: count % 2,
            ..stats::Edge::default()
        };
        let edges = vec![edge, stats::Edge { server: name, ..stats::Edge::default() }];
        let answer = Answer::Edges(stats::GetEdgesResponse { edges, ..stats::GetEdgesResponse::default() });
        Message::Counts(Window::Minute, Box::new(answer))
    });
    prop_oneof![
        8 => any_flow,
        2 => counts,
        1 => any::<Vec<u8>>().prop_map(|bytes| Message::Response(bytes.into())),
        1 => (0..1u64 << 40).prop_map(|count| Message::Response(lost(count))),
        1 => (0..9u64).prop_map(|run| Message::Began { run }),
        1 => any::<(u32, u16, String)>().prop_map(|(tries, wait, why)| {
            Message::Waiting { tries, wait: Duration::from_millis(wait.into()), why }
        }),
        1 => any::<(u64, u64, u32)>().prop_map(|(num_flows, max_flows, nodes)| {
            let status = ServerStatusResponse { num_flows, max_flows, num_connected_nodes: Some(nodes / 2), num_unavailable_nodes: Some(nodes / 2), ..ServerStatusResponse::default() };
            Message::Status(Box::new(status))
        }),
        1 => any::<String>().prop_map(Message::Refused),
        1 => any::<String>().prop_map(|why| Message::Policies(Err(why))),
        1 => any::<String>().prop_map(|why| Message::Nodes(Err(why))),
        1 => Just(Message::NoCounts(Topic::Drops)),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => key().prop_map(Event::Key),
        6 => message().prop_map(Event::Told),
        1 => any::<String>().prop_map(Event::Paste),
        1 => (0..200usize, 0..60usize).prop_map(|(across, down)| Event::Resize(across, down)),
        1 => Just(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_breaks_it(events in proptest::collection::vec(event(), 1..80)) {
        let mut dashboard = Dashboard::new();
        for event in events {
            dashboard.now += 300;
            // A question is answered.
            dashboard.event(event);
            for effect in dashboard.effects() {
                if let Effect::Ask(crate::link::Ask::Flows { run, .. }) = effect {
                    dashboard.tell(Message::Began { run });
                }
            }
            let buffer = dashboard.buffer(Theme::Mono);
            prop_assert!(buffer.content.iter().all(|cell| !cell.symbol().chars().any(is_unsafe)));
            prop_assert!(buffer.content.iter().all(|cell| cell.fg == ratatui::style::Color::Reset));
            let lines = crate::views::screen(&dashboard.state);
            prop_assert!(lines.len() <= dashboard.state.size.1.max(1));
            let rows = &dashboard.state.rows;
            prop_assert!(rows.shown().len() <= MOST_ROWS && rows.bytes <= MOST_BYTES);
        }
    }

    #[test]
    fn flows_fit_their_line(across in 60usize..250) {
        let look = Config::default().look(false).unwrap();
        prop_assert!(crate::views::flows::total(&look, across) <= across);
    }
}
