//! A flow's cells by themselves, for who lays them out: a dashboard, which has columns of its own.

pub use super::columns::{shorten, shorten_end, width};
use super::{
    super::{
        Options,
        parts::{self, End},
        sanitize::clean,
        shown::Shown,
    },
    text, words,
};
use crate::flow::Flow;
use std::borrow::Cow;

/// What the wide table says of a flow. Everything is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cells {
    /// The node that saw it.
    pub node: String,
    /// The sender.
    pub source: Named,
    /// The receiver.
    pub destination: Named,
    /// `L4-NEW`, `DROP`, `http-req`.
    pub kind: String,
    /// `FORWARDED`, `DENIED`.
    pub verdict: Cow<'static, str>,
    /// Why, and what the packet was: `GET /cart`.
    pub reason: String,
}

/// A name or an address, and its port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// What an address without a name is: `world`.
    pub kind: Option<&'static str>,
    /// Escaped.
    pub name: String,
    /// 0: none.
    pub port: u32,
    /// It called the other; then its port says little.
    pub is_client: bool,
}

impl Cells {
    /// Of a flow.
    pub fn of(options: Options, flow: &Flow) -> Self {
        let options = Options { colors: false, ..options };
        let shown = &Shown::of(flow);
        let end = |end| {
            let (name, port) = parts::name(options, shown, end)?;
            let name = text(|out| clean(&name, out));
            let (kind, is_client) =
                (parts::kind_of_address(options, shown, end), words::is_client(flow, end));
            Some(Named { kind, name, port, is_client })
        };
        let verdict = match parts::verdict_word(shown) {
            Cow::Borrowed(word) => word.strip_prefix("VERDICT_").unwrap_or(word).into(),
            number @ Cow::Owned(_) => number,
        };
        Self {
            node: text(|out| clean(&flow.node_name, out)),
            source: end(End::Source).unwrap_or_default(),
            destination: end(End::Destination).unwrap_or_default(),
            kind: text(|out| words::event_type(flow, shown, true, out)),
            verdict,
            reason: text(|out| words::reason(options, flow, shown, true, out)),
        }
    }
}

impl Named {
    /// In at most so many cells where they suffice for a port: the name is shortened in the middle.
    pub fn fitted(&self, cells: usize) -> String {
        let plain = Options::default();
        let whole = |name: &str| text(|out| parts::named(plain, name, self.port, out));
        let named = whole(&self.name);
        match self.kind {
            Some(kind) if kind.len() + 1 + width(&named) <= cells => format!("{kind} {named}"),
            _ if width(&named) <= cells => named,
            _ => whole(&shorten(&self.name, cells.saturating_sub(width(&named) - width(&self.name)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{
        CiliumEventType, DropReason, Endpoint, Http, Ip, L7FlowType, Layer4, Layer7, Tcp, layer4::Protocol,
        layer7::Record,
    };
    use prost::Message as _;
    use prost_types::{Any, Struct, Value, value::Kind};

    #[test]
    fn ends_fit_and_names_are_escaped() {
        let flow = Flow {
            ip: Some(Ip { source: "10.0.0.1".into(), destination: "10.0.0.2".into(), ..Ip::default() }),
            l4: Some(Layer4 {
                protocol: Some(Protocol::Tcp(Tcp {
                    source_port: 40000,
                    destination_port: 80,
                    ..Tcp::default()
                })),
            }),
            source: Some(Endpoint {
                namespace: "web".into(),
                pod_name: "front\u{1b}[31m".into(),
                ..Endpoint::default()
            }),
            destination: Some(Endpoint { identity: 2, ..Endpoint::default() }),
            ..Flow::default()
        };
        let cells = Cells::of(Options::default(), &flow);
        assert_eq!(cells.source.fitted(40), "web/front^[[31m:40000");
        assert_eq!(cells.source.fitted(15), "web/…[31m:40000");
        assert_eq!(cells.destination.fitted(40), "world 10.0.0.2:80");
        assert_eq!(cells.destination.fitted(12), "10.0.0.2:80");
    }

    #[test]
    fn a_firewalls_drop_is_not_told_as_a_policys() {
        for (reason, told) in [
            ("NETFILTER_DROP", "NETFILTER_DROP in nft_do_chain"),
            ("unknown on this kernel", "Firewall: unknown on this kernel in nft_do_chain"),
            ("TC_INGRESS", "TC_INGRESS in nft_do_chain"),
        ] {
            let texts = [("kernel_drop_reason", reason), ("kernel_location", "nft_do_chain+0x3e8")];
            let value = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
            let fields = texts.map(|(key, text)| (key.to_owned(), value(text))).into();
            let extensions = Any {
                type_url: "type.googleapis.com/google.protobuf.Struct".to_owned(),
                value: Struct { fields }.encode_to_vec(),
            };
            let flow = Flow {
                event_type: Some(CiliumEventType { r#type: 1, sub_type: DropReason::PolicyDenied.into() }),
                extensions: Some(extensions),
                ..Flow::default()
            };
            assert_eq!(Cells::of(Options::default(), &flow).reason, told);
        }
    }

    #[test]
    fn requests_are_told_without_whom_they_are_for() {
        for (kind, code, told) in
            [(L7FlowType::Request, 0, "GET /a^[?b=1"), (L7FlowType::Response, 404, "404 GET /a^[?b=1 12ms")]
        {
            let http = Http {
                code,
                method: "GET".into(),
                url: "http://[fd00::1]:8080/a\u{1b}?b=1".into(),
                ..Http::default()
            };
            let l7 = Layer7 { r#type: kind.into(), latency_ns: 12_345_678, record: Some(Record::Http(http)) };
            let flow = Flow { l7: Some(l7), ..Flow::default() };
            assert_eq!(Cells::of(Options::default(), &flow).reason, told);
        }
    }
}
