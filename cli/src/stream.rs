//! GetFlows as a stream of encoded responses: most of them are printed without being decoded whole.

use crate::connect::Connection;
use bytes::{Buf as _, Bytes};
use http::uri::PathAndQuery;
use observer_proto::observer::{GetFlowsRequest, GetFlowsResponse};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstCodec;

/// A flow with long L7 records is far below this; gRPC's own default is the same.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// What a message may bring along without the buffer growing.
const BUFFER: usize = 64 * 1024;

/// Asks for flows.
pub(crate) async fn flows(channel: Connection, request: GetFlowsRequest) -> Result<Streaming<Bytes>, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let path = PathAndQuery::from_static("/observer.Observer/GetFlows");
    Ok(client.server_streaming(Request::new(request), path, Encoded).await?.into_inner())
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
