//! Every way in which TLS is refused, each with its reason.

use crate::{
    bed::{Bed, until},
    certificates::{Ca, Client, NAME, Pair, Time},
    raw,
};
use observer::serve::{Refusal, ServeConfig, ServeError, TlsConfig};
use std::{
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio_rustls::rustls::version::{TLS12, TLS13};

/// Serves with this certificate, to clients of this CA.
fn bed(server: &Pair, clients: &Ca) -> Bed {
    Bed::start(|config| {
        let directory = config.socket.parent().unwrap();
        server.write(directory);
        std::fs::write(directory.join("clients.crt"), clients.pem()).unwrap();
        config.tls = Some(files(directory));
        config.insecure = false;
        config.limits.handshakes = 16;
        config.limits.handshake_time = Duration::from_millis(700);
    })
}

fn files(directory: &Path) -> TlsConfig {
    let file = |name: &str| -> PathBuf { directory.join(name) };
    TlsConfig { certificate: file("tls.crt"), key: file("tls.key"), client_cas: vec![file("clients.crt")] }
}

/// That this client is refused, and counted for this reason and no other.
fn refused(bed: &Bed, name: &str, client: &Client, reason: Refusal) {
    let before = Refusal::ALL.map(|reason| bed.counters().refused(reason));
    let is_served = bed.runtime.block_on(client.is_served(bed.tcp()));
    assert!(!is_served, "{name}");
    until(name, || bed.counters().refused(reason) > before[reason as usize]);
    let mut expected = before;
    expected[reason as usize] += 1;
    assert_eq!(Refusal::ALL.map(|reason| bed.counters().refused(reason)), expected, "{name}");
}

#[test]
fn who_is_served_and_who_is_refused_for_what() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let own = ca.sign(Time::Now);
    let bed = bed(&ca.sign(Time::Now), &ca);
    let good = Client::new(&ca, Some(&own));
    let pairs = [other.sign(Time::Now), ca.sign(Time::Past), ca.sign(Time::Future)];
    bed.leaves_nothing(8 << 20, || {
        assert!(bed.runtime.block_on(good.is_served(bed.tcp())));
        for (name, client, reason) in [
            ("no certificate", Client::new(&ca, None), Refusal::NoCertificate),
            ("one of another CA", Client::new(&ca, Some(&pairs[0])), Refusal::UnknownCa),
            ("an expired one", Client::new(&ca, Some(&pairs[1])), Refusal::Expired),
            ("one not valid yet", Client::new(&ca, Some(&pairs[2])), Refusal::NotYetValid),
            ("it trusts another CA", Client::new(&other, Some(&own)), Refusal::ServerRefused),
            (
                "it wants another name",
                Client::with(&ca.pem(), Some(&own), "n2.default.hubble-grpc.cilium.io", &TLS13),
                Refusal::ServerRefused,
            ),
            ("TLS 1.2", Client::with(&ca.pem(), Some(&own), NAME, &TLS12), Refusal::TlsVersion),
        ] {
            refused(&bed, name, &client, reason);
        }
        let before = bed.counters().refused(Refusal::NotTls);
        raw::closed(raw::connect(bed.tcp()));
        bed.refused(Refusal::NotTls, before + 1);
        assert!(bed.runtime.block_on(good.is_served(bed.tcp())), "after all of them");
    });
    assert!(bed.counters().certificate().unwrap().expires_in() > 365 * 86_400);
}

#[test]
fn a_server_whose_certificate_does_not_hold_is_refused_by_clients() {
    let ca = Ca::new("ca");
    let own = ca.sign(Time::Now);
    for (name, time) in [("expired", Time::Past), ("not valid yet", Time::Future)] {
        let bed = bed(&ca.sign(time), &ca);
        refused(&bed, name, &Client::new(&ca, Some(&own)), Refusal::ServerRefused);
        let is_over = bed.counters().certificate().unwrap().expires_in() < 0;
        assert_eq!(is_over, matches!(time, Time::Past), "{name}");
    }
}

/// A byte now and then, as long as they are let.
#[test]
fn slow_handshakes_end_and_keep_nobody_out() {
    const SLOW: usize = 200;
    let ca = Ca::new("ca");
    let own = ca.sign(Time::Now);
    let bed = bed(&ca.sign(Time::Now), &ca);
    let good = Client::new(&ca, Some(&own));
    // The head of a ClientHello of 512 bytes.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut round = 0;
    bed.leaves_nothing(8 << 20, || {
        round += 1;
        let mut slow: Vec<TcpStream> = (0..SLOW).map(|_| TcpStream::connect(bed.tcp()).unwrap()).collect();
        for byte in hello {
            for stream in &mut slow {
                // Some are closed by now.
                let _ = stream.write_all(&[byte]);
            }
            assert!(bed.runtime.block_on(good.is_served(bed.tcp())));
        }
        slow.into_iter().for_each(raw::closed);
        let counts =
            || [Refusal::Handshakes, Refusal::HandshakeTime].map(|reason| bed.counters().refused(reason));
        until("all are counted", || counts().iter().sum::<u64>() == SLOW as u64 * round);
        assert!(counts().iter().all(|&count| count > 0), "{:?}", counts());
    });
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_start() {
    let ca = Ca::new("ca");
    let (one, two) = (ca.sign(Time::Now), ca.sign(Time::Now));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let node = observer::serve::NodeInfo {
        cluster: "c".into(),
        name: "n".into(),
        labels: vec![].into(),
        version: "1".into(),
    };
    let config = ServeConfig {
        socket: path.join("hubble.sock"),
        control_socket: path.join("control.sock"),
        group: "root".into(),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        tls: Some(files(path)),
        ..ServeConfig::new(node)
    };
    let start = || -> Result<(), ServeError> {
        let (store, _writer) = observer::store::Store::new(observer::store::StoreConfig::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let capture = std::sync::Arc::new(crate::bed::Capture);
        runtime.block_on(observer::serve::start(config.clone(), store, capture)).map(drop)
    };
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    let broken = one.certificate.replacen("MII", "MIA", 1);
    let (certificate, key) = (&*one.certificate, &*one.key);
    for (tls, key, clients, expected) in [
        (certificate, "", &*ca.pem(), "tls.key: no private key (PEM, unencrypted) in it"),
        ("", key, &ca.pem(), "tls.crt: no certificate (PEM) in it"),
        (&broken, key, &ca.pem(), "tls.crt: "),
        (certificate, &two.key, &ca.pem(), "tls.key: this key belongs to another certificate than "),
        (certificate, key, "", "clients.crt: no certificate (PEM) in it"),
        (certificate, key, &broken, "clients.crt: "),
    ] {
        write("tls.crt", tls);
        write("tls.key", key);
        write("clients.crt", clients);
        let error = start().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}/{expected}", path.display())), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    write("clients.crt", &ca.pem());
    start().unwrap();
    std::fs::remove_file(path.join("tls.crt")).unwrap();
    let error = start().unwrap_err().to_string();
    assert!(error.ends_with("tls.crt: No such file or directory (os error 2)"), "{error}");
}

/// The commands of docs/tls.md, as they stand there.
#[test]
fn the_documented_commands_make_certificates_that_work() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tls.md")).unwrap();
    let commands = text.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new("sh").args(["-ec", commands]).current_dir(directory.path()).output().unwrap();
    assert!(made.status.success(), "openssl (Debian: openssl) must run: {made:?}");
    let file = |name: &str| directory.path().join(name);
    let bed = Bed::start(|config| {
        config.tls = Some(TlsConfig {
            certificate: file("server.crt"),
            key: file("server.key"),
            client_cas: vec![file("ca.crt")],
        });
        config.insecure = false;
    });
    let ca = std::fs::read_to_string(file("ca.crt")).unwrap();
    for (name, is_served) in [("client", true), ("server", false)] {
        let own = Pair::read(directory.path(), name);
        let client = Client::with(&ca, Some(&own), NAME, &TLS13);
        assert_eq!(bed.runtime.block_on(client.is_served(bed.tcp())), is_served, "as {name}");
    }
}
