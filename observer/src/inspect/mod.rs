//! What the control service says of what is loaded in the kernel: what [`capture`](crate::capture) reads there, with names.

mod addresses;
mod flows;
mod links;
mod maps;
mod pieces;
mod policy;
mod programs;

use crate::{
    capture::{CaptureError, Glob, Inspector, Link, LinkTable, StatusHandle},
    endpoint::Endpoint,
    enrich::ipcache::IpCache,
    pipeline::BehindLinks,
    policy::Policies,
    serve::{Answer, Inspect, InspectError},
};
use observer_proto::control::{InspectRequest, InspectResponse, inspect_request::What};
use std::sync::Arc;

/// Entries in a part of an answer.
const PART: usize = 500;

/// Looks at the running capture.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) inspector: Inspector,
    /// Links, and what was counted.
    pub(crate) status: StatusHandle,
    pub(crate) names: Arc<IpCache>,
    /// Who stands behind the links.
    pub(crate) behind: Arc<BehindLinks>,
    /// By which connections are judged, where any are given.
    pub(crate) policies: Option<Arc<Policies>>,
}

/// The links that were asked for.
struct Chosen {
    table: Arc<LinkTable>,
    globs: Vec<Glob>,
}

impl Inspect for Inspection {
    fn inspect(&self, request: &InspectRequest, answer: &Answer) -> Result<(), InspectError> {
        let chosen = Chosen::of(request, self.status.links())?;
        match request.what() {
            What::Unknown => Err(InspectError::Request(
                "what: one of programs, links, maps, rings, ipcache, flows and policy is needed".to_owned(),
            )),
            What::Maps | What::Rings if !chosen.globs.is_empty() => {
                Err(InspectError::Request("interfaces: maps and rings belong to no interface".to_owned()))
            }
            What::Programs => self.programs(&chosen, request.statistics_ms, answer),
            What::Links => {
                self.links(&chosen, answer);
                Ok(())
            }
            What::Maps => self.maps(answer),
            What::Rings => self.rings(answer),
            What::Ipcache => self.addresses(&chosen, request.limit, answer),
            What::Flows => self.flows(&chosen, request.limit, answer),
            What::Policy => self.policy(&chosen, request.limit, answer),
        }
    }
}

impl Chosen {
    /// Each pattern must be that of a link that is in use: a name that was misspelt would else show nothing.
    fn of(request: &InspectRequest, table: Arc<LinkTable>) -> Result<Self, InspectError> {
        let mut globs = Vec::new();
        for pattern in &request.interfaces {
            let refused = |why: String| InspectError::Request(format!("interfaces: {why}"));
            let glob: Glob = pattern.parse().map_err(refused)?;
            if !table.links.iter().any(|link| glob.matches(&link.name)) {
                let names: Vec<_> = table.links.iter().take(20).map(|link| link.name.as_str()).collect();
                let more = if table.links.len() > names.len() { ", ..." } else { "" };
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                return Err(refused(format!(
                    "no interface with programs on it is called {pattern:?}; there are: {names}{more}"
                )));
            }
            globs.push(glob);
        }
        Ok(Self { table, globs })
    }

    fn links(&self) -> Vec<&Link> {
        self.table.links.iter().filter(|link| self.has(&link.name)).collect()
    }

    fn has(&self, name: &str) -> bool {
        self.globs.is_empty() || self.globs.iter().any(|glob| glob.matches(name))
    }
}

/// Gives entries in parts, each made by `part`; says whether more is wanted.
fn give<T>(answer: &Answer, entries: Vec<T>, part: impl Fn(Vec<T>) -> InspectResponse) -> bool {
    let mut entries = entries.into_iter();
    loop {
        let some: Vec<T> = entries.by_ref().take(PART).collect();
        if some.is_empty() {
            return true;
        }
        if !answer.give(part(some)) {
            return false;
        }
    }
}

/// `namespace/name`, or the name of a reserved identity.
fn name(endpoint: &Endpoint) -> String {
    if endpoint.pod_name.is_empty() {
        let reserved = endpoint.labels.iter().find_map(|label| label.strip_prefix("reserved:"));
        return reserved.unwrap_or_default().to_owned();
    }
    if endpoint.namespace.is_empty() {
        return endpoint.pod_name.to_string();
    }
    format!("{}/{}", endpoint.namespace, endpoint.pod_name)
}

fn failed(error: &CaptureError) -> InspectError {
    InspectError::Kernel(error.to_string())
}
