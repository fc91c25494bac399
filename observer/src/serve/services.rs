//! Who stands behind services, for those who ask why one does not answer.

use crate::{decode::Clock, enrich::ipcache::IpCache};
use observer_kubernetes::Backends;
use observer_proto::stats::{GetServicesResponse, Service, ServiceBackend, ServicesRequest};
use std::sync::Arc;
use tonic::Status;

/// Services that may be asked for at once.
const MOST_SERVICES: usize = 64;
/// Backends that are told of one; the rest is counted.
const MOST_BACKENDS: usize = 64;

/// What the Kubernetes API tells of them.
#[derive(Clone, Debug)]
pub struct Services {
    /// Their endpoints.
    pub backends: Arc<Backends>,
    /// Whose these are.
    pub names: Arc<IpCache>,
}

impl Services {
    /// Those that are known.
    pub(super) fn tell(&self, request: &ServicesRequest) -> Result<GetServicesResponse, Status> {
        let names = &request.names;
        if names.len() > MOST_SERVICES {
            let text = format!("names: {} are more than the limit of {MOST_SERVICES}", names.len());
            return Err(Status::invalid_argument(text));
        }
        let services = names.iter().filter_map(|name| self.service(name)).collect();
        Ok(GetServicesResponse { services, ..GetServicesResponse::default() })
    }

    fn service(&self, full_name: &str) -> Option<Service> {
        let (namespace, name) = full_name.split_once('/')?;
        let slices = self.backends.of(namespace, name)?;
        let mut all: Vec<_> = slices
            .iter()
            .flat_map(|slice| slice.backends.iter().map(move |one| (one.state, one.address, slice)))
            .collect();
        all.sort_unstable_by_key(|(state, address, _)| (*state, *address));
        let now = Clock::kernel_now();
        let backends = all.iter().take(MOST_BACKENDS).map(|(state, address, slice)| {
            let owner = self.names.lookup(*address, now);
            let is_pod = !owner.pod_name.is_empty();
            ServiceBackend {
                address: address.to_string(),
                ports: slice.ports.iter().filter_map(|port| port.number).map(u32::from).collect(),
                state: state.name().to_owned(),
                pod: if is_pod { format!("{}/{}", owner.namespace, owner.pod_name) } else { String::new() },
            }
        });
        let more = all.len().saturating_sub(MOST_BACKENDS) as u64;
        Some(Service { name: full_name.to_owned(), backends: backends.collect(), more })
    }
}
