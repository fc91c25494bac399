//! What was said inside a connection: a request or a response of HTTP or DNS, as Hubble's flow has it.

use observer_proto::flow::{self as wire, layer7::Record};
use prost::Message as _;

/// One request or response.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer7 {
    message: wire::Layer7,
    trace_id: Box<str>,
}

impl Layer7 {
    /// With the trace that it is part of, else an empty text.
    pub fn new(message: wire::Layer7, trace_id: &str) -> Self {
        Self { message, trace_id: trace_id.into() }
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
            + (fields + texts) * (size_of::<String>() + 8)
    }
}
