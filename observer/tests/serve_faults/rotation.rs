//! Certificates that change while flows run.

use crate::{
    bed::{Bed, Got, follow, until},
    certificates::{Ca, Client, Pair, Time},
};
use observer::serve::TlsConfig;
use observer_proto::observer::observer_client::ObserverClient;
use std::{fs, os::unix::fs::symlink, path::Path};

/// As Kubernetes lays a secret out: the files are links into `..data`, which is a link to a directory with a new name for
/// each version.
struct Secret<'a>(&'a Path);

impl Secret<'_> {
    /// All files at once, by one rename.
    fn publish(&self, version: &str, pair: &Pair) {
        let directory = self.0.join(version);
        fs::create_dir(&directory).unwrap();
        pair.write(&directory);
        symlink(version, self.0.join("..tmp")).unwrap();
        fs::rename(self.0.join("..tmp"), self.0.join("..data")).unwrap();
    }

    fn link(&self) {
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), self.0.join(name)).unwrap();
        }
    }
}

#[test]
fn new_certificates_are_served_broken_ones_are_not_and_streams_live_on() {
    let ca = Ca::new("ca");
    let (first, second, third) = (ca.sign(Time::Now), ca.sign(Time::Now), ca.sign(Time::Now));
    let bed = Bed::start(|config| {
        let secret = Secret(config.socket.parent().unwrap());
        secret.publish("..1", &first);
        secret.link();
        let file = |name| secret.0.join(name);
        config.tls =
            Some(TlsConfig { certificate: file("tls.crt"), key: file("tls.key"), client_cas: Vec::new() });
        config.insecure = false;
    });
    let secret = Secret(bed.directory.path());
    let client = Client::new(&ca, None);
    let mut streams = bed.runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..10 {
            let channel = client.connect(bed.tcp()).await.unwrap();
            let stream = ObserverClient::new(channel).get_flows(follow()).await.unwrap().into_inner();
            streams.push((stream, Got::default()));
        }
        streams
    });
    let mut pushed = 0;
    let mut flows_run = || {
        bed.push(100);
        pushed += 100;
        bed.runtime.block_on(async {
            for (stream, got) in &mut streams {
                got.until(stream, pushed).await;
                assert_eq!(got.lost, 0);
            }
        });
    };
    let serves = |pair: &Pair| {
        let stream = bed.runtime.block_on(client.handshake(bed.tcp())).unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        shown == pair.der()
    };
    let counts = || {
        let certificate = bed.counters().certificate().unwrap();
        (certificate.reloads(), certificate.failed_reloads(), certificate.problem().unwrap_or_default())
    };
    assert!(serves(&first));

    secret.publish("..2", &second);
    until("the second certificate is served", || {
        flows_run();
        serves(&second)
    });
    assert_eq!(counts(), (1, 0, String::new()));

    // In place, and of another certificate.
    let key = bed.directory.path().join("tls.key");
    fs::write(&key, &third.key).unwrap();
    until("the other key is refused", || counts().1 == 1);
    assert!(
        counts().2.starts_with(&format!("{}: this key belongs to another", key.display())),
        "{:?}",
        counts()
    );
    flows_run();
    assert!(serves(&second));

    let certificate = bed.directory.path().join("tls.crt");
    fs::write(&certificate, "").unwrap();
    until("the empty file is refused", || counts().1 == 2);
    assert!(counts().2.ends_with("tls.crt: no certificate (PEM) in it"), "{:?}", counts());
    flows_run();
    assert!(serves(&second));

    // By a rename over the link, beside the key that is there already.
    fs::write(bed.directory.path().join("new"), &third.certificate).unwrap();
    fs::rename(bed.directory.path().join("new"), &certificate).unwrap();
    until("the third certificate is served", || {
        flows_run();
        serves(&third)
    });
    assert_eq!(counts(), (2, 2, String::new()));
    assert_eq!(bed.counters().streams(), 10, "no stream ended");
}
