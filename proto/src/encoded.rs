//! Responses that stay encoded: what the reader of a stream needs to know of each before it decodes any.

use crate::{
    flow::Flow,
    json::{
        WriteError,
        wire::{self, END, Reader, Value},
    },
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost_types::Timestamp;

/// Of the fields of a `GetFlowsResponse` that are looked at.
mod key {
    use crate::json::wire::bytes_key;

    pub(super) const FLOW: u32 = bytes_key(1);
    pub(super) const NODE_STATUS: u32 = bytes_key(2);
    pub(super) const LOST_EVENTS: u32 = bytes_key(3);
    pub(super) const TIME: u32 = bytes_key(1001);
}

/// What a `GetFlowsResponse` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the members of the message's oneof")]
pub enum Held {
    Flow,
    NodeStatus,
    LostEvents,
    /// None of them.
    Nothing,
}

/// An encoded `GetFlowsResponse`, as far as its outermost fields tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline<'a> {
    /// Which of its kinds.
    pub held: Held,
    /// That, encoded.
    pub inner: &'a [u8],
    /// The response's own time.
    pub time: Option<Timestamp>,
}

impl<'a> Outline<'a> {
    /// Looks over the outermost fields. Of what stands there twice the last counts.
    pub fn of(response: &'a [u8]) -> Result<Self, WriteError> {
        let mut outline = Self { held: Held::Nothing, inner: &[], time: None };
        let mut reader = Reader::new(response);
        loop {
            let held = match reader.next_key()? {
                END => return Ok(outline),
                key::FLOW => Held::Flow,
                key::NODE_STATUS => Held::NodeStatus,
                key::LOST_EVENTS => Held::LostEvents,
                key::TIME => {
                    let time = outline.time.insert(Timestamp::default());
                    wire::timestamp(reader.delimited()?, time)?;
                    continue;
                }
                key => {
                    reader.pass(key)?;
                    continue;
                }
            };
            (outline.held, outline.inner) = (held, reader.delimited()?);
        }
    }
}

/// The uuid in an encoded flow, or nothing.
pub fn uuid(flow: &[u8]) -> Result<&[u8], WriteError> {
    let mut reader = Reader::new(flow);
    let mut uuid: &[u8] = &[];
    while let Some((number, value)) = reader.field()? {
        if let (34, Value::Bytes(found)) = (number, value) {
            uuid = found;
        }
    }
    Ok(uuid)
}

/// Puts a response around a flow, with its time and node, as a server does it.
pub fn around(flow: Flow) -> GetFlowsResponse {
    GetFlowsResponse {
        node_name: flow.node_name.clone(),
        time: flow.time,
        response_types: Some(ResponseTypes::Flow(flow)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn the_outline_of_a_response() {
        let time = Some(Timestamp { seconds: 5, nanos: 6 });
        let flow = Flow { uuid: "u".into(), verdict: 2, time, node_name: "n".into(), ..Flow::default() };
        let encoded = around(flow.clone()).encode_to_vec();
        let outline = Outline::of(&encoded).unwrap();
        assert_eq!((outline.held, outline.time), (Held::Flow, time));
        assert_eq!(Flow::decode(outline.inner).unwrap(), flow);
        assert_eq!(uuid(outline.inner).unwrap(), b"u");

        assert_eq!(Outline::of(&[0x1a, 0]), Ok(Outline { held: Held::LostEvents, inner: &[], time: None }));
        assert_eq!(Outline::of(&[]), Ok(Outline { held: Held::Nothing, inner: &[], time: None }));
        assert_eq!(Outline::of(&[0x0a, 5, 1]), Err(WriteError::Wire));
        assert_eq!(uuid(&Flow::default().encode_to_vec()), Ok(&b""[..]));
    }
}
