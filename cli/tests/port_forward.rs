//! `--port-forward` by the real binary, through an API server of the test's own that knows a service, its pod and a port.
#![cfg(feature = "port-forward")]
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod server;

use futures_util::{SinkExt as _, StreamExt as _};
use server::{Mock, Server};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
        http::HeaderValue,
    },
};

/// The port that the service's named port leads to in the pod.
const PORT: u16 = 4299;

const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"hubble-relay","namespace":"cilium"},
"spec":{"selector":{"k8s-app":"hubble-relay"},"ports":[{"port":80,"targetPort":"grpc"}]}}"#;
const PODS: &str = r#"{"apiVersion":"v1","kind":"PodList","metadata":{},"items":[
{"metadata":{"name":"hubble-relay-0"},"spec":{"containers":[{"name":"relay"}]},"status":{"phase":"Pending"}},
{"metadata":{"name":"hubble-relay-1"},"spec":{"containers":[{"name":"relay","ports":[{"name":"grpc","containerPort":4299}]}]},
"status":{"phase":"Running"}}]}"#;

/// What the API server says on one connection.
async fn answer(mut stream: TcpStream, relay: PathBuf) {
    let mut seen = [0; 512];
    let length = stream.peek(&mut seen).await.unwrap();
    let line = String::from_utf8_lossy(&seen[..length]).lines().next().unwrap_or_default().to_owned();
    let body = match line.split(' ').nth(1).unwrap_or_default() {
        "/api/v1/namespaces/cilium/services/hubble-relay" => SERVICE,
        path if path.starts_with("/api/v1/namespaces/cilium/pods?") => {
            assert!(path.contains("labelSelector=k8s-app%3Dhubble-relay"), "{path}");
            PODS
        }
        path if path.starts_with("/api/v1/namespaces/cilium/pods/hubble-relay-1/portforward?") => {
            assert!(path.contains(&format!("ports={PORT}")), "{path}");
            return forward(stream, relay).await;
        }
        path => panic!("{path} was asked"),
    };
    // The request is read, or closing would reset the connection.
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
}

/// Channel 0 carries the bytes, channel 1 errors; each begins with the port.
async fn forward(stream: TcpStream, relay: PathBuf) {
    #[expect(clippy::result_large_err, reason = "the library's callback")]
    let accept = |_: &Request, mut response: Response| {
        let protocol = HeaderValue::from_static("v4.channel.k8s.io");
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let (mut sink, mut source) = accept_hdr_async(stream, accept).await.unwrap().split();
    let [low, high] = PORT.to_le_bytes();
    for channel in [0, 1] {
        sink.send(Message::binary(vec![channel, low, high])).await.unwrap();
    }
    let (mut from_relay, mut to_relay) = UnixStream::connect(relay).await.unwrap().into_split();
    let down = async {
        let mut bytes = vec![0; 4096];
        while let Ok(length @ 1..) = from_relay.read(&mut bytes[1..]).await {
            bytes[0] = 0;
            if sink.send(Message::binary(bytes[..=length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let up = async {
        while let Some(Ok(message)) = source.next().await {
            if let Message::Binary(bytes) = message
                && bytes.first() == Some(&0)
                && to_relay.write_all(&bytes[1..]).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        () = down => {}
        () = up => {}
    }
}

fn observe(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_observe"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_relay_in_the_cluster_is_reached() {
    let relay = Server::start(Mock { serving: true, ..Mock::default() });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let api = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = api.local_addr().unwrap();
    let socket = relay.path();
    runtime.spawn(async move {
        loop {
            let (stream, _) = api.accept().await.unwrap();
            tokio::spawn(answer(stream, socket.clone()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: other\nclusters:\n- name: c\n  cluster: {{server: \
         'http://{address}'}}\nusers:\n- name: u\n  user: {{}}\ncontexts:\n- name: mine\n  context: {{cluster: c, user: u}}\n"
    );
    fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = kubeconfig.to_str().unwrap();
    let way = ["-P", "--kubeconfig", kubeconfig, "--kube-namespace", "cilium", "--kube-context", "mine"];
    let output = observe(&[&["status"][..], &way].concat());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.starts_with("Healthcheck (via hubble-relay:4245): Ok\nCurrent/Max Flows: 5/4,095"), "{out}");

    // What is missing is named, and what to do.
    for (arguments, why) in [
        (&["-P", "--kubeconfig", kubeconfig][..], "the kubeconfig does not do: "),
        (&["-P", "--kubeconfig", "/nonexistent/config"], "--kubeconfig: /nonexistent/config: "),
    ] {
        let output = observe(&[&["status"][..], arguments].concat());
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), err.lines().count()), (Some(1), 3), "{err}");
        assert!(err.starts_with("cannot reach hubble-relay:4245\n") && err.contains(why), "{err}");
    }
}
