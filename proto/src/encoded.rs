//! Responses that stay encoded: what the reader of a stream needs to know of each before it decodes any.

use crate::{
    flow::Flow,
    json::{
        WriteError,
        wire::{Reader, Value},
    },
    observer::{GetFlowsResponse, get_flows_response::ResponseTypes},
};
use prost::Message as _;
use prost_types::Timestamp;

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
        while let Some((number, value)) = reader.field()? {
            let Value::Bytes(inner) = value else { continue };
            let held = match number {
                1 => Held::Flow,
                2 => Held::NodeStatus,
                3 => Held::LostEvents,
                1001 => {
                    outline.time = Some(Timestamp::decode(inner).map_err(|_| WriteError::Wire)?);
                    continue;
                }
                _ => continue,
            };
            (outline.held, outline.inner) = (held, inner);
        }
        Ok(outline)
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
