//! One connection in the proxy: its requests judged by policies, and told.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use http::request::Parts;
use http::{Version, header};
use observer_policy::{l7::Request, model::TCP};
use observer_proto::flow::{
    Http, HttpHeader, L7FlowType, Layer7 as Message, Verdict, layer7::Record as Kind,
};
use observer_proxy::{Ruling, Session, normal};
use tokio::net::TcpStream;

use super::sockets;
use super::told::{Teller, Told};
use crate::enrich::resolved::Resolved;
use crate::l7::{Redaction, trace_id};
use crate::layer7::Layer7;
use crate::policy::{Policies, Ruled, Said};
use crate::policy_verdict::PolicyVerdict;

/// What all connections have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) policies: Arc<Policies>,
    pub(super) redaction: Redaction,
    pub(super) teller: Teller,
    /// What DNS tells for policies.
    pub(super) names: Arc<Resolved>,
    /// From where the next connection to a server looks for a port.
    pub(super) next_port: AtomicU16,
}

/// A connection that was handed over.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) common: Arc<Common>,
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    /// What was said of its requests.
    pub(super) said: Said,
}

/// A request that is not answered yet.
pub(super) struct Asked {
    /// As the answer tells of it, without its headers.
    http: Http,
    trace_id: Box<str>,
    began: Instant,
    verdict: Verdict,
    is_egress: Option<bool>,
}

impl Session for Connection {
    type Asked = Asked;
    type Server = TcpStream;

    fn ask(&self, parts: &Parts) -> (Ruling, Asked) {
        let Ruled { passes, verdict, told } = self.ruled(parts);
        let ruling = if passes { Ruling::Allow } else { Ruling::Deny };
        let is_egress = told.as_ref().map(|told| told.told().is_egress);
        let mut asked = Asked { is_egress, ..self.asked(parts, verdict) };
        let headers = std::mem::take(&mut asked.http.headers);
        let http = Http { headers, ..asked.http.clone() };
        self.tell(&asked, http, L7FlowType::Request, 0, told);
        (ruling, asked)
    }

    fn answered(&self, mut asked: Asked, status: u16) {
        let http = Http { code: status.into(), ..std::mem::take(&mut asked.http) };
        let latency = u64::try_from(asked.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.tell(&asked, http, L7FlowType::Response, latency, None);
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        self.common.connect(self.client, self.server).await
    }
}

impl Common {
    /// Under whose address a server is called: the client's, but of the node itself its own. A process of the node would answer the
    /// client, and not the proxy.
    pub(super) fn caller(&self, client: SocketAddr, server: SocketAddr) -> Option<SocketAddr> {
        (client.ip() != server.ip() && !self.policies.is_own(server.ip())).then_some(client)
    }

    /// Connects to a server for a client.
    pub(super) async fn connect(&self, client: SocketAddr, server: SocketAddr) -> io::Result<TcpStream> {
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        let socket = sockets::connect(self.caller(client, server), server, port)?;
        let stream = TcpStream::from_std(socket.into())?;
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }
}

impl Connection {
    /// Where a server may take the target for another one, that must pass too.
    fn ruled(&self, parts: &Parts) -> Ruled {
        let target = parts.uri.path_and_query().map_or("*", |target| target.as_str());
        let host = match (parts.uri.authority(), parts.headers.get(header::HOST)) {
            (Some(authority), _) => authority.as_str().into(),
            (None, Some(host)) => lossy(host),
            (None, None) => "".into(),
        };
        let headers: Vec<_> =
            parts.headers.iter().map(|(name, value)| (name.as_str(), lossy(value))).collect();
        let meant = normal(target);
        let request =
            |path, headers| Request::Http { method: parts.method.as_str(), path, host: &host, headers };
        let meant = (meant != target).then(|| request(&meant, headers.clone()));
        let policies = &self.common.policies;
        let ends = (self.client, self.server, TCP);
        policies.judge_another(&self.said, ends, &request(target, headers), meant.as_ref())
    }

    fn asked(&self, parts: &Parts, verdict: Verdict) -> Asked {
        let redaction = &self.common.redaction;
        let host = parts.headers.get(header::HOST).map(http::HeaderValue::as_bytes);
        let text = |value: &http::HeaderValue| value.as_bytes().to_vec();
        let headers = parts.headers.iter().map(|(name, value)| HttpHeader {
            key: name.as_str().to_owned(),
            value: redaction.field(name.as_str(), value.as_bytes()).into_owned(),
        });
        let protocol = match parts.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            _ => "HTTP/1.1",
        };
        // Written anew only where it has a host of its own.
        let target = match parts.uri.path_and_query() {
            Some(target) if parts.uri.authority().is_none() => Cow::Borrowed(target.as_str()),
            _ => Cow::Owned(parts.uri.to_string()),
        };
        let trace = parts.headers.get("traceparent").map(text).unwrap_or_default();
        Asked {
            http: Http {
                code: 0,
                method: parts.method.to_string(),
                url: redaction.url(&target, host),
                protocol: protocol.to_owned(),
                headers: headers.collect(),
            },
            trace_id: trace_id(&trace).unwrap_or_default().into(),
            began: Instant::now(),
            verdict,
            is_egress: None,
        }
    }

    fn tell(
        &self,
        asked: &Asked,
        http: Http,
        kind: L7FlowType,
        latency_ns: u64,
        policies: Option<Arc<PolicyVerdict>>,
    ) {
        let message = Message { r#type: kind.into(), latency_ns, record: Some(Kind::Http(http)) };
        let is_answer = kind == L7FlowType::Response;
        self.common.teller.tell(Told {
            client: self.client,
            server: self.server,
            is_answer,
            is_egress: asked.is_egress,
            // What is denied is answered by the proxy, and that is no packet of the server's.
            verdict: if is_answer && asked.verdict == Verdict::Dropped {
                Verdict::Forwarded
            } else {
                asked.verdict
            },
            policies,
            ..Told::now(Arc::new(Layer7::new(message, &asked.trace_id)))
        });
    }
}

/// What of a header is no text can't be what a rule names.
fn lossy(value: &http::HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}
