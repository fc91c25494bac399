//! Certificates of every kind, and a client that uses them.

use crate::raw;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, date_time_ymd,
};
use std::{io, net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
        version::TLS13,
    },
};
use tonic::transport::{Channel, Endpoint};

/// The server's name in its certificate.
pub(crate) const NAME: &str = "n1.default.hubble-grpc.cilium.io";

/// Since and until when a certificate holds.
#[derive(Clone, Copy)]
pub(crate) enum Time {
    Past,
    Now,
    Future,
}

/// A certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For servers and clients alike.
    pub(crate) fn sign(&self, time: Time) -> Pair {
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let [from, to] = match time {
            Time::Past => [2001, 2002],
            Time::Now => [2020, 2100],
            Time::Future => [2100, 2101],
        };
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Pair {
    /// From the files `<name>.crt` and `<name>.key`.
    pub(crate) fn read(directory: &Path, name: &str) -> Self {
        let read = |kind| std::fs::read_to_string(directory.join(format!("{name}.{kind}"))).unwrap();
        Self { certificate: read("crt"), key: read("key") }
    }

    pub(crate) fn write(&self, directory: &Path) {
        std::fs::write(directory.join("tls.crt"), &self.certificate).unwrap();
        std::fs::write(directory.join("tls.key"), &self.key).unwrap();
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// A client of the server over TLS.
#[derive(Clone)]
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    pub(crate) fn new(trusted: &Ca, own: Option<&Pair>) -> Self {
        Self::with(&trusted.pem(), own, NAME, &TLS13)
    }

    pub(crate) fn with(
        trusted: &str,
        own: Option<&Pair>,
        name: &'static str,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            Some(own) => {
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![own.der()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { config: Arc::new(config), name: ServerName::try_from(name).unwrap() }
    }

    /// Encrypted, and no more.
    pub(crate) async fn handshake(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::clone(&self.config)).connect(self.name.clone(), stream).await
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
        let client = self.clone();
        let connect = tower::service_fn(move |_| {
            let client = client.clone();
            async move { client.handshake(address).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connect).await
    }

    /// Whether the server speaks to it. One connection and no more, as a library would try again.
    pub(crate) async fn is_served(&self, address: SocketAddr) -> bool {
        let Ok(mut stream) = self.handshake(address).await else { return false };
        let hello = [raw::PREFACE, &raw::frame(raw::SETTINGS, 0, 0, &[])].concat();
        // Where the client's certificate was refused the server closes after the client's last word in TLS.
        stream.write_all(&hello).await.is_ok() && matches!(stream.read(&mut [0]).await, Ok(1))
    }
}
