//! GetFlows: checks the request, then streams. It stands before the generated service because its body is its own.

use super::{
    Limits,
    api::Places,
    encode::Encoder,
    fanout::Fanout,
    mask::Mask,
    query::{Query, Reader, Selector},
    stream::FlowStream,
    view::NodeView,
};
use crate::{history::History, store::Store};
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use observer_proto::filter::Filters;
use observer_proto::observer::{GetFlowsRequest, GetFlowsResponse};
use prost_types::Timestamp;
use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::watch;
use tonic::{Code, Status, body::Body, codec::Codec as _, server::NamedService};
use tonic_prost::ProstCodec;
use tower::Service;

const PATH: &str = "/observer.Observer/GetFlows";

/// What every GetFlows call needs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    /// Where flows are kept on the disk, if they are.
    pub(super) history: Option<Arc<History>>,
    pub(super) encoder: Encoder,
    pub(super) fanout: Arc<Fanout>,
    pub(super) node: NodeView,
    pub(super) limits: Limits,
    pub(super) places: Places,
    pub(super) shutdown: watch::Receiver<bool>,
}

/// The observer service: GetFlows here, the rest in `inner`.
#[derive(Clone, Debug)]
pub(super) struct WithFlows<S> {
    pub(super) inner: S,
    pub(super) context: Arc<Shared>,
}

impl<S: NamedService> NamedService for WithFlows<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for WithFlows<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(self.inner.call(request));
        }
        let context = Arc::clone(&self.context);
        Box::pin(async move { Ok(get_flows(&context, request).await.unwrap_or_else(Status::into_http)) })
    }
}

async fn get_flows(context: &Shared, request: Request<Body>) -> Result<Response<Body>, Status> {
    let request = read(request, context.limits.message_bytes).await?;
    let (query, mask) = check(request, &context.node)?;
    let permit = context.places.take()?;
    let reader = Reader::new(query, &context.store, context.history.as_ref());
    let stream = FlowStream::new(context, reader, mask, permit);
    let mut response = Response::new(Body::new(stream.into_body()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}

async fn read(request: Request<Body>, most_bytes: usize) -> Result<GetFlowsRequest, Status> {
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Status::unimplemented("grpc-encoding: only identity is supported"));
    }
    let decoder = ProstCodec::<GetFlowsResponse, GetFlowsRequest>::default().decoder();
    tonic::Streaming::new_request(decoder, request.into_body(), None, Some(most_bytes))
        .message()
        .await?
        .ok_or_else(|| Status::internal("missing request message"))
}

pub(super) fn check(request: GetFlowsRequest, node: &NodeView) -> Result<(Query, Option<Mask>), Status> {
    if request.first && request.follow {
        return Err(Status::invalid_argument("first cannot be specified with follow"));
    }
    // Hubble's clients print the text of code Unknown alone, so what the user typed wrong has that code.
    let filter = Filters::compile(&request.whitelist, &request.blacklist).map_err(|invalid| {
        let code = if invalid.is_limit() { Code::InvalidArgument } else { Code::Unknown };
        Status::new(code, invalid.to_string())
    })?;
    let paths = request.field_mask.map(|mask| mask.paths).unwrap_or_default();
    let mask = Mask::parse(&paths).map_err(Status::unknown)?;
    let query = Query {
        number: request.number,
        first: request.first,
        follow: request.follow,
        since: request.since.map(|time| nanoseconds("since", time)).transpose()?,
        until: request.until.map(|time| nanoseconds("until", time)).transpose()?,
        filter: Selector::new(filter.matcher(), node.clone()),
    };
    Ok((query, mask))
}

/// Times that a record can't have are brought to the nearest that it can.
pub(super) fn nanoseconds(field: &str, time: Timestamp) -> Result<i64, Status> {
    /// The range of `google.protobuf.Timestamp`: the years 1 to 9999.
    const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    const SECOND: i64 = 1_000_000_000;
    if !SECONDS.contains(&time.seconds) || !(0..SECOND).contains(&time.nanos.into()) {
        return Err(Status::invalid_argument(format!("{field}: not a valid timestamp: {time:?}")));
    }
    Ok(time.seconds.saturating_mul(SECOND).saturating_add(time.nanos.into()))
}
