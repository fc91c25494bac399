//! HTTP/2 without TLS, as gRPC speaks it.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use observer_proxy::Limits;

use crate::bed::Bed;

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// The client's side, and a server that sends each body back, with a trailer.
async fn connected() -> (Sender, std::sync::Arc<crate::bed::Judge>) {
    let mut bed = Bed::with(Limits::default(), false);
    let judge = std::sync::Arc::clone(&bed.judge);
    let client = std::mem::replace(&mut bed.client, tokio::io::duplex(1).0);
    tokio::spawn(async move {
        loop {
            let server = bed.server().await;
            let service = service_fn(echo);
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { builder.serve_connection(TokioIo::new(server), service).await });
        }
    });
    let io = TokioIo::new(client);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    (sender, judge)
}

async fn echo(
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, std::convert::Infallible>>, std::convert::Infallible> {
    let authority = request.uri().authority().unwrap().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(body)), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames))));
    response.headers_mut().insert("x-authority", authority.parse().unwrap());
    Ok(response)
}

fn request(path: &str, body: &str) -> Request<Full<Bytes>> {
    let uri = format!("http://h{path}");
    Request::post(uri).body(Full::new(Bytes::from(body.to_owned()))).unwrap()
}

#[tokio::test]
async fn each_stream_is_judged_and_trailers_pass() {
    let (mut sender, judge) = connected().await;
    let response = sender.send_request(request("/pkg.Service/Call", "hello")).await.unwrap();
    assert_eq!(response.headers()["x-authority"], "h");
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hello");
    let response = sender.send_request(request("/pkg.Service/deny", "hello")).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "Access denied\r\n");
    // Many at once, over one connection to the server.
    let all = (0..100).map(|n| {
        let mut sender = sender.clone();
        tokio::spawn(async move {
            let path = if n % 3 == 0 { "/deny" } else { "/a" };
            let response = sender.send_request(request(path, &n.to_string())).await.unwrap();
            let status = response.status();
            (n, status, response.into_body().collect().await.unwrap().to_bytes())
        })
    });
    for answer in all.collect::<Vec<_>>() {
        let (n, status, body) = answer.await.unwrap();
        assert_eq!(status == StatusCode::FORBIDDEN, n % 3 == 0);
        assert!(n % 3 == 0 || body == n.to_string());
    }
    assert_eq!(judge.connects.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(judge.told.lock().unwrap().len(), 102);
}

#[tokio::test]
async fn a_host_that_is_said_twice_must_be_one() {
    let (mut sender, judge) = connected().await;
    for (host, status) in [("h", 200), ("other", 400)] {
        let mut asked = request("/a", "");
        asked.headers_mut().insert("host", HeaderValue::from_static(host));
        assert_eq!(sender.send_request(asked).await.unwrap().status(), status, "{host}");
    }
    let tunnel = Request::connect("h:80").body(Full::default()).unwrap();
    assert_eq!(sender.send_request(tunnel).await.unwrap().status(), 400);
    assert_eq!(judge.told.lock().unwrap().len(), 1);
}
