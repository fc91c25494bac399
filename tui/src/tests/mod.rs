//! A dashboard without a terminal and without a server.

mod keys;
mod property;
mod screens;
mod terminal;

use crate::{
    config::Config,
    draw::draw,
    filter::Filter,
    keys::Key,
    line::clean,
    link::Message,
    state::{
        State,
        reduce::{Effect, Event},
    },
    theme::Theme,
};
use bytes::Bytes;
use observer_proto::{
    encoded::around,
    flow::{
        CiliumEventType, Endpoint, Flow, Http, Ip, L7FlowType, Layer4, Layer7, LostEvent, Policy, Tcp,
        TrafficDirection, Verdict, Workload, layer4::Protocol, layer7::Record,
    },
    names,
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost::Message as _;
use prost_types::Timestamp;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

/// 2026-01-05T12:04:31Z, in milliseconds.
const NOW: i64 = 1_767_614_671_000;
/// Clears the screen, names the window, turns text round.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\r\u{202e}moc.\u{200b}example";

struct Dashboard {
    state: State,
    now: i64,
    effects: Vec<Effect>,
}

impl Dashboard {
    /// With a server that was asked and begins to answer.
    fn new() -> Self {
        let look = Config::default().look(false).unwrap();
        let state =
            State::new(look, "unix:///run/observer/hubble.sock".to_owned(), false, Filter::default(), NOW);
        let mut dashboard = Self { state, now: NOW, effects: Vec::new() };
        let effects = dashboard.state.begin();
        dashboard.effects.extend(effects);
        dashboard.tell(Message::Began { run: 1 });
        dashboard.event(Event::Resize(120, 36));
        dashboard
    }

    fn event(&mut self, event: Event) {
        self.state.reduce(event, self.now, &mut self.effects);
        while self.state.has_work() {
            self.state.work();
        }
    }

    fn tell(&mut self, message: Message) {
        self.event(Event::Told(message));
    }

    fn tell_all(&mut self, responses: impl IntoIterator<Item = Bytes>) {
        for response in responses {
            self.tell(Message::Response(response));
        }
    }

    /// Keys by their names, with blanks between them.
    fn keys(&mut self, names: &str) {
        for name in names.split(' ') {
            self.event(Event::Key(Key::named(name).unwrap()));
        }
    }

    /// Into the open prompt.
    fn types(&mut self, text: &str) {
        self.event(Event::Paste(text.to_owned()));
    }

    fn flow(&mut self, flow: Flow) {
        self.tell(Message::Response(encoded(flow)));
    }

    /// What was asked of the outside since the last time.
    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn buffer(&self, theme: Theme) -> Buffer {
        let (across, down) = self.state.size;
        let mut terminal = Terminal::new(TestBackend::new(across as u16, down as u16)).unwrap();
        terminal.draw(|frame| draw(&self.state, theme, frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    /// As a text, without the blanks at the ends of lines.
    fn screen(&self) -> String {
        text(&self.buffer(Theme::Ansi))
    }
}

fn text(buffer: &Buffer) -> String {
    let cells = buffer.content.chunks(buffer.area.width.max(1).into());
    let line =
        |cells: &[ratatui::buffer::Cell]| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    cells.map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
}

fn encoded(flow: Flow) -> Bytes {
    around(flow).encode_to_vec().into()
}

#[expect(clippy::unnecessary_wraps, reason = "as the messages hold it")]
fn at(number: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: NOW / 1000 - 5, nanos: (number * 10_000_000) as i32 })
}

#[expect(clippy::unnecessary_wraps, reason = "as the messages hold it")]
fn pod(name: &str) -> Option<Endpoint> {
    let (namespace, pod) = name.split_once('/').unwrap();
    Some(Endpoint {
        identity: 4242,
        namespace: namespace.to_owned(),
        pod_name: format!("{pod}-7d9f-x2kqp"),
        labels: vec![format!("k8s:app={pod}")],
        workloads: vec![Workload { kind: "Deployment".to_owned(), name: pod.to_owned() }],
        ..Endpoint::default()
    })
}

/// A connection's first packet.
#[expect(deprecated, reason = "the field that every Hubble fills")]
fn flow(number: i64, source: &str, destination: &str, port: u32) -> Flow {
    let tcp = Tcp { source_port: 41_000 + number as u32, destination_port: port, ..Tcp::default() };
    Flow {
        time: at(number),
        uuid: format!("7f1c9a40-0000-4000-8000-{number:012}"),
        verdict: Verdict::Forwarded as i32,
        ip: Some(Ip { source: "10.1.3.17".into(), destination: "10.1.7.5".into(), ..Ip::default() }),
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        source: pod(source),
        destination: pod(destination),
        node_name: "n1".to_owned(),
        event_type: Some(CiliumEventType { r#type: names::EVENT_TRACE, sub_type: 0 }),
        is_reply: Some(false),
        summary: "TCP Flags: SYN".to_owned(),
        ..Flow::default()
    }
}

fn dropped(number: i64, source: &str, destination: &str) -> Flow {
    Flow {
        verdict: Verdict::Dropped as i32,
        drop_reason_desc: 133,
        event_type: Some(CiliumEventType { r#type: names::EVENT_DROP, sub_type: 133 }),
        traffic_direction: TrafficDirection::Ingress as i32,
        ..flow(number, source, destination, 9000)
    }
}

fn audited(number: i64, source: &str, destination: &str) -> Flow {
    Flow {
        verdict: Verdict::Audit as i32,
        event_type: Some(CiliumEventType { r#type: names::EVENT_POLICY_VERDICT, sub_type: 0 }),
        traffic_direction: TrafficDirection::Ingress as i32,
        ingress_denied_by: vec![Policy {
            kind: "NetworkPolicy".into(),
            namespace: "pay".into(),
            name: "deny-all".into(),
            ..Policy::default()
        }],
        ..flow(number, source, destination, 9000)
    }
}

#[expect(deprecated, reason = "the field that every Hubble fills")]
fn http(number: i64, code: u32, ms: u64) -> Flow {
    let http = Http { code, method: "GET".into(), url: "http://cart/cart".into(), ..Http::default() };
    let l7 = Layer7 {
        r#type: L7FlowType::Response as i32,
        latency_ns: ms * 1_000_000,
        record: Some(Record::Http(http)),
    };
    let tcp = Tcp { source_port: 8080, destination_port: 41_000 + number as u32, ..Tcp::default() };
    Flow {
        l4: Some(Layer4 { protocol: Some(Protocol::Tcp(tcp)) }),
        l7: Some(l7),
        is_reply: Some(true),
        event_type: Some(CiliumEventType { r#type: names::EVENT_L7, sub_type: 0 }),
        summary: format!("HTTP/1.1 {code} {ms}ms (GET http://cart/cart)"),
        ..flow(number, "shop/cart", "shop/web", 8080)
    }
}

fn lost(events: u64) -> Bytes {
    let lost = LostEvent { source: 3, num_events_lost: events, ..LostEvent::default() };
    let response = GetFlowsResponse {
        node_name: "n1".to_owned(),
        time: at(50),
        response_types: Some(ResponseTypes::LostEvents(lost)),
    };
    response.encode_to_vec().into()
}

/// A bit of everything.
fn sample() -> Vec<Bytes> {
    let mut flows = vec![
        flow(1, "shop/web", "shop/cart", 8080),
        flow(2, "shop/cart", "shop/redis", 6379),
        dropped(3, "shop/web", "pay/ledger"),
        audited(4, "ops/scan", "pay/ledger"),
        dropped(5, "shop/web", "pay/ledger"),
        dropped(6, "ops/scan", "pay/ledger"),
    ];
    flows.push(Flow {
        verdict: Verdict::Redirected as i32,
        destination: Some(Endpoint { identity: 2, ..Endpoint::default() }),
        destination_names: vec![HOSTILE.to_owned()],
        ..flow(7, "shop/web", "shop/cart", 443)
    });
    let mut sample: Vec<Bytes> = flows.into_iter().map(encoded).collect();
    sample.push(lost(1204));
    sample.extend((8..34).map(|number| encoded(http(number, if number % 9 == 0 { 503 } else { 200 }, 3))));
    sample
}
