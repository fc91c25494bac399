//! The server of `/metrics`, `/healthz` and `/readyz`. What its clients may take is bounded: connections, time and bytes.

use super::page::{Form, Page};
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
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Upper bounds in seconds: Prometheus' own.
const BOUNDS: [(&str, f64); 11] = [
    ("0.005", 0.005),
    ("0.01", 0.01),
    ("0.025", 0.025),
    ("0.05", 0.05),
    ("0.1", 0.1),
    ("0.25", 0.25),
    ("0.5", 0.5),
    ("1.0", 1.0),
    ("2.5", 2.5),
    ("5.0", 5.0),
    ("10.0", 10.0),
];

impl Counts {
    fn add(&self, took: Duration) {
        let place = BOUNDS.partition_point(|(_, bound)| *bound < took.as_secs_f64());
        self.buckets[place].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page) {
        let buckets = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let all: u64 = buckets.iter().sum();
        let code = ("code", "200");
        page.counter("hubble_metrics_http_handler_requests_total", "Scrapes answered.");
        page.sample(&[code], all);
        page.histogram("hubble_metrics_http_handler_request_duration_seconds", "Time that a scrape took.");
        let mut sum = 0;
        for ((bound, _), count) in BOUNDS.into_iter().zip(buckets) {
            sum += count;
            page.suffixed("_bucket", &[code, ("le", bound)], sum);
        }
        page.suffixed("_bucket", &[code, ("le", "+Inf")], all);
        let seconds = Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        page.suffixed("_sum", &[code], seconds);
        page.suffixed("_count", &[code], all);
    }
}
