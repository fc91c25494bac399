//! The real binary against a server with TLS that wants a certificate of its clients.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod server;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use server::{Mock, serve};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

/// A folder with `ca.crt`, certificates of that CA for server and client, and `other.crt`, which is of another.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        let (ca, other) = (authority(), authority());
        files.write("ca.crt", &ca.pem());
        files.pair("server", &["127.0.0.1", "n1.example"], &ca);
        files.pair("client", &["client.example"], &ca);
        files.pair("other", &["client.example"], &other);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn pair(&self, name: &str, names: &[&str], ca: &CertifiedIssuer<'_, KeyPair>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, ca).unwrap();
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn certificate(&self, name: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(name)).unwrap()
    }

    fn server(&self) -> TlsAcceptor {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate("ca.crt")).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let key = PrivateKeyDer::from_pem_file(self.path("server.key")).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.build().unwrap())
            .with_single_cert(vec![self.certificate("server.crt")], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Servers with TLS and without.
fn servers(runtime: &Runtime, acceptor: TlsAcceptor, mock: Mock) -> [SocketAddr; 2] {
    runtime.block_on(async {
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (encrypted, plain) = (listen().await, listen().await);
        let addresses = [&encrypted, &plain].map(|listener| listener.local_addr().unwrap());
        tokio::spawn(serve(mock.clone(), TcpListenerStream::new(plain)));
        let (sender, connections) = tokio::sync::mpsc::channel(1);
        tokio::spawn(serve(mock, ReceiverStream::new(connections)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = encrypted.accept().await.unwrap();
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    // A client that is refused.
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let (mut inside, outside) = tokio::io::duplex(64 << 10);
                    sender.send(Ok(outside)).await.unwrap();
                    // Ends with the client.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut inside).await;
                });
            }
        });
        addresses
    })
}

fn observe(directory: &Path, arguments: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command.args(arguments.split_whitespace()).current_dir(directory).env_clear();
    command.envs(environment.iter().copied()).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn tls_works_and_what_goes_wrong_is_one_line_that_says_what_to_do() {
    let files = Files::new();
    let runtime = Runtime::new().unwrap();
    let mock = Mock { serving: true, ..Mock::default() };
    let authorization = Arc::clone(&mock.authorization);
    let [encrypted, plain] = servers(&runtime, files.server(), mock);
    let own = "--tls-ca-cert-files ca.crt --tls-client-cert-file client.crt --tls-client-key-file client.key";
    let run = |command: &str, arguments: &str, environment: &[(&str, &str)]| {
        observe(files.0.path(), &format!("{command} {arguments}"), environment)
    };
    for (arguments, environment) in [
        (format!("--server tls://{encrypted} {own}"), &[][..]),
        (format!("--server {encrypted} --tls {own} --tls-server-name n1.example"), &[]),
        (format!("--server {encrypted} {own}"), &[("HUBBLE_TLS", "true")]),
        (
            format!("--server tls://{encrypted}"),
            &[
                ("HUBBLE_TLS_CA_CERT_FILES", "ca.crt"),
                ("OBSERVE_TLS_CLIENT_CERT_FILE", "client.crt"),
                ("HUBBLE_TLS_CLIENT_KEY_FILE", "client.key"),
            ],
        ),
        (
            format!(
                "--server tls://{encrypted} --tls-allow-insecure --tls-server-name wrong.example \
                 --tls-client-cert-file client.crt --tls-client-key-file client.key"
            ),
            &[],
        ),
    ] {
        let output = run("status", &arguments, environment);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && text.starts_with(&format!("Healthcheck (via {encrypted}): Ok\n")),
            "{arguments}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    let name = "--basic-auth-username user --basic-auth-password pass:word";
    let output = run("flows", &format!("--server tls://{encrypted} {own} {name}"), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(authorization.lock().unwrap().as_deref(), Some("Basic dXNlcjpwYXNzOndvcmQ="));

    for (arguments, wanted) in [
        (
            format!("--server {encrypted}"),
            "the server speaks TLS\nhint: add --tls, or write tls:// before the address",
        ),
        (
            format!("--server {plain} --tls {own}"),
            "the server speaks no TLS\nhint: leave out --tls and tls://",
        ),
        (
            format!("--server tls://{encrypted} --tls-ca-cert-files other.crt"),
            "the server's certificate is of a CA that is not trusted\nhint: name its CA with --tls-ca-cert-files",
        ),
        (
            format!("--server tls://{encrypted} {own} --tls-server-name n2.example"),
            "the server's certificate is for another name: 127.0.0.1, n1.example\nhint: name it with --tls-server-name",
        ),
        (
            format!("--server tls://{encrypted} --tls-ca-cert-files ca.crt"),
            "the server wants a certificate of the client\nhint: name one with --tls-client-cert-file and",
        ),
        (
            format!(
                "--server tls://{encrypted} --tls-ca-cert-files ca.crt --tls-client-cert-file other.crt \
                 --tls-client-key-file other.key"
            ),
            "the server refuses the client's certificate: ",
        ),
        (
            format!("--server tls://{encrypted} --tls-client-cert-file client.crt"),
            "invalid flag(s): certificate and private key are both required, but only one was provided",
        ),
        (format!("--server {plain} {own}"), "invalid flag(s): transport layer security required"),
        (
            format!("--server {plain} --basic-auth-username u --basic-auth-password p"),
            "the credentials require transport level security (use --tls",
        ),
        (
            format!("--server tls://{encrypted} {own} --basic-auth-username u"),
            "invalid flag(s): must specify both basic-auth-username and basic-auth-password",
        ),
        ("--server /x.sock --tls".to_owned(), "--tls: a unix socket needs none"),
        (format!("--server tls://{encrypted} --tls-ca-cert-files no.crt"), "--tls-ca-cert-files: no.crt: "),
        (
            format!("--server tls://{encrypted} --tls-ca-cert-files client.key"),
            "--tls-ca-cert-files: client.key: no certificate (PEM) in it",
        ),
    ] {
        for command in ["status", "flows"] {
            let output = run(command, &arguments, &[]);
            let text = String::from_utf8(output.stderr).unwrap();
            let shown = format!("{command} {arguments}: {text}");
            // What, why and a hint, or a wrong flag.
            let lines = if text.contains("cannot reach") { 3 } else { 1 };
            assert_eq!((output.status.code(), text.lines().count()), (Some(1), lines), "{shown}");
            assert!(text.contains(wanted), "{shown}");
        }
    }
}
