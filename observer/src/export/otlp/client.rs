//! Sends batches: one at a time, each until the Collector has taken or refused it.

use super::{
    Frame, records,
    target::{self, OtlpTarget},
};
use crate::{export::exporter::Orders, serve::NodeInfo};
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};
use std::{error::Error as _, io, path::Path, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// For a connection, and for a batch with its answer: OTLP's default.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// For the last batch of a daemon that ends.
const LAST: Duration = Duration::from_millis(700);
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// What became of a batch that need not be sent again.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::export) enum Sent {
    /// It was taken, but for so many records.
    Taken { refused: u64, why: String },
    /// None of it, and it would not be taken another time.
    Refused(String),
}

/// A Collector that is sent to.
#[derive(Debug)]
pub(in crate::export) struct Client {
    target: OtlpTarget,
    frame: Frame,
    channel: Option<Channel>,
    runtime: Handle,
    orders: watch::Receiver<Orders>,
}

impl Client {
    pub(in crate::export) fn new(
        target: OtlpTarget,
        node: &NodeInfo,
        runtime: Handle,
        orders: watch::Receiver<Orders>,
    ) -> Self {
        let frame = Frame::new(records::resource(node, &target.attributes), &node.version);
        Self { target, frame, channel: None, runtime, orders }
    }

    /// Sends records and waits for the answer; an error is for the moment.
    pub(in crate::export) fn send(&mut self, records: &[u8]) -> io::Result<Sent> {
        let body = Raw(self.frame.request(records));
        let runtime = self.runtime.clone();
        let _within = runtime.enter();
        let channel = self.channel.get_or_insert_with(|| connect(&self.target)).clone();
        let mut request = Request::new(body);
        for (name, value) in &self.target.headers {
            request.metadata_mut().insert(name, value.clone());
        }
        let orders = &mut self.orders;
        let answer = runtime.block_on(async {
            let last = async {
                // Without the other end it is to end, too.
                let _ = orders.wait_for(|orders| orders.end).await;
                tokio::time::sleep(LAST).await;
            };
            tokio::select! {
                answer = timeout(ANSWER, export(channel, request)) => answer.unwrap_or_else(|_| {
                    Err(Status::deadline_exceeded(format!("no answer within {} s", ANSWER.as_secs())))
                }),
                () = last => Err(Status::cancelled("the exporter ends")),
            }
        });
        match answer {
            Ok(answer) => {
                let part = answer.partial_success.unwrap_or_default();
                let refused = u64::try_from(part.rejected_log_records).unwrap_or(0);
                Ok(Sent::Taken { refused, why: part.error_message })
            }
            Err(status) if is_for_the_moment(&status) => {
                // A name may have another address by now.
                self.channel = None;
                Err(io::Error::other(text(&status)))
            }
            Err(status) => Ok(Sent::Refused(text(&status))),
        }
    }
}

async fn export(channel: Channel, request: Request<Raw>) -> Result<ExportLogsServiceResponse, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<Raw, ExportLogsServiceResponse>::default();
    let answer = client.unary(request, PathAndQuery::from_static(EXPORT), codec).await?;
    Ok(answer.into_inner())
}

/// As OTLP has it; and what no Collector said, as a connection broke.
fn is_for_the_moment(status: &Status) -> bool {
    let is_said = matches!(
        status.code(),
        Code::Aborted
            | Code::Cancelled
            | Code::DataLoss
            | Code::DeadlineExceeded
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unavailable
    );
    is_said || status.source().is_some()
}

/// With what lies behind it, which says more.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    if text.is_empty() { status.code().description().to_owned() } else { text }
}

fn connect(target: &OtlpTarget) -> Channel {
    let endpoint = Endpoint::from(target.uri.clone()).connect_timeout(CONNECT);
    let target = target.clone();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let target = target.clone();
        async move { open(&target).await.map(TokioIo::new) }
    }))
}

/// Bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn open(target: &OtlpTarget) -> io::Result<Box<dyn Stream>> {
    let (host, port) = target.address();
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    if !target.is_encrypted() {
        return Ok(Box::new(stream));
    }
    let roots = roots(target.ca_file.as_deref()).map_err(io::Error::other)?;
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_root_certificates(roots);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Whom to trust: the certificates of this file, or the machine's own.
pub(super) fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca_file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let none = || "this machine has no root certificates: name the Collector's CA".to_owned();
        return if roots.is_empty() { Err(none()) } else { Ok(roots) };
    };
    let wrong = |problem: &dyn std::fmt::Display| target::shown(file, problem);
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() { Err(wrong(&"no certificate (PEM) in it")) } else { Ok(roots) }
}

/// A message that is encoded already.
#[derive(Clone, Debug, Default)]
struct Raw(Bytes);

impl Message for Raw {
    fn encode_raw(&self, out: &mut impl BufMut) {
        out.put_slice(&self.0);
    }

    /// Nobody sends one here.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, from, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
