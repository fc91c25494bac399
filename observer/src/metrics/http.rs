//! The server of `/metrics`, `/healthz` and `/readyz`. What its clients may take is bounded: connections, time and bytes.

use super::{
    histogram::{self, BUCKETS, Histogram},
    page::{Form, Page},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};

/// Connections at a time; a further one waits, in the kernel at last.
const MOST_CONNECTIONS: usize = 32;
/// Bytes of a request's head.
const HEAD: usize = 16 << 10;
/// Until its head is there.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Of a connection in all: a scraper opens another.
const CONNECTION_TIME: Duration = Duration::from_mins(5);

/// Makes the page of `/metrics`.
pub(super) type Render = Arc<dyn Fn(&mut Page) + Send + Sync>;

/// What is served.
pub(super) struct Service {
    render: Render,
    counts: Counts,
    ending: watch::Receiver<bool>,
}

impl Service {
    pub(super) fn new(render: Render, ending: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { render, counts: Counts::default(), ending })
    }

    /// Serves until the end.
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut ending = self.ending.clone();
        loop {
            // Never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = ending.wait_for(|down| *down) => return,
            };
            let (stream, client) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("metrics: the system gives no connection: {error}");
                    // Most often there are too many open files: others have to end first.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let service = Arc::clone(&self);
            tokio::spawn(async move {
                let _place = place;
                let answer = service_fn(|request: Request<Incoming>| {
                    let answer = service.answer(request.method(), request.uri().path(), accept(&request));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIME)
                    .max_buf_size(HEAD)
                    .serve_connection(TokioIo::new(stream), answer);
                log_end(client, timeout(CONNECTION_TIME, connection).await);
            });
        }
    }

    pub(super) fn answer(&self, method: &Method, path: &str, accept: Option<&str>) -> Response<Full<Bytes>> {
        let plain = |status: StatusCode, text: &'static str| {
            let mut response = Response::new(Full::from(text));
            *response.status_mut() = status;
            let kind = header::HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        };
        if ![Method::GET, Method::HEAD].contains(method) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        }
        match path {
            "/metrics" => {
                let began = Instant::now();
                let form = Form::accepted(accept);
                let mut page = Page::new(form);
                (self.render)(&mut page);
                self.counts.write(&mut page);
                let mut response = Response::new(Full::from(page.end()));
                let kind = header::HeaderValue::from_static(form.content_type());
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                self.counts.add(began.elapsed());
                response
            }
            "/readyz" if *self.ending.borrow() => plain(StatusCode::SERVICE_UNAVAILABLE, "it is ending\n"),
            "/healthz" | "/readyz" => plain(StatusCode::OK, "ok\n"),
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        }
    }
}

fn accept<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(header::ACCEPT)?.to_str().ok()
}

fn log_end(client: SocketAddr, end: Result<hyper::Result<()>, tokio::time::error::Elapsed>) {
    if let Ok(Err(error)) = end {
        tracing::debug!("metrics: {client}: {error}");
    }
}

/// Scrapes, and how long they took; only those that were answered are counted, as no others fail.
#[derive(Debug, Default)]
struct Counts {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

impl Counts {
    fn add(&self, took: Duration) {
        self.buckets[histogram::bucket(took)].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page) {
        let times = Histogram {
            buckets: self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
            ..Histogram::default()
        };
        page.counter("hubble_metrics_http_handler_requests_total", "Scrapes answered.");
        page.sample(&[("code", "200")], times.buckets.iter().sum::<u64>());
        page.histogram("hubble_metrics_http_handler_request_duration_seconds", "Time that a scrape took.");
        times.write(page, "code=\"200\"");
    }
}
