//! How TCP is served: encrypted, or plain where that was said aloud.

use super::ConfigError;
use crate::serve::TlsConfig;
use std::path::PathBuf;

/// What was written of it.
pub(super) struct Transport {
    pub(super) listens: bool,
    pub(super) insecure: bool,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_cas: Vec<PathBuf>,
}

impl Transport {
    /// What is to be served with, nothing for plain TCP or none.
    pub(super) fn check(self) -> Result<Option<TlsConfig>, ConfigError> {
        let wrong = |field, problem: &str| Err(ConfigError::Value { field, problem: problem.to_owned() });
        let (certificate, key) = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => return wrong("--tls-cert-file", "its key is missing: add --tls-key-file"),
            (None, Some(_)) => {
                return wrong("--tls-key-file", "its certificate is missing: add --tls-cert-file");
            }
            (None, None) if !self.client_cas.is_empty() => {
                return wrong(
                    "--tls-client-ca-files",
                    "the server has no certificate itself: add --tls-cert-file and --tls-key-file",
                );
            }
            (None, None) if self.listens && !self.insecure => {
                return wrong(
                    "--listen",
                    "TCP needs a certificate: add --tls-cert-file and --tls-key-file, or add --insecure if plain \
                     text is meant",
                );
            }
            (None, None) => return Ok(None),
        };
        if self.insecure {
            return wrong("--insecure", "there is a certificate for TCP: leave out the one or the other");
        }
        if !self.listens {
            return wrong("--tls-cert-file", "TLS is for TCP, and none is served: add --listen");
        }
        Ok(Some(TlsConfig { certificate, key, client_cas: self.client_cas }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_is_encrypted_or_plain_by_order() {
        let base =
            || Transport { listens: true, insecure: false, certificate: None, key: None, client_cas: vec![] };
        let some = |name: &str| Some(PathBuf::from(name));
        let files = || Transport { certificate: some("c"), key: some("k"), ..base() };
        let tls = TlsConfig { certificate: "c".into(), key: "k".into(), client_cas: vec!["a".into()] };
        for (transport, expected) in [
            (Transport { listens: false, ..base() }, Ok(None)),
            (Transport { insecure: true, ..base() }, Ok(None)),
            (Transport { client_cas: tls.client_cas.clone(), ..files() }, Ok(Some(tls.clone()))),
            (base(), Err("--listen: TCP needs a certificate")),
            (Transport { key: None, ..files() }, Err("--tls-cert-file: its key is missing")),
            (Transport { certificate: None, ..files() }, Err("--tls-key-file: its certificate is missing")),
            (
                Transport { client_cas: vec!["a".into()], insecure: true, ..base() },
                Err("--tls-client-ca-files: the server has no certificate"),
            ),
            (Transport { insecure: true, ..files() }, Err("--insecure: there is a certificate")),
            (Transport { listens: false, ..files() }, Err("--tls-cert-file: TLS is for TCP")),
        ] {
            match (transport.check(), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(text)) => assert!(error.to_string().starts_with(text), "{error}"),
                (found, expected) => panic!("{found:?} for {expected:?}"),
            }
        }
    }
}
