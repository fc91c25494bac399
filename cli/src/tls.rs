//! TLS on the way to the server: what is trusted, who the client is, and what went wrong in words for people.

use crate::settings::Tls as Settings;
use std::{fmt::Display, io, path::Path, sync::Arc};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
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

impl Tls {
    /// Reads the files. Errors are one line that names the flag.
    pub(crate) fn new(args: &Settings) -> Result<Self, String> {
        let builder = if args.allow_insecure { any_server()? } else { trusted(args)? };
        let mut config = match (&args.client_cert_file, &args.client_key_file) {
            (None, None) => builder.with_no_client_auth(),
            (Some(chain), Some(key)) => {
                let flag = "--tls-client-key-file";
                let key_of = PrivateKeyDer::from_pem_file(key).map_err(|error| in_file(flag, key, &error))?;
                let chain = certificates("--tls-client-cert-file", chain)?;
                builder.with_client_auth_cert(chain, key_of).map_err(|error| in_file(flag, key, &error))?
            }
            // The settings' own check has refused it.
            _ => return Err("certificate and private key are both required".to_owned()),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = args.server_name.clone().map(|name| {
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

    /// Connects to `target`, which is `host:port`, and encrypts that.
    pub(crate) async fn connect(&self, target: &str) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        self.over(target, stream).await
    }

    /// Encrypts a connection to `target` that is there already.
    pub(crate) async fn over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        target: &str,
        stream: S,
    ) -> io::Result<TlsStream<S>> {
        let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await
    }
}

type Builder = ConfigBuilder<ClientConfig, WantsClientCert>;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn trusted(args: &Settings) -> Result<Builder, String> {
    let mut roots = RootCertStore::empty();
    for file in &args.ca_cert_files {
        let flag = "--tls-ca-cert-files";
        for certificate in certificates(flag, file)? {
            roots.add(certificate).map_err(|error| in_file(flag, file, &error))?;
        }
    }
    if args.ca_cert_files.is_empty() {
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
