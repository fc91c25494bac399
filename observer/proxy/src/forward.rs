//! One request: asked about, then passed on or answered here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT, HOST, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use crate::body::{self, Answer, Busy, Content};
use crate::guarded::Shared;
use crate::server::{Failed, Server};
use crate::{Ruling, Session};

/// Of the body of a denied request so much is read, so that the connection can be kept.
const MOST_UNREAD: usize = 64 << 10;
/// And for so long.
const UNREAD: Duration = Duration::from_secs(5);
/// What RFC 7540 puts beside `Upgrade: h2c`.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// All requests of a client's connection.
pub(crate) struct Forward<S, T> {
    pub(crate) session: Arc<S>,
    pub(crate) server: Server<S>,
    pub(crate) shared: Arc<Shared<T>>,
}

impl<S: Session, T: Send + 'static> Forward<S, T> {
    /// Never fails: what goes wrong is an answer too.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Answer>, Infallible> {
        let busy = Busy(Arc::clone(&self.shared.answered));
        let response = self.judged(request).await;
        Ok(response.map(|content| Answer::new(content, busy)))
    }

    async fn judged(&self, request: Request<Incoming>) -> Response<Content> {
        if request.version() == Version::HTTP_2 && !is_in_order(&request) {
            return body::status(StatusCode::BAD_REQUEST);
        }
        let (parts, incoming) = request.into_parts();
        let (ruling, asked) = self.session.ask(&parts);
        let request = Request::from_parts(parts, incoming);
        let response = match ruling {
            Ruling::Deny => denied(request).await,
            Ruling::Allow => self.pass(request).await.unwrap_or_else(|Failed(status)| body::status(status)),
        };
        self.session.answered(asked, response.status().as_u16());
        response
    }

    async fn pass(&self, mut request: Request<Incoming>) -> Result<Response<Content>, Failed> {
        let switches = request.headers().contains_key(UPGRADE) && !stay(request.headers_mut());
        let client = switches.then(|| hyper::upgrade::on(&mut request));
        let mut response = self.server.send(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else { return Err(Failed(StatusCode::BAD_GATEWAY)) };
            self.shared.switched.store(true, Ordering::Release);
            tokio::spawn(switched(client, hyper::upgrade::on(&mut response)));
        }
        Ok(response.map(Either::Left))
    }
}

/// Has the connection stay with HTTP/1 where the client offers to change to HTTP/2 within it, which a server may always
/// decline: its requests would not be read as such. Whether it did.
fn stay(headers: &mut HeaderMap) -> bool {
    let offers = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|part| {
            let name = part.trim_ascii();
            name.eq_ignore_ascii_case(b"h2c") || name.len() > 4 && name[..5].eq_ignore_ascii_case(b"http/")
        })
    };
    if !headers.get_all(UPGRADE).iter().any(offers) {
        return false;
    }
    headers.remove(UPGRADE);
    headers.remove(HTTP2_SETTINGS);
    let closes = headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"close"))
    });
    headers.remove(CONNECTION);
    if closes {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    true
}

/// Carries what both sides say from here on, until both have ended.
async fn switched(client: OnUpgrade, server: OnUpgrade) {
    if let (Ok(client), Ok(server)) = (client.await, server.await) {
        // However it ends, both are closed.
        let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
    }
}

/// What `framing` finds out in HTTP/1: the host is said once, and no tunnel is asked for.
fn is_in_order(request: &Request<Incoming>) -> bool {
    let hosts: Vec<&HeaderValue> = request.headers().get_all(HOST).iter().collect();
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let is_one = match (authority, hosts.as_slice()) {
        (Some(_), []) => true,
        (Some(authority), [host]) => host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()),
        (None, hosts) => hosts.len() == 1,
        _ => false,
    };
    is_one && *request.method() != Method::CONNECT
}

/// Reads what little there may be of the body, else the connection ends with the answer.
async fn denied(request: Request<Incoming>) -> Response<Content> {
    // Who waits for a word before sending a body is not told to send it.
    let waits = request.headers().contains_key(EXPECT);
    let is_read = !waits && timeout(UNREAD, drained(request.into_body())).await.unwrap_or(false);
    let mut response = body::denied();
    if !is_read {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn drained(mut incoming: Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, bytes::Bytes::len);
        if read > MOST_UNREAD {
            return false;
        }
    }
    true
}
