//! An API server within the test: objects, versions, watches, and every way in which one fails.

use crate::api::{Access, Mock as Handle};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use kube::client::Body;
use std::{
    collections::BTreeMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, timeout},
};

/// How it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Well.
    #[default]
    Up,
    /// Nobody listens; what was open is cut.
    Down,
    /// Connections stay, and nothing comes over them.
    Frozen,
    /// Each request is answered by this code, and what was open is cut.
    Code(u16, Option<u64>),
    /// Watches are cut within a line.
    Half,
}

#[derive(Default)]
struct State {
    mode: Mode,
    version: u64,
    /// What is older was forgotten.
    oldest: u64,
    /// By the path of their resource and their own name; that of a definition that is not there is not there.
    objects: BTreeMap<String, BTreeMap<String, String>>,
    log: Vec<(u64, String, &'static str, String)>,
    /// Paths that this client may not read.
    forbidden: Vec<String>,
    /// Whether watches may begin with a list.
    has_streams: bool,
    requests: Vec<(Instant, String)>,
}

#[derive(Clone)]
pub(crate) struct Mock {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

/// A body that is written as it goes.
struct Written(mpsc::Receiver<io::Result<Bytes>>);

impl http_body::Body for Written {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const CIDR_GROUPS: &str = "/apis/cilium.io/v2/ciliumcidrgroups";
const BUILT_IN: [&str; 6] = [
    PODS,
    NAMESPACES,
    "/api/v1/nodes",
    "/api/v1/services",
    "/apis/discovery.k8s.io/v1/endpointslices",
    "/apis/networking.k8s.io/v1/networkpolicies",
];

impl Mock {
    pub(crate) fn new() -> Self {
        let objects = BUILT_IN.map(|path| (path.to_owned(), BTreeMap::new())).into();
        let state = State { objects, version: 100, has_streams: true, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(watch::Sender::new(0)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state());
        self.changed.send_modify(|times| *times += 1);
        result
    }

    pub(crate) fn access(&self) -> Access {
        let mock = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let mock = mock.clone();
            async move { mock.answer(request.uri().path(), request.uri().query().unwrap_or_default()).await }
        });
        Access::Mock(Handle(kube::Client::new(service, "default")))
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.with(|state| state.mode = mode);
    }

    pub(crate) fn no_streams(&self) {
        self.with(|state| state.has_streams = false);
    }

    pub(crate) fn forbid(&self, path: &str, is_forbidden: bool) {
        self.with(|state| {
            state.forbidden.retain(|known| known != path);
            state.forbidden.extend(is_forbidden.then(|| path.to_owned()));
        });
    }

    /// A definition comes, or goes with all of its objects.
    pub(crate) fn define(&self, path: &str, is_there: bool) {
        self.with(|state| {
            if is_there {
                state.objects.entry(path.to_owned()).or_default();
            } else {
                state.objects.remove(path);
            }
        });
    }

    /// Nothing from before now is remembered.
    pub(crate) fn forget(&self) {
        self.with(|state| {
            state.version += 1;
            state.oldest = state.version;
            state.log.clear();
        });
    }

    /// An object is there, in its next version; `VERSION` in its text is that.
    pub(crate) fn put(&self, path: &str, name: &str, text: &str) {
        self.with(|state| {
            state.version += 1;
            let text = text.replace("VERSION", &state.version.to_string());
            let objects = state.objects.entry(path.to_owned()).or_default();
            let kind =
                if objects.insert(name.to_owned(), text.clone()).is_some() { "MODIFIED" } else { "ADDED" };
            state.log.push((state.version, path.to_owned(), kind, text));
        });
    }

    pub(crate) fn delete(&self, path: &str, name: &str) {
        self.with(|state| {
            state.version += 1;
            let text = state.objects.get_mut(path).unwrap().remove(name).unwrap();
            state.log.push((state.version, path.to_owned(), "DELETED", text));
        });
    }

    /// When requests came since then.
    pub(crate) fn requests(&self, since: Instant) -> Vec<(Instant, String)> {
        self.state().requests.iter().filter(|(at, _)| *at >= since).cloned().collect()
    }

    async fn answer(&self, path: &str, query: &str) -> Result<Response<Written>, io::Error> {
        self.state().requests.push((Instant::now(), path.to_owned()));
        let arguments: BTreeMap<&str, &str> =
            query.split('&').filter_map(|argument| argument.split_once('=')).collect();
        let mut changed = self.changed.subscribe();
        while self.state().mode == Mode::Frozen {
            changed.changed().await.unwrap();
        }
        let (sender, receiver) = mpsc::channel(8);
        let respond = |code: u16, retry: Option<u64>| {
            let mut response = Response::builder().status(code);
            if let Some(seconds) = retry {
                response = response.header("Retry-After", seconds);
            }
            Ok(response.body(Written(receiver)).unwrap())
        };
        let state = self.state();
        let error = match state.mode {
            Mode::Down => return Err(io::Error::other("connection refused")),
            Mode::Code(code, retry) => Some((code, retry)),
            _ if state.forbidden.iter().any(|known| known == path) => Some((403, None)),
            _ if !state.objects.contains_key(path) => Some((404, None)),
            _ if arguments.contains_key("sendInitialEvents") && !state.has_streams => Some((422, None)),
            _ => None,
        };
        if let Some((code, retry)) = error {
            let text = format!(r#"{{"kind":"Status","code":{code},"message":"no"}}"#);
            sender.try_send(Ok(text.into())).unwrap();
            return respond(code, retry);
        }
        if !arguments.contains_key("watch") {
            // Pages of one object each.
            let begin: usize = arguments.get("continue").map_or(0, |at| at.parse().unwrap());
            let objects = &state.objects[path];
            let items: Vec<_> = objects.values().skip(begin).take(1).cloned().collect();
            let goes_on = if begin + 1 < objects.len() { (begin + 1).to_string() } else { String::new() };
            let text = format!(
                r#"{{"metadata":{{"resourceVersion":"{}","continue":"{goes_on}"}},"items":[{}]}}"#,
                state.version,
                items.join(",")
            );
            sender.try_send(Ok(text.into())).unwrap();
            return respond(200, None);
        }
        let seconds = arguments["timeoutSeconds"].parse().unwrap();
        let from = arguments["resourceVersion"].parse().ok();
        tokio::spawn(self.clone().watch(path.to_owned(), from, Duration::from_secs(seconds), sender));
        respond(200, None)
    }

    async fn watch(
        self,
        path: String,
        from: Option<u64>,
        time: Duration,
        sender: mpsc::Sender<io::Result<Bytes>>,
    ) {
        let line = |kind: &str, object: &str| {
            Ok(Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")))
        };
        let ends = Instant::now() + time;
        let mut told = from.unwrap_or(0);
        let mut begun = from.is_some();
        let mut changed = self.changed.subscribe();
        loop {
            let mut lines = Vec::new();
            let mode = {
                let state = self.state();
                match state.mode {
                    Mode::Up if begun && told < state.oldest => {
                        let status = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old"}"#;
                        lines.push(line("ERROR", status));
                    }
                    Mode::Up | Mode::Half => {
                        if begun {
                            let log = state.log.iter().filter(|(at, of, ..)| *at > told && *of == path);
                            lines.extend(log.map(|(_, _, kind, object)| line(kind, object)));
                        } else {
                            let objects = state.objects.get(&path).into_iter().flat_map(BTreeMap::values);
                            lines.extend(objects.map(|object| line("ADDED", object)));
                            let ends = r#""annotations":{"k8s.io/initial-events-end":"true"}"#;
                            let version = state.version;
                            let object =
                                format!(r#"{{"metadata":{{"resourceVersion":"{version}",{ends}}}}}"#);
                            lines.push(line("BOOKMARK", &object));
                        }
                        (begun, told) = (true, state.version);
                    }
                    _ => {}
                }
                state.mode
            };
            let is_last = lines.last().is_some_and(|line| {
                line.as_ref().is_ok_and(|line: &Bytes| line.starts_with(b"{\"type\":\"ERROR\""))
            });
            for line in lines {
                let line = line
                    .map(|line: Bytes| if mode == Mode::Half { line.slice(..line.len() / 2) } else { line });
                if sender.send(line).await.is_err() {
                    return;
                }
                if mode == Mode::Half {
                    return;
                }
            }
            if is_last {
                return;
            }
            match mode {
                Mode::Down | Mode::Code(..) => {
                    _ = sender.send(Err(io::Error::other("connection reset"))).await;
                    return;
                }
                Mode::Frozen => _ = changed.changed().await,
                Mode::Up | Mode::Half => {
                    let left = ends.saturating_duration_since(Instant::now());
                    match timeout(left, changed.changed()).await {
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            }
            if sender.is_closed() {
                return;
            }
        }
    }
}

/// Waits, in the test's own time, until something holds; how long that took.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_mins(10), "{what}");
        sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}
