//! What is known now, for those who keep it in a form of their own.

use super::{IpCache, Known, Owner};
use crate::{
    endpoint::{Endpoint, Text},
    enrich::source::{PodPort, Rank, Surroundings},
};
use std::{net::IpAddr, sync::Arc};

/// A pod as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The pod.
    pub endpoint: Arc<Endpoint>,
    /// The addresses that are its own now, and nobody else's.
    pub addresses: Vec<IpAddr>,
    /// What policies look at besides.
    pub besides: Arc<Besides>,
}

/// What only policies look at.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Besides {
    /// Labels that are no part of an identity.
    pub labels: Box<[Text]>,
    /// What its containers call their ports.
    pub ports: Box<[PodPort]>,
}

impl IpCache {
    /// Pods of this node that have not ended, with their addresses. One without is in its node's network, or has none yet; what
    /// names namespaces alone knows none of these.
    pub(crate) fn local_pods(&self) -> Vec<(Arc<Endpoint>, Vec<IpAddr>)> {
        let writer = self.writer();
        let ranked = Rank::ALL.iter().flat_map(|(rank, _)| {
            let pods = writer.pods[*rank as usize].values();
            pods.filter(|pod| *rank != Rank::Local || !pod.ips.is_empty())
        });
        let there = ranked.filter(|pod| pod.endpoint.local && !pod.finished);
        there.map(|pod| (Arc::clone(&pod.endpoint), pod.ips.to_vec())).collect()
    }

    /// All pods that have an address of their own, and what is known besides them, for those who follow [`IpCache::generation`].
    pub fn standing(&self) -> (Vec<Standing>, Surroundings) {
        let writer = self.writer();
        let is_own = |endpoint: &Arc<Endpoint>, ip: IpAddr| {
            let owner = self.claims.now(ip);
            matches!(owner, Owner::Pod(owner) if Arc::ptr_eq(&owner, endpoint))
        };
        let pods = writer.pods().map(|Known { endpoint, ips, besides, .. }| {
            let addresses = ips.iter().copied().filter(|ip| is_own(endpoint, *ip));
            Standing {
                endpoint: Arc::clone(endpoint),
                addresses: addresses.collect(),
                besides: Arc::clone(besides),
            }
        });
        let pods = pods.filter(|pod| !pod.addresses.is_empty());
        let mut around = Surroundings::default();
        for from in writer.surroundings.values() {
            around.nodes.extend_from_slice(&from.nodes);
            around.kube_apiservers.extend_from_slice(&from.kube_apiservers);
            around.services.extend_from_slice(&from.services);
            around.cidr_groups.extend_from_slice(&from.cidr_groups);
            around.policy_modes.extend(from.policy_modes.clone());
        }
        (pods.collect(), around)
    }
}
