//! What clients may take.

use std::time::Duration;

/// What a server turns down; the table in [`super`] says what happens beyond each.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, unix and TCP together; the control socket has as many of its own.
    pub connections: usize,
    /// Connections of a socket that have not spoken HTTP/2 yet.
    pub handshakes: usize,
    /// How long such a one may take, TLS included.
    pub handshake_time: Duration,
    /// GetFlows streams at a time, over all connections.
    pub streams: usize,
    /// HTTP/2 streams of one connection.
    pub streams_per_connection: u32,
    /// Bytes of one request message.
    pub message_bytes: usize,
    /// Bytes of a request's headers.
    pub header_bytes: u32,
    /// A client is asked for a sign of life after so long without one, and has as long again to give it.
    pub keepalive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            handshakes: 256,
            handshake_time: Duration::from_secs(10),
            streams: 1000,
            streams_per_connection: 100,
            message_bytes: 4 << 20,
            header_bytes: 16 << 10,
            keepalive: Duration::from_secs(10),
        }
    }
}
