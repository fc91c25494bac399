//! A transparent proxy for HTTP/1.1 and HTTP/2 without TLS: it asks about each request, answers `403` to those that are
//! denied, and passes on the others with all that they hold. It knows nothing of policies, nor of how connections come here.
//!
//! One connection to the server stands behind one of the client, made for its first allowed request; so what a server binds
//! to a connection stays with its client, and who is denied everything is never seen by the server.
//!
//! A request that two readers could understand differently is refused: `framing` lets nothing pass to hyper that is not
//! written as RFC 9112 wants it, and what hyper has read it writes anew.
#![forbid(unsafe_code)]

mod body;
mod forward;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod guarded;
mod path;
mod serve;
mod server;

use std::io;
use std::time::Duration;

use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};

pub use path::normal;
pub use serve::{End, serve};

/// What is said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is passed on.
    Allow,
    /// It is answered with `403`.
    Deny,
}

/// What the proxy asks about one connection of a client, and tells of it.
pub trait Session: Send + Sync + 'static {
    /// What is kept of a request until it is answered.
    type Asked: Send + 'static;
    /// A connection to a server.
    type Server: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// Judges a request. Its target may be a path or have the host before it, as it was written.
    fn ask(&self, request: &Parts) -> (Ruling, Self::Asked);

    /// Tells how it was answered, by the server or by the proxy.
    fn answered(&self, asked: Self::Asked, status: u16);

    /// Connects to the server.
    fn connect(&self) -> impl Future<Output = io::Result<Self::Server>> + Send;
}

/// How long and how much is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the rest of a head, and of a line between chunks, that has begun.
    pub head: Duration,
    /// For the next request, the next part of a body, or room for more of a response.
    pub idle: Duration,
    /// For more of an answer, where the client says no more: whether it still reads nobody knows until it is written to.
    pub ended: Duration,
    /// For the server to take the connection.
    pub connect: Duration,
    /// Requests at once in a connection of HTTP/2.
    pub streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(30),
            // Servers close what idles much earlier; this is for those who do not.
            idle: Duration::from_mins(15),
            ended: Duration::from_mins(1),
            connect: Duration::from_secs(10),
            streams: 128,
        }
    }
}
