//! A client and a server in memory, with the proxy between them.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::request::Parts;
use observer_proxy::{End, Limits, Ruling, Session, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What either side may have written and the other not read.
pub(crate) const ROOM: usize = 4096;

/// Denies what has `deny` in its target.
pub(crate) struct Judge {
    pub(crate) told: Mutex<Vec<(String, u16)>>,
    pub(crate) connects: AtomicUsize,
    servers: mpsc::UnboundedSender<DuplexStream>,
    refuses: bool,
}

impl Session for Judge {
    type Asked = String;
    type Server = DuplexStream;

    fn ask(&self, request: &Parts) -> (Ruling, String) {
        let target = request.uri.path_and_query().map_or("*", |target| target.as_str());
        let ruling = if target.contains("deny") { Ruling::Deny } else { Ruling::Allow };
        (ruling, format!("{} {target}", request.method))
    }

    fn answered(&self, asked: String, status: u16) {
        self.told.lock().unwrap().push((asked, status));
    }

    async fn connect(&self) -> io::Result<DuplexStream> {
        self.connects.fetch_add(1, Ordering::Relaxed);
        if self.refuses {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = duplex(ROOM);
        match self.servers.send(far) {
            Ok(()) => Ok(near),
            // Nobody takes it: it goes on for ever.
            Err(_) => std::future::pending().await,
        }
    }
}

pub(crate) struct Bed {
    pub(crate) client: DuplexStream,
    pub(crate) judge: Arc<Judge>,
    pub(crate) end: JoinHandle<End>,
    servers: mpsc::UnboundedReceiver<DuplexStream>,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default(), false)
    }

    pub(crate) fn with(limits: Limits, refuses: bool) -> Self {
        let (client, near) = duplex(ROOM);
        let (sender, servers) = mpsc::unbounded_channel();
        let judge = Judge { told: Mutex::default(), connects: AtomicUsize::new(0), servers: sender, refuses };
        let judge = Arc::new(judge);
        let end = tokio::spawn(serve(near, Arc::clone(&judge), limits));
        Self { client, judge, end, servers }
    }

    /// The server's end of the next connection to it.
    pub(crate) async fn server(&mut self) -> DuplexStream {
        self.servers.recv().await.unwrap()
    }

    /// No server takes connections any more.
    pub(crate) fn no_server(&mut self) {
        self.servers.close();
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.client.write_all(text.as_bytes()).await.unwrap();
    }

    /// What the client is sent, up to this end.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        until(&mut self.client, end).await
    }

    /// What the client is sent until the connection ends.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        self.client.read_to_end(&mut rest).await.unwrap();
        String::from_utf8(rest).unwrap()
    }

    pub(crate) fn told(&self) -> Vec<(String, u16)> {
        self.judge.told.lock().unwrap().clone()
    }

    pub(crate) fn connects(&self) -> usize {
        self.judge.connects.load(Ordering::Relaxed)
    }

    /// A server that gives each request this answer.
    pub(crate) fn serve_each(&mut self, answer: &'static str) {
        let mut servers = std::mem::replace(&mut self.servers, mpsc::unbounded_channel().1);
        tokio::spawn(async move {
            while let Some(mut server) = servers.recv().await {
                tokio::spawn(async move {
                    while read_head(&mut server).await.is_some() {
                        server.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
    }
}

/// Reads up to a text.
pub(crate) async fn until(stream: &mut DuplexStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let byte = stream.read_u8().await;
        read.push(byte.unwrap_or_else(|_| panic!("no {end:?} in {:?}", String::from_utf8_lossy(&read))));
    }
    String::from_utf8(read).unwrap()
}

async fn read_head(stream: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(head)
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
pub(crate) const DENIED: &str =
    "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 15\r\n\r\nAccess denied\r\n";

/// A request for a path.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}
