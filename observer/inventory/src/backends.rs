//! Who stands behind services, where somebody tells it: a compact record of each endpoint.

use crate::{ServiceEntry, ServicePort, TargetPort};
use std::net::IpAddr;

/// A part of what stands behind a service: endpoints that have the same ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The ports of each.
    pub ports: Box<[SlicePort]>,
    /// The endpoints.
    pub backends: Box<[Backend]>,
}

/// A port of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The service's name for it.
    pub name: Box<str>,
    /// IANA protocol number: 6, 17 or 132.
    pub protocol: u8,
    /// Absent where it is the service's own number for it.
    pub number: Option<u16>,
}

/// An endpoint behind a service, of which a large cluster has very many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// How it does.
    pub state: BackendState,
}

/// How an endpoint behind a service does; who is called comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// It is called.
    Ready,
    /// It ends and serves until then: it is called where nobody is ready.
    Draining,
    /// It is not called.
    NotReady,
}

impl BackendState {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::NotReady => "not ready",
        }
    }
}

impl Slice {
    /// The endpoints' port behind one of the service's.
    pub fn port(&self, of: &ServicePort) -> Option<u16> {
        let port = self.ports.iter().find(|port| *port.name == *of.name && port.protocol == of.protocol)?;
        let named = |target: &TargetPort| match target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(_) => None,
        };
        port.number.or_else(|| named(&of.target))
    }
}

impl ServiceEntry {
    /// Where packets to one of its ports come out, of one family: at who is ready, else at who still serves until it is gone,
    /// as kube-proxy has it. Nothing where nobody tells.
    pub fn behind(&self, port: &ServicePort, is_ipv6: bool) -> Option<Vec<(IpAddr, u16)>> {
        let slices = self.slices.as_ref()?;
        let of = |state: BackendState| {
            let parts = slices.iter().filter_map(|slice| Some((slice, slice.port(port)?)));
            let all = parts.flat_map(|(slice, port)| slice.backends.iter().map(move |one| (one, port)));
            let wanted = all.filter(|(one, _)| one.state == state && one.address.is_ipv6() == is_ipv6);
            wanted.map(|(one, port)| (one.address, port)).collect::<Vec<_>>()
        };
        let ready = of(BackendState::Ready);
        Some(if ready.is_empty() { of(BackendState::Draining) } else { ready })
    }

    /// The addresses of all who serve, whatever their ports; none where nobody tells.
    pub fn serving(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let backends = self.slices.iter().flatten().flat_map(|slice| &slice.backends);
        backends.filter(|one| one.state != BackendState::NotReady).map(|one| one.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn who_is_called_is_ready_or_the_last_that_serves() {
        assert!(size_of::<Backend>() <= 18, "a cluster has very many");
        let slice = |backends: &[(&str, BackendState)], number| {
            let backend = |(ip, state): &(&str, _)| Backend { address: ip.parse().unwrap(), state: *state };
            Arc::new(Slice {
                ports: Box::new([SlicePort { name: "http".into(), protocol: 6, number }]),
                backends: backends.iter().map(backend).collect(),
            })
        };
        let port = |name: &str, target| ServicePort {
            name: name.to_owned(),
            port: 80,
            protocol: 6,
            target,
            node_port: None,
        };
        let by_number = port("http", TargetPort::Number(81));
        let nobody = ServiceEntry::default();
        assert_eq!(nobody.behind(&by_number, false), None);
        let (ready, draining, not) = (BackendState::Ready, BackendState::Draining, BackendState::NotReady);
        let service = ServiceEntry {
            slices: Some(vec![
                slice(&[("10.0.0.1", ready), ("10.0.0.2", draining), ("10.0.0.3", not)], Some(8080)),
                slice(&[("10.0.0.4", ready)], Some(9090)),
                slice(&[("fd00::1", draining), ("fd00::2", not)], None),
            ]),
            ..ServiceEntry::default()
        };
        let at = |ip: &str, port| (ip.parse::<IpAddr>().unwrap(), port);
        let behind = |port: &ServicePort, is_ipv6| service.behind(port, is_ipv6).unwrap();
        assert_eq!(behind(&by_number, false), [at("10.0.0.1", 8080), at("10.0.0.4", 9090)]);
        assert_eq!(behind(&by_number, true), [at("fd00::1", 81)], "each family by itself");
        assert_eq!(behind(&port("http", TargetPort::Name("web".to_owned())), true), []);
        assert_eq!(behind(&port("admin", TargetPort::Number(81)), false), []);
        assert_eq!(service.serving().count(), 4);
    }
}
