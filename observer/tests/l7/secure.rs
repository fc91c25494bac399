//! A client and a server of TLS that log what they agree on; at any port, and however the hello is cut.

use super::{parties, pod_name};
use crate::support::{Daemon, can_run, scaled, scenario};
use observer_lab::{Lab, netns, unique_prefix};
use observer_proto::{
    Facts,
    flow::{Flow, L7FlowType},
    observer::GetFlowsRequest,
};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
};
use tokio_rustls::rustls::{
    CipherSuite, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    crypto::ring::default_provider,
    pki_types::PrivateKeyDer,
    version::{TLS12, TLS13},
};

const NAME: &str = "shop.example";

/// Each write is cut into segments of so many bytes.
struct Cut<'a>(&'a TcpStream, usize);

impl Read for Cut<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Write for Cut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(self.1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Configurations of a client for each answer that the server gives, and that of the server.
fn configs() -> (Vec<(&'static str, ClientConfig)>, Arc<ServerConfig>) {
    let names: Vec<String> = (0..8).map(|number| format!("{number}.{NAME}")).collect();
    let issued = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = issued.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    // What one side knows the other does not.
    let provider = |knows: bool| {
        let mut provider = default_provider();
        provider
            .cipher_suites
            .retain(|suite| (suite.suite() == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) == knows);
        Arc::new(provider)
    };
    let client = |provider, version: &'static SupportedProtocolVersion| {
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth()
    };
    let clients = vec![
        ("TLS 1.3", client(provider(false), &TLS13)),
        ("TLS 1.2", client(provider(false), &TLS12)),
        ("handshake_failure", client(provider(true), &TLS13)),
    ];
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder_with_provider(provider(false))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (clients, Arc::new(server))
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>) {
    while let Ok((stream, _)) = listener.accept() {
        let mut tls = ServerConnection::new(Arc::clone(config)).unwrap();
        // It fails where it should, too; until the client goes away.
        let _ = tls.complete_io(&mut &stream).and_then(|_| io::copy(&mut &stream, &mut io::sink()));
    }
}

/// A hello or what answers it.
fn told(flow: &Flow) -> Option<(L7FlowType, Facts)> {
    let facts = Facts::of(flow);
    facts.is_of_tls().then(|| (L7FlowType::try_from(flow.l7.as_ref().unwrap().r#type).unwrap(), facts))
}

#[test]
fn every_hello_is_told_with_its_name_and_what_came_of_it() {
    if !can_run("every_hello_is_told_with_its_name_and_what_came_of_it") {
        return;
    }
    let lab = Lab::up(&scenario("routed.toml"), &unique_prefix("l7t")).unwrap();
    // What is said inside TLS is nobody's business, and is not looked for.
    let daemon = Daemon::start(&lab, "n1", &["--l7", "all", "--max-flows", "200000"]);
    let [client, server] = [("web", "client-a"), ("shop", "api-0")]
        .map(|(namespace, name)| lab.scenario().pod(namespace, name).unwrap());
    let space = |pod| lab.pod_netns(pod).file_name().unwrap().to_str().unwrap().to_owned();
    let (clients, config) = configs();
    let mut count = 0;
    for (ip, port) in server.ips.iter().zip([443, 9443]) {
        let at = SocketAddr::new(*ip, port);
        let listener = netns::inside(&space(server), || Ok(TcpListener::bind(at).unwrap())).unwrap();
        let config = Arc::clone(&config);
        std::thread::spawn(move || serve(&listener, &config));
        for (number, (expected, config)) in
            (0..scaled(40, 400)).flat_map(|n| clients.iter().map(move |client| (n, client)))
        {
            let name = format!("{}.{NAME}", number % 8);
            let mut tls = ClientConnection::new(Arc::new(config.clone()), name.try_into().unwrap()).unwrap();
            let stream = netns::inside(&space(client), || Ok(TcpStream::connect(at).unwrap())).unwrap();
            stream.set_nodelay(true).unwrap();
            let done = tls.complete_io(&mut Cut(&stream, [1, 7, 100, 20_000][number % 4]));
            assert_eq!(done.is_ok(), expected.starts_with("TLS"), "{expected}: {done:?}");
            count += 1;
        }
    }
    let flows = daemon.flows_until(|flows| {
        let told = flows.iter().filter(|flow| told(flow).is_some()).count();
        (told < 2 * count).then(|| format!("{told} of 2 x {count} hellos and answers"))
    });
    let mut sums: BTreeMap<(bool, String, String), usize> = BTreeMap::new();
    for flow in &flows {
        let Some((kind, facts)) = told(flow) else {
            assert!(flow.l7.is_none(), "{flow:?}");
            continue;
        };
        assert_eq!(parties(flow), (pod_name(client), pod_name(server)));
        let is_answer = kind == L7FlowType::Response;
        assert_eq!(flow.is_reply, Some(is_answer));
        assert_eq!(flow.l7.as_ref().unwrap().latency_ns > 0, is_answer, "{flow:?}");
        let said = facts.tls_version + &facts.tls_alert;
        *sums.entry((is_answer, said, facts.tls_server_name)).or_default() += 1;
    }
    let each = 2 * scaled(40, 400) / 8;
    let mut expected = BTreeMap::new();
    for name in (0..8).map(|number| format!("{number}.{NAME}")) {
        for (hello, answer, times) in
            [("TLS 1.3", "TLS 1.3", 1), ("TLS 1.2", "TLS 1.2", 1), ("TLS 1.3", "handshake_failure", 1)]
        {
            *expected.entry((false, hello.to_owned(), name.clone())).or_default() += times * each;
            *expected.entry((true, answer.to_owned(), name.clone())).or_default() += times * each;
        }
    }
    assert_eq!(sums, expected);
    super::nothing_was_left_out(&daemon);

    // Clients may ask for them.
    let filter = observer_proto::flow::FlowFilter { protocol: vec!["tls".to_owned()], ..Default::default() };
    let request = GetFlowsRequest { number: u64::MAX, whitelist: vec![filter], ..GetFlowsRequest::default() };
    assert_eq!(daemon.responses(request).len(), 2 * count);
}
