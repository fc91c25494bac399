//! From documents to policies, checked as the API server and Cilium check them.

mod check;
mod cilium;
mod cilium_peers;
mod cilium_ports;
mod network_policy;
mod selector;

use crate::{
    model::{Kind, Mode, Policy, PolicyId},
    source::{
        Fault,
        field::{Field, Map, Read},
        tree,
    },
};
use std::{path::Path, sync::Arc};

/// The annotation that says a policy's mode: `observe`, `audit` or `enforce`.
pub const MODE_ANNOTATION: &str = "observer/policy-mode";

/// Lists in lists; kubectl makes none.
const MAX_LISTS: usize = 4;

/// Whose reading of a NetworkPolicy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// What Kubernetes' documentation and tests say.
    #[default]
    Kubernetes,
    /// What Cilium 1.19 makes of it: `ipBlock` is never a pod, and at ingress lets in the whole namespace; rules count
    /// whatever `policyTypes` says.
    Cilium,
}

/// How documents are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose reading of a NetworkPolicy.
    pub dialect: Dialect,
    /// The own cluster's name, in pods' labels.
    pub cluster: Box<str>,
}

impl Default for Options {
    fn default() -> Self {
        Self { dialect: Dialect::default(), cluster: "default".into() }
    }
}

/// What a document says before its spec.
struct Header<'a> {
    id: PolicyId,
    uid: Option<Box<str>>,
    mode: Option<Mode>,
    line: u64,
    file: Option<&'a Arc<Path>>,
    options: &'a Options,
}

/// Reads all documents of a text.
pub(crate) fn documents(
    text: &str,
    file: Option<&Arc<Path>>,
    options: &Options,
) -> Result<Vec<Policy>, Fault> {
    let mut policies = Vec::new();
    for node in &tree::read(text)? {
        document(&Field::document(node), file, options, 0, &mut policies)?;
    }
    Ok(policies)
}

fn document(
    field: &Field<'_>,
    file: Option<&Arc<Path>>,
    options: &Options,
    depth: usize,
    policies: &mut Vec<Policy>,
) -> Read<()> {
    // Empty documents stand between separators of templates.
    if field.is_null() {
        return Ok(());
    }
    let map = field.any_map()?;
    let kind_field = map.need("kind", "the kind, such as NetworkPolicy")?;
    let version_field = map.need("apiVersion", "the version, such as networking.k8s.io/v1")?;
    let (kind, version) = (kind_field.text()?, version_field.text()?);
    if kind.ends_with("List") {
        let map = field.map(&["apiVersion", "kind", "metadata", "items"], &[])?;
        if depth >= MAX_LISTS {
            return Err(field.fault(format!("lists in lists deeper than {MAX_LISTS}; write one")));
        }
        let items = map.get("items").map(|items| items.list()).transpose()?.unwrap_or_default();
        return items.iter().try_for_each(|item| document(item, file, options, depth + 1, policies));
    }
    let (known_kind, group) = match kind {
        "NetworkPolicy" => (Kind::NetworkPolicy, "networking.k8s.io/v1"),
        "CiliumNetworkPolicy" => (Kind::CiliumNetworkPolicy, "cilium.io/v2"),
        "CiliumClusterwideNetworkPolicy" => (Kind::CiliumClusterwideNetworkPolicy, "cilium.io/v2"),
        _ => {
            let known =
                "NetworkPolicy, CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy or a List of them";
            return Err(kind_field.fault(format!("{kind} is no policy that is read here; write {known}")));
        }
    };
    if version != group {
        return Err(version_field.fault(format!("{kind} is read in version {group}, not in {version}")));
    }
    let known: &[&str] = match known_kind {
        Kind::NetworkPolicy => &["apiVersion", "kind", "metadata", "spec", "status"],
        _ => &["apiVersion", "kind", "metadata", "spec", "specs", "status"],
    };
    let map = field.map(known, &[])?;
    let header = header(&map, known_kind, file, options)?;
    match known_kind {
        Kind::NetworkPolicy => policies.push(network_policy::read(&map, &header)?),
        _ => cilium::read(&map, &header, policies)?,
    }
    Ok(())
}

/// All fields of ObjectMeta; those that say nothing here are for the API server alone.
const METADATA: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "labels",
    "annotations",
    "generateName",
    "selfLink",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

fn header<'a>(
    map: &Map<'_>,
    kind: Kind,
    file: Option<&'a Arc<Path>>,
    options: &'a Options,
) -> Read<Header<'a>> {
    let metadata = map.need("metadata", "metadata with a name")?.map(METADATA, &[])?;
    let name_field = metadata.need("name", "the policy's name")?;
    let name = check::dns_subdomain(&name_field)?;
    let namespace = match (kind, metadata.get("namespace")) {
        (Kind::CiliumClusterwideNetworkPolicy, Some(field)) => {
            return Err(field
                .fault("a clusterwide policy has no namespace; take it out, or write CiliumNetworkPolicy"));
        }
        (Kind::CiliumClusterwideNetworkPolicy, None) => "",
        (_, Some(field)) => check::dns_label(&field)?,
        (_, None) => "default",
    };
    for (name, keys_are_labels) in [("labels", true), ("annotations", false)] {
        let Some(field) = metadata.get(name) else { continue };
        for (key, value) in field.any_map()?.pairs() {
            check::label_key(key, &value)?;
            if keys_are_labels {
                check::label_value(&value)?;
            } else {
                value.text()?;
            }
        }
    }
    let annotations = metadata.get("annotations").map(|field| field.any_map()).transpose()?;
    let mode = match annotations.and_then(|annotations| annotations.get(MODE_ANNOTATION)) {
        None => None,
        Some(field) => {
            let wrong = |()| field.fault("write observe, audit or enforce");
            Some(field.text()?.parse().map_err(wrong)?)
        }
    };
    let uid = metadata.get("uid").map(|field| field.text()).transpose()?.map(Into::into);
    let id = PolicyId { kind, namespace: namespace.into(), name: name.into() };
    Ok(Header { id, uid, mode, line: map.whole.line(), file, options })
}
