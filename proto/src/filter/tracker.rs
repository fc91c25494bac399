//! One list of filters in the making: a left and a right filter, of which either must match.

use super::{
    flags::{CONFLICTS, Effect, End, Flag},
    go::quote,
    view::Side,
};
use crate::flow::FlowFilter;

/// A flag that says "either end" writes the source's field on the left and the destination's on the right; all others
/// write both. So `--port 80 --pod web` means "web:80 is the source, or web:80 is the destination".
#[derive(Debug, Default)]
pub(super) struct Tracker {
    left: FlowFilter,
    right: FlowFilter,
    either: Vec<String>,
    source: Vec<String>,
    destination: Vec<String>,
    seen: Vec<&'static str>,
}

impl Tracker {
    pub(super) fn set(&mut self, flag: &Flag, value: &str) -> Result<(), String> {
        if !self.seen.contains(&flag.name) {
            self.seen.push(flag.name);
        }
        self.check_conflicts()?;
        match flag.effect {
            Effect::Side(End::Source, set) => {
                set(&mut self.left, Side::Source, value)?;
                set(&mut self.right, Side::Source, value)?;
            }
            Effect::Side(End::Destination, set) => {
                set(&mut self.left, Side::Destination, value)?;
                set(&mut self.right, Side::Destination, value)?;
            }
            Effect::Side(End::Either, set) => {
                set(&mut self.left, Side::Source, value)?;
                set(&mut self.right, Side::Destination, value)?;
            }
            Effect::Whole(set) => {
                set(&mut self.left, value)?;
                set(&mut self.right, value)?;
            }
            Effect::Namespace(end) => self.namespaces(end).push(value.to_owned()),
            Effect::AllNamespaces(end) => self.namespaces(end).push(String::new()),
            // Both belong to no list in the making; the parser has taken them out.
            Effect::Not | Effect::Raw { .. } => {}
        }
        self.check_namespaces()
    }

    fn namespaces(&mut self, end: End) -> &mut Vec<String> {
        match end {
            End::Either => &mut self.either,
            End::Source => &mut self.source,
            End::Destination => &mut self.destination,
        }
    }

    fn check_conflicts(&self) -> Result<(), String> {
        for group in CONFLICTS {
            let mut present = group.iter().filter(|name| self.seen.contains(name));
            if let (Some(first), Some(second)) = (present.next(), present.next()) {
                return Err(format!("filters --{first} and --{second} cannot be combined"));
            }
        }
        Ok(())
    }

    fn check_namespaces(&self) -> Result<(), String> {
        for f in [&self.left, &self.right] {
            let sources = [&f.source_pod, &f.source_service];
            let destinations = [&f.destination_pod, &f.destination_service];
            let clashes = [
                namespace_clash(&self.either, &sources),
                namespace_clash(&self.either, &destinations),
                namespace_clash(&self.source, &sources),
                namespace_clash(&self.destination, &destinations),
                service_clash(&f.source_pod, &f.source_service),
                service_clash(&f.destination_pod, &f.destination_service),
            ];
            if let Some(clash) = clashes.into_iter().flatten().next() {
                return Err(clash);
            }
        }
        Ok(())
    }

    /// One filter if both are the same, none if nothing was set.
    pub(super) fn finish(mut self) -> Vec<FlowFilter> {
        if self.seen.is_empty() {
            return Vec::new();
        }
        for f in [&mut self.left, &mut self.right] {
            qualify(&mut f.destination_pod, &mut f.destination_service, &self.destination);
            qualify(&mut f.source_pod, &mut f.source_service, &self.source);
        }
        qualify(&mut self.left.source_pod, &mut self.left.source_service, &self.either);
        qualify(&mut self.right.destination_pod, &mut self.right.destination_service, &self.either);
        if self.left == self.right { vec![self.left] } else { vec![self.left, self.right] }
    }
}

/// Rewrites bare names into every namespace given; without any name it is the namespace as a whole.
fn qualify(pods: &mut Vec<String>, services: &mut Vec<String>, namespaces: &[String]) {
    if namespaces.is_empty() {
        return;
    }
    if pods.is_empty() && services.is_empty() {
        pods.push(String::new());
    }
    for names in [pods, services] {
        *names = names
            .iter()
            .flat_map(|name| {
                if name.contains('/') {
                    vec![name.clone()]
                } else {
                    namespaces.iter().map(|ns| format!("{ns}/{name}")).collect()
                }
            })
            .collect();
    }
}

fn namespace_of(name: &str) -> Option<&str> {
    name.split_once('/').map(|(namespace, _)| namespace).filter(|namespace| !namespace.is_empty())
}

fn namespace_clash(namespaces: &[String], lists: &[&Vec<String>]) -> Option<String> {
    namespaces.iter().find_map(|namespace| {
        let names = lists.iter().flat_map(|list| list.iter());
        let name = names.into_iter().find(|name| namespace_of(name).is_some_and(|own| own != namespace))?;
        Some(format!("namespace conflict: {} does not contain {}", quote(namespace), quote(name)))
    })
}

fn service_clash(pods: &[String], services: &[String]) -> Option<String> {
    pods.iter().filter_map(|pod| namespace_of(pod)).find_map(|pod| {
        let service = services.iter().find(|service| namespace_of(service).unwrap_or("") != pod)?;
        Some(format!("namespace of service {} conflict with pod {}", quote(service), quote(pod)))
    })
}
