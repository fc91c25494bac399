//! GetNodes: this node and those whose daemons are known, each as it answered when it was asked last.

use super::peers::{Known, Peers};
use observer_proto::{
    observer::{Node, ServerStatusRequest, ServerStatusResponse, Tls, observer_client::ObserverClient},
    relay::NodeState,
};
use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};
use tonic::transport::Endpoint;

/// Clients ask every few seconds; the others are not asked as often.
const FRESH: Duration = Duration::from_secs(10);
/// How long a daemon gets to answer, and how long all of them do.
const ONE: Duration = Duration::from_secs(1);
const ALL: Duration = Duration::from_secs(3);
/// Daemons asked at a time.
const AT_ONCE: usize = 64;

/// What others answered lately.
#[derive(Debug, Default)]
pub(super) struct Asked(tokio::sync::Mutex<Option<(Instant, HashMap<String, Answer>)>>);

#[derive(Clone, Debug)]
struct Answer {
    state: NodeState,
    status: ServerStatusResponse,
}

impl Asked {
    /// All nodes by name; `own` is this one's status.
    pub(super) async fn nodes(&self, peers: &mut Peers, own: ServerStatusResponse) -> Vec<Node> {
        let known = peers.now();
        let answers = self.answers(&known).await;
        let nodes = known.into_iter().map(|(name, peer)| {
            let answer = match answers.get(&peer.address) {
                _ if peer.is_own => Answer { state: NodeState::NodeConnected, status: own.clone() },
                Some(answer) => answer.clone(),
                None => {
                    Answer { state: NodeState::UnknownNodeState, status: ServerStatusResponse::default() }
                }
            };
            let Answer { state, status } = answer;
            Node {
                name,
                version: status.version,
                address: peer.address,
                state: state.into(),
                tls: Some(Tls {
                    enabled: peer.server_name.is_some(),
                    server_name: peer.server_name.unwrap_or_default(),
                }),
                uptime_ns: status.uptime_ns,
                num_flows: status.num_flows,
                max_flows: status.max_flows,
                seen_flows: status.seen_flows,
            }
        });
        nodes.collect()
    }

    /// By address.
    async fn answers(&self, known: &BTreeMap<String, Known>) -> HashMap<String, Answer> {
        let others: Vec<&Known> = known.values().filter(|peer| !peer.is_own).collect();
        if others.is_empty() {
            return HashMap::new();
        }
        // Held while they are asked: who comes meanwhile gets the same answers.
        let mut last = self.0.lock().await;
        if let Some((when, answers)) = &*last
            && when.elapsed() < FRESH
            && others.iter().all(|peer| answers.contains_key(&peer.address))
        {
            return answers.clone();
        }
        let answers = ask_all(&others).await;
        *last = Some((Instant::now(), answers.clone()));
        answers
    }
}

async fn ask_all(peers: &[&Known]) -> HashMap<String, Answer> {
    let places = std::sync::Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for peer in peers {
        let (peer, places) = ((*peer).clone(), places.clone());
        asking.spawn(async move {
            let _place = places.acquire_owned().await;
            let answer = tokio::time::timeout(ONE, ask(&peer)).await.ok().flatten();
            let unavailable =
                || Answer { state: NodeState::NodeUnavailable, status: ServerStatusResponse::default() };
            (peer.address, answer.unwrap_or_else(unavailable))
        });
    }
    let mut answers = HashMap::new();
    let collect = async {
        while let Some(Ok((address, answer))) = asking.join_next().await {
            answers.insert(address, answer);
        }
    };
    // Those not reached in time are in a state that is not known.
    let _ = tokio::time::timeout(ALL, collect).await;
    answers
}

async fn ask(peer: &Known) -> Option<Answer> {
    // With TLS this daemon has no certificate of a client's, and can see only whether somebody listens.
    if peer.server_name.is_some() {
        TcpStream::connect(&peer.address).await.ok()?;
        return Some(Answer { state: NodeState::NodeConnected, status: ServerStatusResponse::default() });
    }
    let url = if peer.address.starts_with("unix:") {
        peer.address.clone()
    } else {
        format!("http://{}", peer.address)
    };
    let channel = Endpoint::from_shared(url).ok()?.connect().await.ok()?;
    let answer = ObserverClient::new(channel).server_status(ServerStatusRequest {}).await;
    Some(match answer {
        Ok(status) => Answer { state: NodeState::NodeConnected, status: status.into_inner() },
        Err(_) => Answer { state: NodeState::NodeError, status: ServerStatusResponse::default() },
    })
}
