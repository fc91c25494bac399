//! Policies as the API tells them: each read by itself, so that a wrong one leaves the others alone.

use crate::{
    object::{self, Meta, Resource},
    surroundings::Listed,
};
use observer_policy::{
    model::Policy,
    source::{self, Options},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

/// The policies of the API, for those who judge by them.
#[derive(Debug)]
pub struct ApiPolicies {
    options: Options,
    kinds: Mutex<[Listed<Held>; 3]>,
    generation: AtomicU64,
    complete: AtomicBool,
}

/// An object, as it was last right, and what is wrong with it now.
#[derive(Debug, Default, PartialEq)]
struct Held {
    policies: Vec<Arc<Policy>>,
    problem: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    /// Objects in a list have none.
    #[serde(default)]
    kind: String,
    metadata: Meta,
}

impl ApiPolicies {
    /// None yet.
    pub fn new(options: Options) -> Self {
        let kinds = Mutex::default();
        Self { options, kinds, generation: AtomicU64::new(0), complete: AtomicBool::new(false) }
    }

    /// Raised with each change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether all have been told once. What is enforced from before stays until then.
    pub fn are_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// All of them, and what is wrong with those that could not be read; of these the last right ones are among them.
    pub fn all(&self) -> (Vec<Arc<Policy>>, Vec<Arc<str>>) {
        let kinds = self.kinds();
        let held = || kinds.iter().flat_map(Listed::values);
        (
            held().flat_map(|held| &held.policies).cloned().collect(),
            held().filter_map(|held| held.problem.clone()).collect(),
        )
    }

    fn kinds(&self) -> MutexGuard<'_, [Listed<Held>; 3]> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, resource: Resource, change: impl FnOnce(&mut Listed<Held>) -> bool) {
        if let Some(n) = index(resource)
            && change(&mut self.kinds()[n])
        {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn apply(&self, resource: Resource, object: &RawValue) -> Result<String, serde_json::Error> {
        let Typed { kind, metadata } = object::read(object)?;
        let text = object.get();
        let read = if kind.is_empty() {
            let (version, kind) = resource.kind();
            let rest = text.strip_prefix('{').unwrap_or_default();
            source::parse(&format!(r#"{{"apiVersion":"{version}","kind":"{kind}",{rest}"#), &self.options)
        } else {
            source::parse(text, &self.options)
        };
        let name = key(&metadata);
        self.change(resource, |known| {
            let held = match read {
                Ok(policies) => {
                    Held { policies: policies.into_iter().map(Arc::new).collect(), problem: None }
                }
                Err(fault) => {
                    let path =
                        if fault.path.is_empty() { String::new() } else { format!("{}: ", fault.path) };
                    // The server checks names; who stands in for it may not.
                    let problem = format!("{} {name}: {path}{}", resource.kind().1, fault.problem)
                        .replace(char::is_control, " ");
                    let policies = known.get(&name).map(|held| held.policies.clone()).unwrap_or_default();
                    Held { policies, problem: Some(problem.into()) }
                }
            };
            known.apply(&name, held)
        });
        Ok(metadata.resource_version)
    }

    pub(crate) fn remove(&self, resource: Resource, metadata: &Meta) {
        self.change(resource, |known| known.remove(&key(metadata)));
    }

    pub(crate) fn begin(&self, resource: Resource) {
        self.change(resource, |known| {
            known.begin();
            false
        });
    }

    pub(crate) fn end(&self, resource: Resource) {
        self.change(resource, Listed::end);
    }

    pub(crate) fn complete(&self) {
        if !self.complete.swap(true, Ordering::Release) {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    pub(crate) fn len(&self, resource: Resource) -> usize {
        index(resource).map_or(0, |n| self.kinds()[n].len())
    }
}

fn index(resource: Resource) -> Option<usize> {
    match resource {
        Resource::NetworkPolicies => Some(0),
        Resource::CiliumNetworkPolicies => Some(1),
        Resource::CiliumClusterwideNetworkPolicies => Some(2),
        _ => None,
    }
}

fn key(metadata: &Meta) -> String {
    match metadata.namespace.as_str() {
        "" => metadata.name.clone(),
        namespace => format!("{namespace}/{}", metadata.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(policies: &ApiPolicies, resource: Resource, object: &str) {
        let object: Box<RawValue> = serde_json::from_str(object).unwrap();
        policies.apply(resource, &object).unwrap();
    }

    #[test]
    fn a_wrong_policy_keeps_its_last_right_version_and_leaves_others_alone() {
        let policies = ApiPolicies::new(Options::default());
        let one = |name: &str, port: u32| {
            format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"shop","uid":"u","resourceVersion":"7",
                "managedFields":[{{"manager":"kubectl","fieldsV1":{{"f:spec":{{}}}}}}]}},
                "spec":{{"podSelector":{{}},"ingress":[{{"ports":[{{"port":{port}}}]}}]}}}}"#
            )
        };
        apply(&policies, Resource::NetworkPolicies, &one("web", 80));
        apply(&policies, Resource::NetworkPolicies, &one("db", 5432));
        let generation = policies.generation();
        apply(&policies, Resource::NetworkPolicies, &one("db", 5432));
        assert_eq!(policies.generation(), generation, "the same again is no news");
        apply(&policies, Resource::NetworkPolicies, &one("web", 70_000));
        assert!(policies.generation() > generation);
        let (all, problems) = policies.all();
        assert_eq!(all.iter().map(|policy| &*policy.id.name).collect::<Vec<_>>(), ["db", "web"]);
        assert_eq!(
            problems.iter().map(|problem| &**problem).collect::<Vec<_>>(),
            ["NetworkPolicy shop/web: spec.ingress[0].ports[0].port: 70000 is no port; write 1 to 65535"]
        );
        policies.begin(Resource::NetworkPolicies);
        apply(&policies, Resource::NetworkPolicies, &one("web", 81));
        policies.end(Resource::NetworkPolicies);
        let (all, problems) = policies.all();
        assert_eq!((all.len(), problems.len()), (1, 0), "what a list lacks is gone");
    }

    #[test]
    fn policies_of_cilium_have_kinds_and_parts() {
        let policies = ApiPolicies::new(Options::default());
        apply(
            &policies,
            Resource::CiliumClusterwideNetworkPolicies,
            r#"{"apiVersion":"cilium.io/v2","kind":"CiliumClusterwideNetworkPolicy","metadata":{"name":"all"},
            "specs":[{"endpointSelector":{},"ingress":[{"fromEntities":["cluster"]}]},
            {"endpointSelector":{},"egress":[{"toEntities":["all"]}]}]}"#,
        );
        let (all, problems) = policies.all();
        assert_eq!((all.len(), problems), (2, vec![]));
        assert_eq!(all[1].id.to_string(), "CiliumClusterwideNetworkPolicy all");
    }
}
