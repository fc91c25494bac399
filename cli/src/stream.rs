//! GetFlows as a stream of encoded responses: most of them are printed without being decoded whole.

use crate::connect::Connection;
use bytes::{Buf as _, Bytes};
use http::uri::PathAndQuery;
use observer_proto::observer::{GetFlowsRequest, GetFlowsResponse};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
    metadata::MetadataMap,
};
use tonic_prost::ProstCodec;

/// A flow with long L7 records is far below this; gRPC's own default is the same.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// What a message may bring along without the buffer growing.
const BUFFER: usize = 64 * 1024;

/// Hubble's version whose messages are known here: its major and minor number.
const KNOWN: (u64, u64) = (1, 20);

/// The flows that were asked for, and what is to be said of the server's version.
pub(crate) struct Flows {
    pub(crate) stream: Streaming<Bytes>,
    pub(crate) warning: Option<String>,
}

/// Asks for flows.
pub(crate) async fn flows(channel: Connection, request: GetFlowsRequest) -> Result<Flows, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static("/observer.Observer/GetFlows");
    let response = client.server_streaming(Request::new(request), path, Encoded).await?;
    let warning = too_new(response.metadata());
    Ok(Flows { stream: response.into_inner(), warning })
}

/// As Hubble warns, of a server that may tell what is not known here; changes below the minor number add nothing.
fn too_new(headers: &MetadataMap) -> Option<String> {
    ["hubble-relay-version", "hubble-server-version"].into_iter().find_map(|name| {
        let version = headers.get(name)?.to_str().ok()?;
        let mut numbers = version.trim_start_matches('v').split('.');
        let mut number = || numbers.next()?.parse().ok();
        let (major, minor) = (number()?, number()?);
        ((major, minor) > KNOWN).then(|| {
            format!(
                "the server is of Hubble {major}.{minor}, newer than {}.{}, which this observe knows: what is new is not shown",
                KNOWN.0, KNOWN.1
            )
        })
    })
}

/// Takes messages as they are.
#[derive(Clone, Copy)]
struct Encoded;

type Prost = ProstCodec<GetFlowsRequest, GetFlowsResponse>;

impl Codec for Encoded {
    type Encode = GetFlowsRequest;
    type Decode = Bytes;
    type Encoder = <Prost as Codec>::Encoder;
    type Decoder = Self;

    fn encoder(&mut self) -> Self::Encoder {
        Prost::default().encoder()
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Decoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_newer_than_what_is_known_is_told() {
        for (name, version, is_told) in [
            ("hubble-server-version", "1.20.9+g0123456", false),
            ("hubble-server-version", "1.21.0-rc.1", true),
            ("hubble-relay-version", "v2.0.0", true),
            ("hubble-server-version", "0.1.0", false),
            ("hubble-server-version", "newest", false),
            ("another-version", "9.9.9", false),
        ] {
            let mut headers = MetadataMap::new();
            headers.insert(name, version.parse().unwrap());
            assert_eq!(too_new(&headers).is_some(), is_told, "{name}: {version}");
        }
    }
}
