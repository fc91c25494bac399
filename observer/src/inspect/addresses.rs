//! Whose which address is.

use super::{Chosen, Inspection, PART, failed, name, policy::key};
use crate::{
    capture::PolicyInForce,
    decode::Clock,
    enrich::{
        ipcache::{Held, HeldBy},
        source::Rank,
    },
    serve::{Answer, InspectError, encode::proto_time},
};
use ipnet::IpNet;
use observer_proto::control::{InspectResponse, InspectedAddress};

impl Inspection {
    pub(super) fn addresses(&self, chosen: &Chosen, limit: u32, answer: &Answer) -> Result<(), InspectError> {
        let mut held: Vec<_> = self.names.held().into_iter().collect();
        if !chosen.globs.is_empty() {
            let behind = self.behind(chosen);
            held.retain(|(_, held)| held.by == HeldBy::Pod && behind.contains(&name(&held.endpoint)));
        }
        let policy = self.inspector.policy().map_err(|error| failed(&error))?;
        let clock = Clock::new();
        let more = held.len().saturating_sub(limit as usize) as u64;
        held.truncate(limit as usize);
        for some in held.chunks(PART) {
            let entry = |(net, held): &(IpNet, Held)| address(net, held, policy.as_ref(), &clock);
            let ipcache = some.iter().map(entry).collect();
            if !answer.give(InspectResponse { ipcache, ..InspectResponse::default() }) {
                return Ok(());
            }
        }
        answer.give(InspectResponse { more, ..InspectResponse::default() });
        Ok(())
    }
}

fn address(net: &IpNet, held: &Held, policy: Option<&PolicyInForce>, clock: &Clock) -> InspectedAddress {
    let (bits, octets) = key(net);
    let judged = policy.filter(|_| bits == 128).and_then(|policy| policy.endpoint(octets));
    let as_world =
        || policy.filter(|_| held.by == HeldBy::Cidr).and_then(|policy| policy.net((bits, octets)));
    let endpoint = &held.endpoint;
    let is_one = net.prefix_len() == net.max_prefix_len();
    let (kind, name) = match &held.by {
        HeldBy::Pod => ("pod", name(endpoint)),
        HeldBy::Node(node) if !node.is_empty() => ("node", node.clone()),
        HeldBy::Node(_) => ("node", name(endpoint)),
        HeldBy::Cidr => ("cidr", name(endpoint)),
    };
    InspectedAddress {
        net: if is_one { net.addr().to_string() } else { net.to_string() },
        kind: kind.to_owned(),
        name,
        identity: endpoint.identity,
        labels: endpoint.labels.iter().map(ToString::to_string).collect(),
        source: held.rank.map_or("", source).to_owned(),
        since: (held.since > 0).then(|| proto_time(clock.unix(held.since))),
        subject: judged.map(|endpoint| endpoint.subject),
        peer: judged.map(|endpoint| endpoint.peer).or_else(as_world),
    }
}

fn source(rank: Rank) -> &'static str {
    match rank {
        Rank::Local => "local",
        Rank::Inventory => "inventory",
        Rank::Kubernetes => "kubernetes",
    }
}
