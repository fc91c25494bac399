//! TLS 1.3 for TCP: certificate, key and client CAs from files, loaded again when they change.
//!
//! A handshake takes the configuration that is current when it begins; connections that are open keep theirs.

mod load;

use super::Refusal;
use crate::followed::{Followed, INTERVAL, Look};
use arc_swap::{ArcSwap, ArcSwapOption};
use load::Loaded;
pub use load::TlsError;
use observer_proto::control as wire;
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};
use tokio_rustls::rustls::{CertificateError, Error, ServerConfig};

/// The files of TLS, PEM each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, then what leads from it to its CA.
    pub certificate: PathBuf,
    /// Its private key, unencrypted.
    pub key: PathBuf,
    /// CAs of clients' certificates; where there are any, a client must show one of theirs.
    pub client_cas: Vec<PathBuf>,
}

/// The configuration in use.
#[derive(Debug)]
pub(super) struct Certificate {
    files: TlsConfig,
    current: ArcSwap<ServerConfig>,
    counters: Arc<CertificateCounters>,
}

impl Certificate {
    /// Loads the files, or says which of them is wrong. What follows them does so while it is polled.
    pub(super) fn load(files: TlsConfig) -> Result<(Arc<Self>, impl Future<Output = ()> + Send), TlsError> {
        let paths = [&files.certificate, &files.key].into_iter().chain(&files.client_cas);
        let followed = Followed::new(paths.cloned());
        let Loaded { config, expires } = Loaded::new(&files)?;
        let counters = CertificateCounters {
            client_certificates: !files.client_cas.is_empty(),
            expires: expires.into(),
            ..CertificateCounters::default()
        };
        counters.warn_if_expired(&files);
        let loaded = Arc::new(Self { files, current: ArcSwap::new(config), counters: Arc::new(counters) });
        Ok((Arc::clone(&loaded), loaded.follow(followed)))
    }

    /// Looks at the files for ever.
    async fn follow(self: Arc<Self>, mut files: Followed) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let this = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || {
                if files.look() == Look::Changed {
                    this.take(&files);
                }
                files
            });
            // An error means that the runtime ends.
            let Ok(looked_at) = look.await else { return };
            files = looked_at;
        }
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    pub(super) fn counters(&self) -> &Arc<CertificateCounters> {
        &self.counters
    }

    /// Takes what is in the files now, all or none.
    fn take(&self, files: &Followed) {
        let loaded = Loaded::new(&self.files);
        if !files.are_whole() {
            return;
        }
        match loaded {
            Ok(Loaded { config, expires }) => {
                self.current.store(config);
                self.counters.expires.store(expires, Ordering::Relaxed);
                self.counters.reloads.fetch_add(1, Ordering::Relaxed);
                self.counters.problem.store(None);
                tracing::info!(certificate = %self.files.certificate.display(), "TLS files reloaded");
                self.counters.warn_if_expired(&self.files);
            }
            Err(error) => {
                self.counters.failed_reloads.fetch_add(1, Ordering::Relaxed);
                self.counters.problem.store(Some(Arc::new(error.to_string())));
                tracing::warn!("{error}; the certificate that was loaded before stays in use");
            }
        }
    }
}

/// What is to be known of the certificate in use.
#[derive(Debug, Default)]
pub struct CertificateCounters {
    client_certificates: bool,
    expires: AtomicI64,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    problem: ArcSwapOption<String>,
}

impl CertificateCounters {
    /// Unix time in seconds at which it expires.
    pub fn expires(&self) -> i64 {
        self.expires.load(Ordering::Relaxed)
    }

    /// Seconds until then, negative after it.
    pub fn expires_in(&self) -> i64 {
        self.expires().saturating_sub(super::stream::now_ns() / 1_000_000_000)
    }

    /// Times that changed files were taken into use.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::Relaxed)
    }

    /// Times that changed files were not, because something was wrong with them.
    pub fn failed_reloads(&self) -> u64 {
        self.failed_reloads.load(Ordering::Relaxed)
    }

    /// What was wrong with them the last time, unless they were taken since.
    pub fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    pub(super) fn to_wire(&self) -> wire::Tls {
        wire::Tls {
            client_certificates: self.client_certificates,
            expires: Some(prost_types::Timestamp { seconds: self.expires(), nanos: 0 }),
            expires_in_seconds: self.expires_in(),
            reloads: self.reloads(),
            failed_reloads: self.failed_reloads(),
            problem: self.problem().unwrap_or_default(),
        }
    }

    fn warn_if_expired(&self, files: &TlsConfig) {
        if self.expires_in() < 0 {
            tracing::warn!(
                "{}: the certificate has expired; clients will refuse it",
                files.certificate.display()
            );
        }
    }
}

/// Whose fault a failed handshake was.
pub(super) fn refusal(error: &io::Error) -> Refusal {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return Refusal::Closed;
    };
    match error {
        Error::NoCertificatesPresented => Refusal::NoCertificate,
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Refusal::Expired
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => Refusal::NotYetValid,
        // The second where the CA has the name of a known one and another key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Refusal::UnknownCa
        }
        Error::InvalidCertificate(_) => Refusal::Certificate,
        Error::PeerIncompatible(_) => Refusal::TlsVersion,
        Error::AlertReceived(_) => Refusal::ServerRefused,
        Error::InvalidMessage(_) => Refusal::NotTls,
        _ => Refusal::Tls,
    }
}
