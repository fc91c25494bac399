//! From files to a configuration, all or none.

use super::TlsConfig;
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::TLS13,
};
use x509_cert::{Certificate, der::Decode as _};

/// Far above any chain or list of CAs.
const MOST_BYTES: u64 = 1 << 20;

/// What is wrong with a file of TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It can't be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// What is to be in it is not.
    #[error("{}: no {what} in it", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// What should be there.
        what: &'static str,
    },
    /// It is broken, or of no use.
    #[error("{}: {problem}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Each is fine by itself.
    #[error("{}: this key belongs to another certificate than {}", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's.
        certificate: PathBuf,
    },
}

/// A configuration that can be used.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// Unix time in seconds at which the server's certificate expires.
    pub(super) expires: i64,
}

impl Loaded {
    pub(super) fn new(files: &TlsConfig) -> Result<Self, TlsError> {
        let chain = certificates(&files.certificate)?;
        let expires = expires(&files.certificate, &chain[0])?;
        let key = key(&files.key)?;
        let provider = Arc::new(ring::default_provider());
        let unusable = |file: &Path| {
            let file = file.to_owned();
            move |error: &dyn std::fmt::Display| TlsError::Unusable { file, problem: error.to_string() }
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(&files.certificate)(&error))?;
        let builder = if files.client_cas.is_empty() {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for file in &files.client_cas {
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|error| unusable(file)(&error))?;
                }
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder
                .with_client_cert_verifier(verifier.map_err(|error| unusable(&files.client_cas[0])(&error))?)
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { key: files.key.clone(), certificate: files.certificate.clone() }
            }
            Error::InvalidCertificate(_) => unusable(&files.certificate)(&error),
            _ => unusable(&files.key)(&error),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session that is taken up again would skip the look at the client's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), expires })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    // One byte more than allowed tells a device without an end.
    let read = File::open(file).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Ok(read) if read as u64 <= MOST_BYTES => Ok(bytes),
        Ok(_) => Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB")),
        Err(error) => Err(error),
    }
    .map_err(|error| TlsError::Read { file: file.to_owned(), error })
}

/// One at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(&read(file)?).collect::<Result<Vec<_>, _>>();
    let all =
        all.map_err(|error| TlsError::Unusable { file: file.to_owned(), problem: error.to_string() })?;
    if all.is_empty() {
        return Err(TlsError::Missing { file: file.to_owned(), what: "certificate (PEM)" });
    }
    Ok(all)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    use tokio_rustls::rustls::pki_types::pem::Error::NoItemsFound;
    PrivateKeyDer::from_pem_slice(&read(file)?).map_err(|error| match error {
        NoItemsFound => TlsError::Missing { file: file.to_owned(), what: "private key (PEM, unencrypted)" },
        error => TlsError::Unusable { file: file.to_owned(), problem: error.to_string() },
    })
}

fn expires(file: &Path, certificate: &CertificateDer<'_>) -> Result<i64, TlsError> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|error| TlsError::Unusable { file: file.to_owned(), problem: error.to_string() })?;
    let end = parsed.tbs_certificate().validity().not_after.to_unix_duration();
    Ok(i64::try_from(end.as_secs()).unwrap_or(i64::MAX))
}
