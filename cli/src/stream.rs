//! GetFlows as a stream of encoded responses: most of them are printed without being decoded whole.

use crate::{connect::Connection, messages::Messages};
use http::{
    HeaderMap, Request, Version,
    header::{CONTENT_TYPE, TE},
};
use observer_proto::observer::{GetFlowsRequest, GetFlowsResponse};
use tonic::{
    Status,
    body::Body,
    codec::{Codec as _, EncodeBody},
    service::interceptor::ResponseBody,
};
use tonic_prost::ProstCodec;
use tower::{Service as _, ServiceExt as _};

/// So much memory that is free stays ours.
const KEPT: usize = 2 * 1024 * 1024;

/// Hubble's version whose messages are known here: its major and minor number.
const KNOWN: (u64, u64) = (1, 20);

/// The flows that were asked for, and what is to be said of the server's version.
pub(crate) struct Flows {
    pub(crate) stream: Encoded,
    pub(crate) warning: Option<String>,
}

/// Responses that are not decoded.
pub(crate) type Encoded = Messages<ResponseBody<Body>>;

/// Asks for flows.
pub(crate) async fn flows(mut channel: Connection, request: GetFlowsRequest) -> Result<Flows, Status> {
    keep_freed_memory();
    let encoder = ProstCodec::<_, GetFlowsResponse>::default().encoder();
    let body = EncodeBody::new_client(encoder, tokio_stream::once(Ok(request)), None, None);
    let request = Request::post("/observer.Observer/GetFlows")
        .version(Version::HTTP_2)
        .header(TE, "trailers")
        .header(CONTENT_TYPE, "application/grpc")
        .body(Body::new(body))
        .map_err(|error| Status::from_error(error.into()))?;
    let failed = |error: tonic::transport::Error| Status::from_error(error.into());
    let response = channel.ready().await.map_err(failed)?.call(request).await.map_err(failed)?;
    let warning = too_new(response.headers());
    Ok(Flows { stream: Messages::new(response)?, warning })
}

/// What a burst of flows takes is free a moment later, and glibc would give it back and ask for it again with each burst: up to
/// a page fault for each dozen flows. Once it has seen an allocation of its own mapping freed it keeps twice as much as that
/// (mallopt(3), `M_MMAP_THRESHOLD`).
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT / 2)));
}

/// As Hubble warns, of a server that may tell what is not known here; changes below the minor number add nothing.
fn too_new(headers: &HeaderMap) -> Option<String> {
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
            let mut headers = HeaderMap::new();
            headers.insert(name, version.parse().unwrap());
            assert_eq!(too_new(&headers).is_some(), is_told, "{name}: {version}");
        }
    }
}
