//! The connection to the server behind a client's.

use std::io;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::{Limits, Session};

/// Made when the first request needs it, and again where the server has closed it between two.
pub(crate) struct Server<S> {
    session: Arc<S>,
    limits: Limits,
    http2: bool,
    sender: Mutex<Option<Sender>>,
}

enum Sender {
    Http1(http1::SendRequest<Incoming>),
    Http2(http2::SendRequest<Incoming>),
}

/// Why a server did not answer, as the status that says so.
pub(crate) struct Failed(pub(crate) StatusCode);

impl<S: Session> Server<S> {
    pub(crate) fn new(session: Arc<S>, limits: Limits, http2: bool) -> Self {
        Self { session, limits, http2, sender: Mutex::new(None) }
    }

    /// Passes a request on and waits for the head of its answer.
    pub(crate) async fn send(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Failed> {
        loop {
            let mut sender = self.sender.lock().await;
            let is_new = self.ready(&mut sender).await?;
            let sent = match sender.as_mut() {
                // Requests of HTTP/1 come one after the other.
                Some(Sender::Http1(http1)) => http1.try_send_request(request).await,
                Some(Sender::Http2(http2)) => {
                    let mut http2 = http2.clone();
                    drop(sender);
                    http2.try_send_request(request).await
                }
                None => return Err(Failed(StatusCode::BAD_GATEWAY)),
            };
            let mut error = match sent {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            match error.take_message() {
                // The server has closed an idle connection; nothing of the request was sent.
                Some(unsent) if !is_new => request = unsent,
                _ => return Err(Failed(status_of(error.error()))),
            }
        }
    }

    /// Connects where there is no connection that can be used; whether it did.
    async fn ready(&self, sender: &mut Option<Sender>) -> Result<bool, Failed> {
        let is_ready = match sender {
            Some(Sender::Http1(http1)) => http1.ready().await.is_ok(),
            Some(Sender::Http2(http2)) => http2.ready().await.is_ok(),
            None => false,
        };
        if !is_ready {
            let connected = timeout(self.limits.connect, self.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            *sender = Some(connected.map_err(|_| Failed(StatusCode::SERVICE_UNAVAILABLE))?);
        }
        Ok(!is_ready)
    }

    async fn connect(&self) -> io::Result<Sender> {
        let stream = TokioIo::new(self.session.connect().await?);
        // Each connection's task ends with its sender, or when the server closes it; whoever sends is told why.
        Ok(if self.http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_send_buf_size(256 << 10);
            let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let mut builder = http1::Builder::new();
            builder.preserve_header_case(true);
            let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection.with_upgrades());
            Sender::Http1(sender)
        })
    }
}

/// A body that can't be read is the client's fault, everything else the server's.
fn status_of(error: &hyper::Error) -> StatusCode {
    if error.is_user() { StatusCode::BAD_REQUEST } else { StatusCode::BAD_GATEWAY }
}
