//! Hubble's JSON: one message per line, as its CLI and its exporter print it, byte for byte.
//!
//! Writing goes from encoded protobuf to JSON by tables made once from the descriptors, without building messages:
//! fields in the order of their declaration under their proto names, unset ones left out, enums by name, 64-bit
//! numbers as strings, `<`, `>` and `&` escaped as Go does it. Reading goes the other way by the same tables and takes
//! what Go's protojson takes, proto names and camelCase.

mod calendar;
mod escape;
mod indent;
mod known;
mod mask;
mod read;
mod schema;
mod well_known;
pub(crate) mod wire;
mod words;
mod write;

pub use calendar::Calendar;
pub(crate) use escape::{ONES, any_word, below, digits as digits_into, digits_of, zeros};
pub use escape::{double, escaped, unsigned};
pub use indent::indented;
pub use mask::Mask;
pub use read::{ReadError, Reader, read, read_many};
pub use schema::MessageType;
pub use write::{WriteError, Writer};

use crate::observer::{GetFlowsResponse, get_flows_response::ResponseTypes};

/// Writes one message as a line without its newline. For many messages keep a [`Writer`].
pub fn line<M: prost::Message + prost::Name>(message: &M) -> Result<String, WriteError> {
    let mut out = Vec::new();
    Writer::new().message(message, &mut out)?;
    // The writer copies UTF-8 text only; a byte that is not would be an error above.
    String::from_utf8(out).map_err(|_| WriteError::Utf8)
}

/// An encoded descriptor of a `.proto` file as one line; numbers for enums, as Go's plain encoder writes them.
pub fn descriptor_line(encoded: &[u8]) -> Result<String, String> {
    let kind =
        MessageType::named("google.protobuf.FileDescriptorProto").ok_or("no descriptor of descriptors")?;
    let mut out = Vec::new();
    Writer::new().write(kind, encoded, &mut out).map_err(|error| error.to_string())?;
    String::from_utf8(out).map_err(|error| error.to_string())
}

/// Writes what stands inside a response, without the response around it: the flow or the lost events. This is the
/// form that the oldest Hubble had (`HUBBLE_COMPAT=legacy-json-output`); a node status has none, then nothing is
/// written and the answer is `false`.
pub fn legacy(
    writer: &mut Writer,
    response: &GetFlowsResponse,
    out: &mut Vec<u8>,
) -> Result<bool, WriteError> {
    match &response.response_types {
        Some(ResponseTypes::Flow(flow)) => writer.message(flow, out).map(|()| true),
        Some(ResponseTypes::LostEvents(lost)) => writer.message(lost, out).map(|()| true),
        Some(ResponseTypes::NodeStatus(_)) | None => Ok(false),
    }
}
