//! TLS on the way to the server: what is trusted, who the client is, and what went wrong in words for people.

use crate::args::TlsArgs;
use std::{env, ffi::OsString, fmt::Display, io, path::Path, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        AlertDescription, CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error,
        RootCertStore, SignatureScheme,
        client::{
            WantsClientCert,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject as _},
    },
};

/// What TLS was asked to be.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl TlsArgs {
    /// With the environment in the place of what was not given.
    pub(crate) fn or_environment(self) -> Self {
        let variable = |name: &str| {
            let set =
                |prefix: &str| env::var_os(format!("{prefix}_TLS{name}")).filter(|value| !value.is_empty());
            set("OBSERVE").or_else(|| set("HUBBLE"))
        };
        let is_on = |name| variable(name).is_some_and(|value| value == "true" || value == "1");
        let path = |given: Option<_>, name| given.or_else(|| variable(name).map(Into::into));
        let files = |list: OsString| list.to_string_lossy().split(',').map(Into::into).collect();
        Self {
            tls: self.tls || is_on(""),
            tls_allow_insecure: self.tls_allow_insecure || is_on("_ALLOW_INSECURE"),
            tls_server_name: self
                .tls_server_name
                .or_else(|| variable("_SERVER_NAME").and_then(|name| name.into_string().ok())),
            tls_ca_cert_files: match variable("_CA_CERT_FILES") {
                Some(list) if self.tls_ca_cert_files.is_empty() => files(list),
                _ => self.tls_ca_cert_files,
            },
            tls_client_cert_file: path(self.tls_client_cert_file, "_CLIENT_CERT_FILE"),
            tls_client_key_file: path(self.tls_client_key_file, "_CLIENT_KEY_FILE"),
        }
    }

    /// Whether something was given that is of use with TLS only.
    pub(crate) fn wants_tls(&self) -> bool {
        self.tls_client_cert_file.is_some() || self.tls_client_key_file.is_some()
    }
}

impl Tls {
    /// Reads the files. Errors are one line that names the flag.
    pub(crate) fn new(args: &TlsArgs) -> Result<Self, String> {
        let builder = if args.tls_allow_insecure { any_server()? } else { trusted(args)? };
        let mut config = match (&args.tls_client_cert_file, &args.tls_client_key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(chain), Some(key)) => {
                let flag = "--tls-client-key-file";
                let key_of = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(flag, key, &error))?;
                let chain = certificates("--tls-client-cert-file", chain)?;
                builder.with_client_auth_cert(chain, key_of).map_err(|error| in_file(flag, key, &error))?
            }
            // Hubble's words.
            _ => {
                return Err(
                    "invalid flag(s): certificate and private key are both required, but only one was \
                            provided"
                        .to_owned(),
                );
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = args.tls_server_name.clone().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("--tls-server-name: {name:?} is no host name"))
        });
        Ok(Self { config: Arc::new(config), name: name.transpose()? })
    }

    /// Whether there is TLS at all, whoever answers.
    pub(crate) async fn is_spoken_by(target: &str) -> bool {
        let Ok(builder) = any_server() else { return false };
        let any = Self { config: Arc::new(builder.with_no_client_auth()), name: None };
        match any.connect(target).await {
            Ok(_) => true,
            Err(error) => error
                .get_ref()
                .and_then(|error| error.downcast_ref())
                .is_some_and(|error| matches!(error, Error::AlertReceived(_) | Error::PeerIncompatible(_))),
        }
    }

    /// Encrypts a connection to `target`, which is `host:port`.
    pub(crate) async fn connect(&self, target: &str) -> io::Result<TlsStream<TcpStream>> {
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

type Builder = ConfigBuilder<ClientConfig, WantsClientCert>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn trusted(args: &TlsArgs) -> Result<Builder, String> {
    let mut roots = RootCertStore::empty();
    for file in &args.tls_ca_cert_files {
        let flag = "--tls-ca-cert-files";
        for certificate in certificates(flag, file)? {
            roots.add(certificate).map_err(|error| in_file(flag, file, &error))?;
        }
    }
    if args.tls_ca_cert_files.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(
                "this machine has no root certificates: name the server's CA with --tls-ca-cert-files"
                    .to_owned(),
            );
        }
    }
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots))
}

fn any_server() -> Result<Builder, String> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    Ok(builder.with_custom_certificate_verifier(Arc::new(AnyServer(provider()))))
}

fn in_file(flag: &str, file: &Path, error: &dyn Display) -> String {
    format!("{flag}: {}: {error}", file.display())
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, pem::Error> = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    match all {
        Ok(all) if all.is_empty() => Err(in_file(flag, file, &"no certificate (PEM) in it")),
        all => all.map_err(|error| in_file(flag, file, &error)),
    }
}

/// What is wrong and what to do, if it is TLS that failed.
pub(crate) fn explain(error: &io::Error) -> Option<(String, String)> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let (why, remedy) = match error {
        // The second where its CA has the name of a trusted one and another key.
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => (
            "the server's certificate is of a CA that is not trusted".to_owned(),
            "name its CA with --tls-ca-cert-files",
        ),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => (
            format!("the server's certificate is for another name: {}", names(presented)),
            "name it with --tls-server-name",
        ),
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => (
            format!("the server's certificate does not hold now: {error}"),
            "renew it, or set the clock right",
        ),
        Error::InvalidMessage(_) => ("the server speaks no TLS".to_owned(), "leave out --tls and tls://"),
        Error::AlertReceived(AlertDescription::CertificateRequired) => (
            "the server wants a certificate of the client".to_owned(),
            "name one with --tls-client-cert-file and --tls-client-key-file",
        ),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        ) => (
            format!("the server refuses the client's certificate: {error}"),
            "name one of the CAs that it takes with --tls-client-cert-file and --tls-client-key-file",
        ),
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            ("the server has no version of TLS that is safe".to_owned(), "update it")
        }
        _ => (error.to_string(), "look into the server's log"),
    };
    Some((why, remedy.to_owned()))
}

/// Without rustls' kinds of names: `DnsName("a.example")`, `IpAddress(10.0.0.1)`.
fn names(presented: &[String]) -> String {
    let inner = |name: &str| Some(name.split_once('(')?.1.trim_end_matches(')').trim_matches('"').to_owned());
    let names = presented.iter().map(|name| inner(name).unwrap_or_else(|| name.clone()));
    names.collect::<Vec<_>>().join(", ")
}

/// `--tls-allow-insecure`: signatures are looked at, names and CAs are not.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
