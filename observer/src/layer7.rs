//! What was said inside a connection: a request or a response of HTTP or DNS, as Hubble's flow has it; and how TLS began, for which
//! Hubble has no record.

use observer_proto::flow::{self as wire, L7FlowType, layer7::Record};
use prost::Message as _;
use std::fmt;

/// One request or response.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer7 {
    message: wire::Layer7,
    trace_id: Box<str>,
    tls: Option<Tls>,
}

/// A hello of TLS, or what came in the place of the server's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name of the server that the client asked for, without characters that do anything; empty where it said none.
    pub server_name: String,
    /// Of a client the highest that it knows, of a server the one that it chose: `TLS 1.3`. Nothing of an alert.
    pub version: Option<&'static str>,
    /// Why the server did not go on: `handshake_failure`.
    pub alert: Option<String>,
}

impl Layer7 {
    /// With the trace that it is part of, else an empty text.
    pub fn new(message: wire::Layer7, trace_id: &str) -> Self {
        Self { message, trace_id: trace_id.into(), tls: None }
    }

    /// Of TLS: a hello, or after so many nanoseconds, where they are known, its answer.
    pub fn tls_began(tls: Tls, is_answer: bool, latency_ns: u64) -> Self {
        let kind = if is_answer { L7FlowType::Response } else { L7FlowType::Request };
        let message = wire::Layer7 { r#type: kind.into(), latency_ns, record: None };
        Self { message, trace_id: Box::default(), tls: Some(tls) }
    }

    /// How TLS began.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// As Hubble's message.
    pub fn message(&self) -> &wire::Layer7 {
        &self.message
    }

    /// Of HTTP.
    pub fn http(&self) -> Option<&wire::Http> {
        if let Some(Record::Http(http)) = &self.message.record { Some(http) } else { None }
    }

    /// Of DNS.
    pub fn dns(&self) -> Option<&wire::Dns> {
        if let Some(Record::Dns(dns)) = &self.message.record { Some(dns) } else { None }
    }

    /// The trace that the request is part of (W3C's trace context), if it says one.
    pub fn trace_id(&self) -> Option<&str> {
        Some(&*self.trace_id).filter(|id| !id.is_empty())
    }

    /// What it takes on the heap, by and large.
    pub(crate) fn bytes(&self) -> usize {
        let fields = self.http().map_or(0, |http| http.headers.len() * 2);
        let texts = self.dns().map_or(4, |dns| dns.ips.len() + dns.cnames.len() + dns.rrtypes.len() + 2);
        size_of::<Self>()
            + self.message.encoded_len()
            + self.trace_id.len()
            + self.tls.as_ref().map_or(0, |tls| tls.server_name.len())
            + (fields + texts) * (size_of::<String>() + 8)
    }
}

/// Hubble's summary, had it one: `TLS 1.3 ClientHello shop.example`, `TLS 1.2 ServerHello 3ms (shop.example)`.
impl fmt::Display for Layer7 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(tls) = &self.tls else { return observer_proto::summary::write_l7(&self.message, f) };
        match (&tls.alert, tls.version.unwrap_or_default()) {
            (Some(alert), _) => write!(f, "TLS alert {alert}")?,
            (None, version) if self.message.r#type() == L7FlowType::Request => {
                let space = if tls.server_name.is_empty() { "" } else { " " };
                return write!(f, "{version} ClientHello{space}{}", tls.server_name);
            }
            (None, version) => write!(f, "{version} ServerHello")?,
        }
        if self.message.latency_ns > 0 {
            write!(f, " {}ms", self.message.latency_ns / 1_000_000)?;
        }
        if tls.server_name.is_empty() { Ok(()) } else { write!(f, " ({})", tls.server_name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_tls() {
        let tls = |name: &str, version, alert: Option<&str>| Tls {
            server_name: name.to_owned(),
            version,
            alert: alert.map(str::to_owned),
        };
        for (tls, is_answer, latency_ns, expected) in [
            (tls("shop", Some("TLS 1.3"), None), false, 0, "TLS 1.3 ClientHello shop"),
            (tls("", Some("SSL 3.0"), None), false, 0, "SSL 3.0 ClientHello"),
            (tls("shop", Some("TLS 1.2"), None), true, 3_900_000, "TLS 1.2 ServerHello 3ms (shop)"),
            (tls("", Some("TLS 1.2"), None), true, 0, "TLS 1.2 ServerHello"),
            (tls("shop", None, Some("unrecognized_name")), true, 1, "TLS alert unrecognized_name 0ms (shop)"),
        ] {
            assert_eq!(Layer7::tls_began(tls, is_answer, latency_ns).to_string(), expected);
        }
    }
}
