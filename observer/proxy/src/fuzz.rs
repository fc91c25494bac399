//! What must hold for whatever a client sends; called by the fuzzer and by a test with its corpus.
#![expect(clippy::missing_panics_doc, reason = "it does nothing else")]

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use http::request::Parts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;

use crate::framing::Framing;
use crate::{Limits, Ruling, Session, serve};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const DENIED: &str = "deny";

#[derive(Default)]
struct Judge {
    servers: Mutex<Vec<JoinHandle<()>>>,
}

impl Session for Judge {
    type Asked = ();
    type Server = DuplexStream;

    fn ask(&self, request: &Parts) -> (Ruling, ()) {
        let is_denied = request.uri.to_string().contains(DENIED);
        (if is_denied { Ruling::Deny } else { Ruling::Allow }, ())
    }

    fn answered(&self, (): (), _: u16) {}

    async fn connect(&self) -> io::Result<DuplexStream> {
        let (near, far) = duplex(1 << 20);
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(tokio::spawn(server(far)));
        Ok(near)
    }
}

/// A client's stream of HTTP/1: what reaches servers is in order to the same strict reader, request by request, and none
/// of it is what was denied.
pub fn stream(data: &[u8]) {
    // HTTP/2 is h2's to read.
    if data.starts_with(b"PRI") {
        return;
    }
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(async {
        let judge = Arc::new(Judge::default());
        let (mut client, near) = duplex(1 << 20);
        let served = tokio::spawn(serve(near, Arc::clone(&judge), Limits::default()));
        if client.write_all(data).await.is_err() || client.shutdown().await.is_err() {
            return;
        }
        let mut answers = Vec::new();
        assert!(client.read_to_end(&mut answers).await.is_ok());
        assert!(served.await.is_ok(), "the proxy panicked");
        let servers = std::mem::take(&mut *judge.servers.lock().unwrap_or_else(PoisonError::into_inner));
        for server in servers {
            assert!(server.await.is_ok(), "a server was sent what it must not be");
        }
    });
}

/// Answers each request, and panics at what is none or is denied.
async fn server(mut stream: DuplexStream) {
    let mut framing = Framing::new();
    let (mut seen, mut at) = (Vec::new(), 0);
    while stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {
        loop {
            let (is_head, before) = (framing.is_between(), framing.requests());
            let Ok(step) = framing.pass_one(&seen[at..]) else {
                panic!("a server is sent {:?}", String::from_utf8_lossy(&seen[at..]));
            };
            if step == 0 {
                break;
            }
            let line = seen[at..].split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            assert!(!is_head || !line.contains(DENIED), "{line}");
            at += step;
            if framing.requests() != before && stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    #[test]
    fn the_corpus_holds() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/proxy");
        let files: Vec<_> = fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty());
        for file in files {
            println!("{}", file.display());
            super::stream(&fs::read(file).unwrap());
        }
    }
}
