//! Who stands behind services, as EndpointSlices tell it: those with a selector and those without, both families.

use crate::{
    object::{EndpointSlice, protocol},
    surroundings::{Listed, host},
};
use observer_inventory::{Backend, BackendState, ServiceEntry, Slice, SlicePort};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// The endpoints of all services, for those who ask.
#[derive(Debug, Default)]
pub struct Backends {
    slices: Mutex<Listed<Held>>,
    generation: AtomicU64,
    told: AtomicBool,
}

/// A slice and the service that it is of.
#[derive(Debug, PartialEq)]
struct Held {
    namespace: Box<str>,
    service: Box<str>,
    slice: Arc<Slice>,
}

impl Held {
    fn is_of(&self, namespace: &str, service: &str) -> bool {
        *self.namespace == *namespace && *self.service == *service
    }
}

/// What names the service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

impl Backends {
    /// Raised with each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Says of services who stands behind them, once all was told. Of others, such as those of an inventory, nothing is said.
    pub fn join(&self, services: &mut [ServiceEntry]) {
        if !self.told.load(Ordering::Acquire) {
            return;
        }
        let slices = self.slices();
        let mut of_service: HashMap<(&str, &str), Vec<Arc<Slice>>> = HashMap::new();
        for held in slices.values() {
            let of = of_service.entry((&held.namespace, &held.service)).or_default();
            of.push(Arc::clone(&held.slice));
        }
        for service in services {
            service.slices = of_service.remove(&(service.namespace.as_str(), service.name.as_str()));
        }
    }

    /// What stands behind one service; nothing where that was not told.
    pub fn of(&self, namespace: &str, service: &str) -> Option<Vec<Arc<Slice>>> {
        let slices = self.slices();
        let of_service = slices.values().filter(|held| held.is_of(namespace, service));
        let found: Vec<_> = of_service.map(|held| Arc::clone(&held.slice)).collect();
        (self.told.load(Ordering::Acquire) && !found.is_empty()).then_some(found)
    }

    /// The addresses behind one service, however they do.
    pub(crate) fn addresses(&self, namespace: &str, service: &str) -> Vec<IpAddr> {
        let slices = self.slices();
        let of_service = slices.values().filter(|held| held.is_of(namespace, service));
        let mut found: Vec<IpAddr> =
            of_service.flat_map(|held| &held.slice.backends).map(|one| one.address).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn slices(&self) -> MutexGuard<'_, Listed<Held>> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Listed<Held>) -> bool) -> bool {
        let changed = change(&mut self.slices());
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Whether that is new.
    pub(crate) fn apply(&self, slice: EndpointSlice) -> bool {
        let EndpointSlice { metadata, endpoints, ports } = slice;
        let state = |ready: Option<bool>, serving: Option<bool>, terminating: Option<bool>| {
            // What is not said counts as ready.
            let ready = ready.unwrap_or(true);
            match (ready, serving.unwrap_or(ready) && terminating.unwrap_or(false)) {
                (true, _) => BackendState::Ready,
                (false, true) => BackendState::Draining,
                (false, false) => BackendState::NotReady,
            }
        };
        let backends = endpoints.iter().flat_map(|endpoint| {
            let of = &endpoint.conditions;
            let state = state(of.ready, of.serving, of.terminating);
            // Those of the type FQDN have none.
            let addresses = endpoint.addresses.iter().filter_map(|text| host(text));
            addresses.map(move |address| Backend { address, state })
        });
        let ports = ports.iter().filter_map(|port| {
            let protocol = protocol(&port.protocol)?;
            Some(SlicePort { name: port.name.as_str().into(), protocol, number: port.port })
        });
        let name = key(&metadata.namespace, &metadata.name);
        let held = Held {
            service: metadata.labels.get(SERVICE).map_or("", String::as_str).into(),
            namespace: metadata.namespace.into(),
            slice: Arc::new(Slice { ports: ports.collect(), backends: backends.collect() }),
        };
        self.change(|known| known.apply(&name, held))
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, namespace: &str, name: &str) -> bool {
        self.change(|known| known.remove(&key(namespace, name)))
    }

    pub(crate) fn begin(&self) {
        self.slices().begin();
    }

    /// All were told; whether any is gone.
    pub(crate) fn end(&self) -> bool {
        let is_new = !self.told.swap(true, Ordering::AcqRel);
        self.change(|known| known.end() || is_new)
    }

    pub(crate) fn len(&self) -> usize {
        self.slices().len()
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(text: &str) -> EndpointSlice {
        serde_json::from_str(text).unwrap()
    }

    fn service(name: &str) -> ServiceEntry {
        ServiceEntry { namespace: "shop".to_owned(), name: name.to_owned(), ..ServiceEntry::default() }
    }

    #[test]
    fn slices_are_their_services_and_conditions_say_who_is_called() {
        let backends = Backends::default();
        let conditions = [
            ("10.0.0.1", ""),
            ("10.0.0.2", r#""ready":true,"serving":true,"terminating":false"#),
            ("10.0.0.3", r#""ready":false,"serving":true,"terminating":true"#),
            ("10.0.0.4", r#""ready":false,"serving":false,"terminating":true"#),
            ("10.0.0.5", r#""ready":false,"serving":true,"terminating":false"#),
            ("10.0.0.6", r#""ready":false"#),
            // With publishNotReadyAddresses.
            ("10.0.0.7", r#""ready":true,"serving":false,"terminating":true"#),
            ("api.example", r#""ready":true"#),
        ];
        let endpoints = conditions.map(|(address, of)| {
            format!(r#"{{"addresses":["{address}"],"conditions":{{{of}}},"targetRef":{{"kind":"Pod"}}}}"#)
        });
        let text = format!(
            r#"{{"metadata":{{"name":"api-x","namespace":"shop","resourceVersion":"7","labels":{{"kubernetes.io/service-name":"api"}}}},
            "addressType":"IPv4","endpoints":[{}],"ports":[{{"name":"http","port":8080,"protocol":"TCP"}},{{"name":null,"port":null}}]}}"#,
            endpoints.join(",")
        );
        assert!(backends.apply(slice(&text)));
        let mut services = [service("api"), service("other")];
        backends.join(&mut services);
        assert_eq!(services[0].slices, None, "not all is told yet");
        assert!(backends.end(), "now it is, which is news");
        let generation = backends.generation();
        assert!(!backends.apply(slice(&text)) && !backends.end() && backends.generation() == generation);
        backends.join(&mut services);
        let [of_api] = &services[0].slices.as_ref().unwrap()[..] else { panic!("{services:?}") };
        let states: Vec<_> = of_api.backends.iter().map(|one| one.state.name()).collect();
        assert_eq!(states, ["ready", "ready", "draining", "not ready", "not ready", "not ready", "ready"]);
        let ports: Vec<_> =
            of_api.ports.iter().map(|port| (&*port.name, port.protocol, port.number)).collect();
        assert_eq!(ports, [("http", 6, Some(8080)), ("", 6, None)]);
        assert_eq!(services[1].slices, None);
        assert_eq!(backends.addresses("shop", "api").len(), 7);
        assert!(backends.remove("shop", "api-x") && !backends.remove("shop", "api-x"));
        // What is nil in Go, and a slice that is nobody's.
        assert!(
            backends.apply(slice(
                r#"{"metadata":{"name":"x","namespace":"shop"},"endpoints":null,"ports":null}"#
            ))
        );
        backends.join(&mut services);
        assert_eq!(services[0].slices, None);
    }
}
