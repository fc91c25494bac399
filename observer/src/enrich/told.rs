//! Tells of pods, addresses and services that come and go, as Hubble's agent events.

use super::{
    claims::{Claims, Owner},
    source::{ServiceEntry, Surroundings},
    tables::Tables,
};
use crate::{endpoint::Endpoint, events::Events};
use ipnet::IpNet;
use observer_proto::flow::{
    AgentEventType as Kind, EndpointUpdateNotification, IpCacheNotification, ServiceDeleteNotification,
    ServiceUpsertNotification, ServiceUpsertNotificationAddr, agent_event::Notification,
};
use smallvec::SmallVec;
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
    pub(super) finished: bool,
}

impl Shown<'_> {
    /// Hubble's endpoints are the pods of its own node.
    fn is_endpoint(&self) -> bool {
        self.endpoint.local && !self.finished
    }
}

/// Where it stands what flows call an address: several sources may speak of one.
#[derive(Clone, Copy)]
pub(super) struct Naming<'a> {
    pub(super) claims: &'a Claims,
    pub(super) tables: &'a Tables,
}

/// What flows call some addresses.
pub(super) type Names = SmallVec<[(IpAddr, Option<Arc<Endpoint>>); 1]>;

impl Naming<'_> {
    /// What flows call these now; nothing where only what holds for many says it.
    pub(super) fn of(self, ips: impl Iterator<Item = IpAddr>) -> Names {
        ips.map(|ip| (ip, self.name(ip))).collect()
    }

    fn name(self, ip: IpAddr) -> Option<Arc<Endpoint>> {
        match self.claims.now(ip) {
            Owner::Pod(endpoint) => Some(endpoint),
            Owner::Never => self.tables.host(ip).cloned(),
            Owner::Node(_) | Owner::Uncertain => None,
        }
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

    /// Of these addresses those that flows call by another name than before.
    pub(super) fn addresses(&self, before: Names, now: Naming<'_>) {
        for (ip, before) in before {
            match (before, now.name(ip)) {
                (Some(was), Some(is)) if is_called_alike(&was, &is) => {}
                (was, Some(is)) => {
                    let was = was.map(|was| was.identity);
                    self.address(Kind::IpcacheUpserted, ip.into(), &is, was);
                }
                (Some(gone), None) => self.address(Kind::IpcacheDeleted, ip.into(), &gone, None),
                (None, None) => {}
            }
        }
    }

    /// A net keeps its identity as long as it is there. Those of one address are told with the others that it has.
    pub(super) fn nets(&self, old: &Tables, new: &Tables) {
        let [was, is] = [old, new].map(|tables| {
            let nets = tables.cidrs().filter(|(cidr, _)| cidr.prefix_len() < cidr.max_prefix_len());
            nets.collect::<BTreeMap<_, _>>()
        });
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

fn is_called_alike(a: &Endpoint, b: &Endpoint) -> bool {
    (a.identity, &a.namespace, &a.pod_name) == (b.identity, &b.namespace, &b.pod_name)
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
        source::{CidrGroup, Node, Pod, Rank, ServicePort, Snapshot, TargetPort, Window},
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

    /// Whatever comes and goes, in whichever order: what was told last of an address is what flows call it.
    #[test]
    fn addresses_are_told_by_the_name_that_flows_have() {
        let cache = IpCache::new("n1");
        let address = "10.0.0.1".parse().unwrap();
        let (mut next, mut at) = (0, 0);
        let mut told = |change: &dyn Fn(Window)| {
            at += 1;
            change(Window::exact(at));
            let batch = cache.events().agent.read(next, 100);
            next = batch.next;
            let is_of_address = |kind| matches!(kind, Kind::IpcacheUpserted | Kind::IpcacheDeleted);
            let events = batch.entries.into_iter().filter(|(_, event)| is_of_address(event.r#type()));
            let told: Vec<_> = events
                .map(|(_, event)| {
                    (event.r#type() == Kind::IpcacheUpserted, words(event.notification.unwrap()))
                })
                .collect();
            let [(is_there, words)] = &told[..] else { return format!("{told:?}") };
            let name = cache.lookup(address, at).pod_name.to_string();
            assert!(if *is_there { words.contains(&format!(" {name} ")) } else { name.is_empty() });
            format!("{}{words}", if *is_there { "+" } else { "-" })
        };
        let pod = |name, label| pod(name, &["10.0.0.1"], label, true);
        let groups = |cidrs: &[&str]| {
            let cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            let cidr_groups = vec![CidrGroup { name: "office".into(), cidrs, ..CidrGroup::default() }];
            Surroundings { cidr_groups, ..Surroundings::default() }
        };
        let node = Node { addresses: vec![address], ..Node::default() };
        let nodes = |nodes| Surroundings { nodes, ..Surroundings::default() };
        let upsert = |rank, pod: &Pod, window| cache.upsert_pod(rank, pod.clone(), window);
        let (strong, weak) = (pod("web", "k8s:a=1"), pod("container", "k8s:b=1"));
        // A weaker source says nothing more, and has the name again when the stronger one has gone.
        assert_eq!(told(&|at| upsert(Rank::Inventory, &strong, at)), "+10.0.0.1/32 web new");
        assert_eq!(told(&|at| upsert(Rank::Local, &weak, at)), "[]");
        assert_eq!(told(&|at| upsert(Rank::Local, &pod("container", "k8s:b=2"), at)), "[]");
        assert_eq!(told(&|at| cache.remove_pod(Rank::Inventory, "web", at)), "+10.0.0.1/32 container other");
        assert_eq!(told(&|at| upsert(Rank::Kubernetes, &strong, at)), "+10.0.0.1/32 web other");
        assert_eq!(told(&|at| cache.remove_pod(Rank::Local, "container", at)), "[]");
        // Nor does a net of this address alone.
        assert_eq!(told(&|_| cache.set_surroundings(Rank::Inventory, groups(&["10.0.0.1/32"]))), "[]");
        assert_eq!(told(&|_| cache.set_surroundings(Rank::Inventory, groups(&[]))), "[]");
        // A successor is told before the old one is gone, also one with the same labels.
        assert_eq!(
            told(&|at| upsert(Rank::Kubernetes, &pod("web-2", "k8s:a=1"), at)),
            "+10.0.0.1/32 web-2 same"
        );
        assert_eq!(told(&|at| cache.remove_pod(Rank::Kubernetes, "web", at)), "[]");
        // A node's address is no pod's.
        assert_eq!(
            told(&|_| cache.set_surroundings(Rank::Local, nodes(vec![node.clone()]))),
            "-10.0.0.1/32 web-2 new"
        );
        assert_eq!(told(&|_| cache.set_surroundings(Rank::Local, nodes(vec![]))), "+10.0.0.1/32 web-2 new");
        assert_eq!(told(&|at| cache.remove_pod(Rank::Kubernetes, "web-2", at)), "-10.0.0.1/32 web-2 new");
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
        let single = ["fd00:1::/32", "192.0.2.0/24", "192.0.2.1/32"];
        assert_eq!(told(&single, 3), ["IPCACHE_UPSERTED 192.0.2.1/32 4"]);
        assert_eq!(told(&single[..2], 4), ["IPCACHE_DELETED 192.0.2.1/32 4"]);
    }
}
