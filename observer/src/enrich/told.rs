//! Tells of pods, addresses and services that come and go, as Hubble's agent events.

use super::{
    source::{ServiceEntry, Surroundings},
    tables::Tables,
};
use crate::{endpoint::Endpoint, events::Events};
use ipnet::IpNet;
use observer_proto::flow::{
    AgentEventType as Kind, EndpointUpdateNotification, IpCacheNotification, ServiceDeleteNotification,
    ServiceUpsertNotification, ServiceUpsertNotificationAddr, agent_event::Notification,
};
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::IpAddr,
    sync::Arc,
};

/// Where the IP cache tells of its changes.
#[derive(Debug, Default)]
pub(super) struct Told(pub(super) Arc<Events>);

/// A pod as it is or was.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) ips: &'a [IpAddr],
    pub(super) finished: bool,
}

impl<'a> Shown<'a> {
    /// Hubble's endpoints are the pods of its own node.
    fn is_endpoint(&self) -> bool {
        self.endpoint.local && !self.finished
    }

    fn ips(this: Option<Self>) -> &'a [IpAddr] {
        this.map_or(&[], |this| this.ips)
    }
}

impl Told {
    pub(super) fn pod(&self, old: Option<Shown<'_>>, new: Option<Shown<'_>>) {
        let was = old.filter(Shown::is_endpoint);
        let is = new.filter(Shown::is_endpoint);
        if let (Some(gone), None) = (was, is) {
            self.endpoint(Kind::EndpointDeleted, gone.endpoint);
        }
        if let (None, Some(came)) = (was, is) {
            self.endpoint(Kind::EndpointCreated, came.endpoint);
        }
        let (old_ips, new_ips) = (Shown::ips(old), Shown::ips(new));
        if let Some(old) = old {
            for ip in old_ips.iter().filter(|ip| !new_ips.contains(ip)) {
                self.address(Kind::IpcacheDeleted, (*ip).into(), old.endpoint, None);
            }
        }
        if let Some(new) = new {
            for ip in new_ips {
                let before = old.filter(|_| old_ips.contains(ip)).map(|old| old.endpoint.identity);
                if before != Some(new.endpoint.identity) {
                    self.address(Kind::IpcacheUpserted, (*ip).into(), new.endpoint, before);
                }
            }
        }
    }

    fn endpoint(&self, kind: Kind, endpoint: &Endpoint) {
        let update = EndpointUpdateNotification {
            id: endpoint.id.into(),
            labels: endpoint.labels.iter().map(ToString::to_string).collect(),
            error: String::new(),
            pod_name: endpoint.pod_name.to_string(),
            namespace: endpoint.namespace.to_string(),
        };
        self.0.tell(kind, Notification::EndpointUpdate(update));
    }

    fn address(&self, kind: Kind, cidr: IpNet, endpoint: &Endpoint, before: Option<u32>) {
        let update = IpCacheNotification {
            cidr: cidr.to_string(),
            identity: endpoint.identity,
            old_identity: before,
            namespace: endpoint.namespace.to_string(),
            pod_name: endpoint.pod_name.to_string(),
            ..IpCacheNotification::default()
        };
        self.0.tell(kind, Notification::IpcacheUpdate(update));
    }

    /// A CIDR keeps its identity as long as it is there.
    pub(super) fn cidrs(&self, old: &Tables, new: &Tables) {
        let [was, is] = [old, new].map(|tables| tables.cidrs().collect::<BTreeMap<_, _>>());
        for (cidr, endpoint) in was.iter().filter(|(cidr, _)| !is.contains_key(cidr)) {
            self.address(Kind::IpcacheDeleted, *cidr, endpoint, None);
        }
        for (cidr, endpoint) in is.iter().filter(|(cidr, _)| !was.contains_key(cidr)) {
            self.address(Kind::IpcacheUpserted, *cidr, endpoint, None);
        }
    }

    #[expect(deprecated, reason = "Hubble has no other message for services")]
    pub(super) fn services(&self, old: Option<&Surroundings>, new: &Surroundings) {
        let old = old.map_or_else(BTreeMap::new, |old| frontends(&old.services));
        let new = frontends(&new.services);
        for (frontend, _) in old.iter().filter(|(frontend, _)| !new.contains_key(*frontend)) {
            let gone = ServiceDeleteNotification { id: id(*frontend) };
            self.service(Kind::ServiceDeleted as i32, Notification::ServiceDelete(gone));
        }
        for (frontend, service) in &new {
            if old
                .get(frontend)
                .is_some_and(|old| (&old.namespace, &old.name) == (&service.namespace, &service.name))
            {
                continue;
            }
            let (ip, port, _) = *frontend;
            let came = ServiceUpsertNotification {
                id: id(*frontend),
                frontend_address: Some(ServiceUpsertNotificationAddr {
                    ip: ip.to_string(),
                    port: port.into(),
                }),
                r#type: "ClusterIP".to_owned(),
                name: service.name.clone(),
                namespace: service.namespace.clone(),
                ..ServiceUpsertNotification::default()
            };
            self.service(Kind::ServiceUpserted as i32, Notification::ServiceUpsert(came));
        }
    }

    fn service(&self, kind: i32, notification: Notification) {
        self.0
            .agent
            .push(observer_proto::flow::AgentEvent { r#type: kind, notification: Some(notification) });
    }
}

type Frontend = (IpAddr, u16, u8);

fn frontends(services: &[ServiceEntry]) -> BTreeMap<Frontend, &ServiceEntry> {
    let each = services.iter().flat_map(|service| {
        let ports = move |ip: IpAddr| service.ports.iter().map(move |port| (ip, port.port, port.protocol));
        service.addresses.iter().flat_map(move |ip| ports(*ip)).map(move |frontend| (frontend, service))
    });
    each.collect()
}

/// The same for the same address and port, in each daemon.
fn id(frontend: Frontend) -> u32 {
    let mut hasher = DefaultHasher::new();
    frontend.hash(&mut hasher);
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrich::{
        ipcache::IpCache,
        source::{CidrGroup, Pod, Rank, ServicePort, Snapshot, TargetPort, Window},
    };

    fn pod(uid: &str, ips: &[&str], label: &str, local: bool) -> Pod {
        Pod {
            uid: uid.into(),
            namespace: "shop".into(),
            name: uid.into(),
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            labels: vec![label.into()],
            local,
            ..Pod::default()
        }
    }

    fn service(name: &str, port: u16) -> ServiceEntry {
        let ports = vec![ServicePort {
            name: String::new(),
            port,
            protocol: 6,
            target: TargetPort::Number(port),
            node_port: None,
        }];
        ServiceEntry {
            namespace: "shop".into(),
            name: name.into(),
            addresses: vec!["10.96.0.1".parse().unwrap()],
            ports,
            ..ServiceEntry::default()
        }
    }

    fn words(notification: Notification) -> String {
        #[expect(deprecated, reason = "Hubble has no other message for services")]
        match notification {
            Notification::EndpointUpdate(update) => format!("{}/{}", update.namespace, update.pod_name),
            Notification::IpcacheUpdate(update) => {
                let old =
                    update.old_identity.map(|old| if old == update.identity { "same" } else { "other" });
                format!("{} {} {}", update.cidr, update.pod_name, old.unwrap_or("new"))
            }
            Notification::ServiceUpsert(service) => {
                let address = service.frontend_address.unwrap();
                format!("{}/{} {}:{}", service.namespace, service.name, address.ip, address.port)
            }
            Notification::ServiceDelete(service) => service.id.to_string(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_changes_and_goes_is_told_once() {
        let cache = IpCache::new("n1");
        let mut next = 0;
        let mut told = |pods: &[Pod], services: &[ServiceEntry], at| {
            let surroundings = Surroundings { services: services.to_vec(), ..Surroundings::default() };
            let snapshot = Snapshot { pods: pods.to_vec(), surroundings };
            cache.replace(Rank::Inventory, snapshot, Window::exact(at));
            let batch = cache.events().agent.read(next, 100);
            next = batch.next;
            let events = batch.entries.into_iter();
            events
                .map(|(_, event)| {
                    format!("{} {}", event.r#type().as_str_name(), words(event.notification.unwrap()))
                })
                .collect::<Vec<_>>()
        };
        let (web, far) = (
            pod("web", &["10.0.0.1", "fd00::1"], "k8s:a=1", true),
            pod("far", &["10.0.1.1"], "k8s:a=1", false),
        );
        let api = service("api", 80);
        assert_eq!(
            told(&[web.clone(), far.clone()], std::slice::from_ref(&api), 1),
            [
                "ENDPOINT_CREATED shop/web",
                "IPCACHE_UPSERTED 10.0.0.1/32 web new",
                "IPCACHE_UPSERTED fd00::1/128 web new",
                "IPCACHE_UPSERTED 10.0.1.1/32 far new",
                "SERVICE_UPSERTED shop/api 10.96.0.1:80",
            ]
        );
        assert_eq!(told(&[web.clone(), far.clone()], std::slice::from_ref(&api), 2), [""; 0]);
        // Other labels, an address less; another service at the address.
        let web = Pod { ips: vec!["10.0.0.1".parse().unwrap()], labels: vec!["k8s:a=2".into()], ..web };
        assert_eq!(
            told(&[web.clone(), far.clone()], &[service("other", 80)], 3),
            [
                "IPCACHE_DELETED fd00::1/128 web new",
                "IPCACHE_UPSERTED 10.0.0.1/32 web other",
                "SERVICE_UPSERTED shop/other 10.96.0.1:80",
            ]
        );
        let finished = Pod { finished: true, ..web };
        assert_eq!(
            told(&[finished], &[], 4),
            [
                "ENDPOINT_DELETED shop/web",
                "IPCACHE_DELETED 10.0.0.1/32 web new",
                "IPCACHE_DELETED 10.0.1.1/32 far new",
                &format!("SERVICE_DELETED {}", id(("10.96.0.1".parse().unwrap(), 80, 6))),
            ]
        );
        assert_eq!(told(&[], &[], 5), [""; 0]);
    }
    #[test]
    fn nets_that_come_and_go_are_told() {
        let cache = IpCache::new("n1");
        let mut next = 0;
        let mut told = |cidrs: &[&str], at| {
            let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            let cidr_groups = vec![CidrGroup { name: "office".into(), cidrs, ..CidrGroup::default() }];
            let surroundings = Surroundings { cidr_groups, ..Surroundings::default() };
            let snapshot = Snapshot { surroundings, ..Snapshot::default() };
            cache.replace(Rank::Inventory, snapshot, Window::exact(at));
            let batch = cache.events().agent.read(next, 100);
            next = batch.next;
            let each = batch.entries.into_iter().map(|(_, event)| {
                let Some(Notification::IpcacheUpdate(update)) = &event.notification else {
                    panic!("{event:?}")
                };
                let identity = update.identity - (1 << 24);
                format!("{} {} {identity}", event.r#type().as_str_name(), update.cidr)
            });
            each.collect::<Vec<_>>()
        };
        assert_eq!(
            told(&["10.0.0.0/8", "fd00:1::/32"], 1),
            ["IPCACHE_UPSERTED 10.0.0.0/8 1", "IPCACHE_UPSERTED fd00:1::/32 2"]
        );
        assert_eq!(
            told(&["fd00:1::/32", "192.0.2.0/24"], 2),
            ["IPCACHE_DELETED 10.0.0.0/8 1", "IPCACHE_UPSERTED 192.0.2.0/24 3"]
        );
    }
}
