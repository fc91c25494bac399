//! Pods, services and workloads by name.

use super::{compile::InvalidFilter, marks::Pattern, view::EndpointView};
use crate::flow::Workload;

/// `[namespace/]prefix`: no slash means the namespace `default`, an empty namespace means any.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamespacedName {
    namespace: String,
    prefix: String,
}

impl NamespacedName {
    pub(super) fn compile(values: &[String]) -> Result<Vec<Self>, InvalidFilter> {
        values
            .iter()
            .map(|value| {
                if value.is_empty() {
                    return Err(InvalidFilter::new("invalid filter, name must not be empty"));
                }
                // Hubble leaves out what stands behind a second slash.
                let mut parts = value.split('/');
                let first = parts.next().unwrap_or_default();
                let (namespace, prefix) = parts.next().map_or(("default", first), |prefix| (first, prefix));
                Ok(Self { namespace: namespace.to_owned(), prefix: prefix.to_owned() })
            })
            .collect()
    }

    /// What the mark of an end is to have.
    pub(super) fn pattern(&self) -> Pattern {
        Pattern::new(&self.namespace, &self.prefix)
    }

    pub(super) fn any(list: &[Self], namespace: &str, name: &str) -> bool {
        // An end without any name is no pod, not even for "any namespace".
        !(namespace.is_empty() && name.is_empty())
            && list.iter().any(|f| {
                (f.namespace.is_empty() || f.namespace == namespace) && name.starts_with(f.prefix.as_str())
            })
    }
}

/// An empty kind or name in the filter matches all.
pub(super) fn workload_matches(filters: &[Workload], endpoint: &impl EndpointView) -> bool {
    filters.iter().any(|f| {
        endpoint.workloads().any(|(kind, name)| {
            (f.kind.is_empty() || f.kind == kind) && (f.name.is_empty() || f.name == name)
        })
    })
}
