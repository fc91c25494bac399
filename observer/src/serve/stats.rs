//! The stats service.

use super::{
    api::{Places, Streaming},
    services::Services,
};
use crate::{
    stats::{
        DropCounts, DropKey, EdgeCounts, EdgeKey, Name, PolicyCounts, PolicyKey, Rows, SignalKey, Span,
        Stats, TalkerCounts, Window, protocol,
    },
    store::Store,
};
use observer_proto::{
    answers::signals::{BOUNDS_US, Protocol, Sums},
    stats::{
        self as wire, GetDropsResponse, GetEdgesResponse, GetHealthResponse, GetPoliciesResponse,
        GetServicesResponse, GetSignalsResponse, GetTalkersResponse, HealthRequest, ServicesRequest,
        WindowRequest, stats_server,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tonic::{Request, Response, Status, async_trait};

/// How often one who follows is answered.
const INTERVAL: Duration = Duration::from_secs(1);
/// Rows of an answer, if nothing else is asked for, and at most.
const USUAL_ROWS: usize = 50;
const MOST_ROWS: u32 = 1024;

/// Answers from the statistics.
#[derive(Clone, Debug)]
pub(super) struct StatsApi {
    stats: Arc<Stats>,
    places: Places,
    /// Whether HTTP and DNS can be among the flows.
    l7_is_watched: bool,
    services: Option<Services>,
    shutdown: watch::Receiver<bool>,
}

type Answer<R> = Result<Response<Streaming<R>>, Status>;

impl StatsApi {
    /// Begins to count the store's flows.
    pub(super) fn start(
        store: Arc<Store>,
        places: Places,
        (l7_is_watched, services): (bool, Option<Services>),
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let stats = Arc::new(Stats::default());
        tokio::spawn(Arc::clone(&stats).follow(store, shutdown.clone()));
        Self { stats, places, l7_is_watched, services, shutdown }
    }

    /// Once, or now and each second from now on.
    fn answer<R: Send + 'static>(
        &self,
        follow: bool,
        make: impl Fn(&Stats) -> R + Send + 'static,
    ) -> Answer<R> {
        if !follow {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(make(&self.stats))))));
        }
        let place = self.places.take()?;
        // A client that doesn't read gets the counts of when it does.
        let (sender, receiver) = mpsc::channel(1);
        let (stats, mut ending) = (Arc::clone(&self.stats), self.shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let ends = tokio::select! {
                    _ = ticks.tick() => false,
                    () = sender.closed() => return,
                    _ = ending.wait_for(|down| *down) => true,
                };
                let answer = if ends {
                    Err(Status::unavailable("the server is shutting down"))
                } else {
                    Ok(make(&stats))
                };
                if sender.send(answer).await.is_err() || ends {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }
}

/// Checks what window and how many rows are asked for.
fn check(request: &WindowRequest) -> Result<(Span, usize), Status> {
    let span = match request.window {
        None => Span::Minute,
        Some(prost_types::Duration { seconds, nanos }) => {
            let kept = |span: &Span| i64::from(span.seconds()) == seconds && nanos == 0;
            Span::ALL.into_iter().find(kept).ok_or_else(|| {
                let asked = format!("{seconds}.{nanos:09}");
                Status::invalid_argument(format!("window: {asked} s are not kept; ask for 60, 300 or 900 s"))
            })?
        }
    };
    if request.limit > MOST_ROWS {
        return Err(Status::invalid_argument(format!(
            "limit: {} rows are more than the limit of {MOST_ROWS}",
            request.limit
        )));
    }
    Ok((span, if request.limit == 0 { USUAL_ROWS } else { request.limit as usize }))
}

#[async_trait]
impl stats_server::Stats for StatsApi {
    type GetDropsStream = Streaming<GetDropsResponse>;
    type GetEdgesStream = Streaming<GetEdgesResponse>;
    type GetTalkersStream = Streaming<GetTalkersResponse>;
    type GetHealthStream = Streaming<GetHealthResponse>;
    type GetPoliciesStream = Streaming<GetPoliciesResponse>;
    type GetSignalsStream = Streaming<GetSignalsResponse>;

    async fn get_drops(&self, request: Request<WindowRequest>) -> Answer<GetDropsResponse> {
        let (span, limit) = check(request.get_ref())?;
        self.answer(request.get_ref().follow, move |stats| {
            let Rows { window: mut about, rows, trends, other } = stats.drops(span, limit);
            about.totals.flows += about.totals.refused;
            GetDropsResponse {
                window: Some(window(about)),
                drops: rows
                    .into_iter()
                    .zip(trends)
                    .map(|((key, counts), trend)| drop_count(key, counts, trend))
                    .collect(),
                other: Some(drop_count(DropKey::default(), other, Vec::new())),
            }
        })
    }

    async fn get_edges(&self, request: Request<WindowRequest>) -> Answer<GetEdgesResponse> {
        let (span, limit) = check(request.get_ref())?;
        self.answer(request.get_ref().follow, move |stats| {
            let Rows { window: about, rows, other, .. } = stats.edges(span, limit);
            GetEdgesResponse {
                window: Some(window(about)),
                edges: rows.into_iter().map(|(key, counts)| edge(key, counts)).collect(),
                other: Some(edge(EdgeKey::default(), other)),
            }
        })
    }

    async fn get_talkers(&self, request: Request<WindowRequest>) -> Answer<GetTalkersResponse> {
        let (span, limit) = check(request.get_ref())?;
        self.answer(request.get_ref().follow, move |stats| {
            let Rows { window: about, rows, trends, other } = stats.talkers(span, limit);
            GetTalkersResponse {
                window: Some(window(about)),
                talkers: rows
                    .into_iter()
                    .zip(trends)
                    .map(|((name, counts), trend)| talker(&name, counts, trend))
                    .collect(),
                other: Some(talker(&Name::default(), other, Vec::new())),
            }
        })
    }

    async fn get_health(&self, request: Request<HealthRequest>) -> Answer<GetHealthResponse> {
        self.answer(request.get_ref().follow, |stats| {
            let turned_away = stats.turned_away();
            GetHealthResponse {
                windows: Span::ALL.into_iter().map(|span| health(stats.window(span))).collect(),
                rows_folded: turned_away.rows_folded,
                connections_forgotten: turned_away.connections_forgotten,
            }
        })
    }

    async fn get_policies(&self, request: Request<WindowRequest>) -> Answer<GetPoliciesResponse> {
        let (span, limit) = check(request.get_ref())?;
        self.answer(request.get_ref().follow, move |stats| {
            let Rows { window: about, rows, other, .. } = stats.policies(span, limit);
            GetPoliciesResponse {
                not_built_in: String::new(),
                window: Some(window(about)),
                policies: rows.into_iter().map(|(key, counts)| policy_count(Some(&key), counts)).collect(),
                other: Some(policy_count(None, other)),
            }
        })
    }

    async fn get_services(
        &self,
        request: Request<ServicesRequest>,
    ) -> Result<Response<GetServicesResponse>, Status> {
        // No error: who asks why one does not answer asks this, whatever the daemon follows, and what is refused is counted.
        let unknown = || GetServicesResponse {
            not_built_in: "this daemon does not follow the Kubernetes API".to_owned(),
            ..GetServicesResponse::default()
        };
        let told = self.services.as_ref().map(|services| services.tell(request.get_ref()));
        told.unwrap_or_else(|| Ok(unknown())).map(Response::new)
    }

    async fn get_signals(&self, request: Request<WindowRequest>) -> Answer<GetSignalsResponse> {
        let (span, limit) = check(request.get_ref())?;
        let is_watched = self.l7_is_watched;
        self.answer(request.get_ref().follow, move |stats| {
            let about = window(stats.window(span));
            if !is_watched && about.l7 == 0 {
                let not_built_in = "HTTP and DNS are not watched; start observer with --l7 all".to_owned();
                return GetSignalsResponse { not_built_in, window: Some(about), ..Default::default() };
            }
            GetSignalsResponse {
                not_built_in: String::new(),
                window: Some(about),
                http: Some(signals(stats, Protocol::Http, span, limit)),
                dns: Some(signals(stats, Protocol::Dns, span, limit)),
                bounds_us: BOUNDS_US.into(),
            }
        })
    }
}

fn window(window: Window) -> wire::Window {
    let Window { from, until, totals } = window;
    wire::Window {
        from: Some(from.into()),
        until: Some(until.into()),
        flows: totals.flows,
        lost: totals.lost,
        policy_verdicts: totals.policy_verdicts,
        l7: totals.l7,
    }
}

fn signals(stats: &Stats, protocol: Protocol, span: Span, limit: usize) -> wire::ProtocolSignals {
    let [servers, routes] = stats.signals(protocol, span, limit).map(|Rows { rows, other, .. }| {
        let row = |(key, sums): &(SignalKey, Sums)| sums.told(protocol, &key.server.text, &key.route.text);
        (rows.iter().map(row).collect(), Some(other.told(protocol, "", "")))
    });
    wire::ProtocolSignals {
        servers: servers.0,
        other_servers: servers.1,
        routes: routes.0,
        other_routes: routes.1,
    }
}

fn drop_count(key: DropKey, counts: DropCounts, trend: Vec<u64>) -> wire::DropCount {
    let DropKey { reason, source, destination } = key;
    let DropCounts { flows, packets, bytes } = counts;
    let [reason, source, destination] = [reason, source, destination].map(|name| name.text.to_string());
    wire::DropCount { reason, source, destination, packets, bytes, flows, trend }
}

fn edge(key: EdgeKey, counts: EdgeCounts) -> wire::Edge {
    let EdgeKey { client, server, port: (number, port) } = key;
    let EdgeCounts { flows, bytes, errors } = counts;
    let [client, server] = [client, server].map(|name| name.text.to_string());
    wire::Edge { client, server, protocol: protocol(number), port: port.into(), flows, bytes, errors }
}

fn talker(name: &Name, counts: TalkerCounts, trend: Vec<u64>) -> wire::Talker {
    let TalkerCounts { sent_flows, received_flows, sent_bytes, received_bytes, drops } = counts;
    let name = name.text.to_string();
    wire::Talker { name, sent_flows, received_flows, sent_bytes, received_bytes, drops, trend }
}

fn policy_count(key: Option<&PolicyKey>, counts: PolicyCounts) -> wire::PolicyCount {
    let PolicyCounts { allowed, audited, denied } = counts;
    let direction = key.map_or("", |key| if key.is_egress { "egress" } else { "ingress" });
    let policies = key.iter().flat_map(|key| &key.policies).map(ToString::to_string);
    wire::PolicyCount {
        policies: policies.collect(),
        direction: direction.to_owned(),
        allowed,
        audited,
        denied,
    }
}

fn health(about: Window) -> wire::Health {
    let totals = about.totals;
    wire::Health {
        window: Some(window(about)),
        bytes: totals.bytes,
        dropped_flows: totals.dropped_flows,
        dropped_packets: totals.dropped_packets,
        failed_connects: totals.failed_connects,
        lost_in_kernel: totals.lost_in_kernel,
        lost_in_queue: totals.lost_in_queue,
    }
}
