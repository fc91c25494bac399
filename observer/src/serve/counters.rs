//! What the transports count: what is taken now, what was turned away and why, how the certificate does.

use super::{Limits, tls::CertificateCounters};
use observer_proto::control::{self as wire};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Semaphore;
use tonic::Code;

/// Why a connection was not served, or was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The system gave none: most often too many open files.
    Accept,
    /// All places are taken.
    Connections,
    /// The oldest of too many that had not spoken HTTP/2 yet.
    Handshakes,
    /// It took too long to speak HTTP/2.
    HandshakeTime,
    /// The client went away before it spoke HTTP/2.
    Closed,
    /// It speaks something else than HTTP/2.
    NotHttp2,
    /// It speaks no TLS.
    NotTls,
    /// It has no TLS 1.3, or nothing else in common.
    TlsVersion,
    /// It shows no certificate.
    NoCertificate,
    /// Its certificate is over.
    Expired,
    /// Its certificate is yet to begin.
    NotYetValid,
    /// Its certificate is by none of the client CAs.
    UnknownCa,
    /// Its certificate is wrong otherwise.
    Certificate,
    /// It refused the server's certificate.
    ServerRefused,
    /// TLS went wrong otherwise.
    Tls,
    /// No sign of life.
    Keepalive,
    /// Far more control frames than any client has use for.
    Flood,
    /// It broke HTTP/2's rules, or its limits.
    Protocol,
}

impl Refusal {
    /// Each of them.
    pub const ALL: [Self; 18] = [
        Self::Accept,
        Self::Connections,
        Self::Handshakes,
        Self::HandshakeTime,
        Self::Closed,
        Self::NotHttp2,
        Self::NotTls,
        Self::TlsVersion,
        Self::NoCertificate,
        Self::Expired,
        Self::NotYetValid,
        Self::UnknownCa,
        Self::Certificate,
        Self::ServerRefused,
        Self::Tls,
        Self::Keepalive,
        Self::Flood,
        Self::Protocol,
    ];

    /// In words, the same in the log and in the status.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Accept => "the system gives no connection",
            Self::Connections => "too many connections",
            Self::Handshakes => "too many unfinished handshakes",
            Self::HandshakeTime => "handshake took too long",
            Self::Closed => "closed before HTTP/2",
            Self::NotHttp2 => "no HTTP/2",
            Self::NotTls => "no TLS",
            Self::TlsVersion => "no TLS 1.3",
            Self::NoCertificate => "no client certificate",
            Self::Expired => "client certificate expired",
            Self::NotYetValid => "client certificate not valid yet",
            Self::UnknownCa => "client certificate of an unknown CA",
            Self::Certificate => "client certificate invalid",
            Self::ServerRefused => "client refused the server's certificate",
            Self::Tls => "TLS failed",
            Self::Keepalive => "no sign of life",
            Self::Flood => "flood of control frames",
            Self::Protocol => "HTTP/2 broken",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// gRPC's codes, from OK on.
const CODES: usize = 17;

/// The state of a server's transports, for others to read at any time.
#[derive(Debug)]
pub struct Counters {
    limits: Limits,
    pub(super) free_connections: Arc<Semaphore>,
    pub(super) free_streams: Arc<Semaphore>,
    refusals: [AtomicU64; Refusal::ALL.len()],
    answers: [AtomicU64; CODES],
    certificate: Option<Arc<CertificateCounters>>,
}

impl Counters {
    pub(super) fn new(limits: Limits, certificate: Option<Arc<CertificateCounters>>) -> Self {
        let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            limits,
            free_connections: places(limits.connections),
            free_streams: places(limits.streams),
            refusals: Default::default(),
            answers: Default::default(),
            certificate,
        }
    }

    /// Connections now, those of the control socket not counted.
    pub fn connections(&self) -> u64 {
        self.limits.connections.saturating_sub(self.free_connections.available_permits()) as u64
    }

    /// GetFlows streams now.
    pub fn streams(&self) -> u64 {
        self.limits.streams.saturating_sub(self.free_streams.available_permits()) as u64
    }

    /// Connections that were refused or cut off for this reason.
    pub fn refused(&self, reason: Refusal) -> u64 {
        self.refusals[reason as usize].load(Ordering::Relaxed)
    }

    /// Requests that were answered with this code and nothing else.
    pub fn answered(&self, code: Code) -> u64 {
        self.answers[code as usize].load(Ordering::Relaxed)
    }

    /// The certificate's state, where TCP is encrypted.
    pub fn certificate(&self) -> Option<&CertificateCounters> {
        self.certificate.as_deref()
    }

    /// Counts a connection that is refused, and says so the first, second, fourth, eighth time: whoever floods the socket
    /// must not flood the log.
    pub(super) fn refuse(&self, listener: &str, reason: Refusal, detail: &dyn fmt::Display) {
        let so_far = self.refusals[reason as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if reason == Refusal::Closed {
            // What a health check by connecting does all day.
            tracing::debug!("{listener}: connection refused: {reason}: {detail}");
        } else if so_far.is_power_of_two() {
            tracing::warn!("{listener}: connection refused: {reason}: {detail} ({so_far} so far)");
        }
    }

    /// Counts the status of an answer that consists of nothing else.
    pub(super) fn answer(&self, headers: &http::HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.answers[Code::from_bytes(status.as_bytes()) as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As the control service tells it.
    pub(crate) fn to_wire(&self) -> wire::Server {
        let some = |(reason, count): (String, u64)| (count > 0).then_some(wire::Refusal { reason, count });
        let codes = (1..CODES as i32).map(Code::from_i32);
        wire::Server {
            connections: self.connections(),
            max_connections: self.limits.connections as u64,
            streams: self.streams(),
            max_streams: self.limits.streams as u64,
            refused_connections: Refusal::ALL
                .map(|reason| (reason.text().to_owned(), self.refused(reason)))
                .into_iter()
                .filter_map(some)
                .collect(),
            refused_requests: codes
                .map(|code| (format!("{code:?}"), self.answered(code)))
                .filter_map(some)
                .collect(),
            tls: self.certificate().map(CertificateCounters::to_wire),
        }
    }
}
