//! The other ends of a Cilium rule.

use super::{Header, check, cilium};
use crate::{
    l7::Pattern,
    label::{CLUSTER, K8S, NAMESPACE, NAMESPACE_LABELS, RESERVED, Requirement, Selector},
    model::{Block, Direction, GroupRef, Kind, NamePattern, Peers, Reach, ServiceRef, Term},
    source::field::{Field, Map, Read},
};

/// Fields that Cilium has and this engine has not.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("fromNodes", "selecting nodes as peers is not supported; use fromEntities: [remote-node] or addresses"),
    ("toNodes", "selecting nodes as peers is not supported; use toEntities: [remote-node] or addresses"),
    ("fromGroups", "groups of a cloud provider are not supported; use fromCIDRSet"),
    ("toGroups", "groups of a cloud provider are not supported; use toCIDRSet"),
    (
        "fromRequires",
        "Cilium 1.19 no longer has fromRequires; put its selector into endpointSelector's policy",
    ),
    ("toRequires", "Cilium 1.19 no longer has toRequires; put its selector into endpointSelector's policy"),
    ("toFQDNs", "names can't be denied, their addresses are not known for certain; use toCIDRSet"),
    ("authentication", "mutual authentication is not supported; take it out"),
];

const INGRESS: &[&str] = &["fromEndpoints", "fromEntities", "fromCIDR", "fromCIDRSet"];
const EGRESS: &[&str] = &["toEndpoints", "toEntities", "toCIDR", "toCIDRSet", "toServices", "toFQDNs"];

/// The fields that name peers.
pub(super) fn known(direction: Direction, deny: bool) -> &'static [&'static str] {
    match (direction, deny) {
        (Direction::Ingress, _) => INGRESS,
        (Direction::Egress, false) => EGRESS,
        (Direction::Egress, true) => &EGRESS[..5],
    }
}

/// The peers of a rule, `None` where it names none.
pub(super) fn read(map: &Map<'_>, direction: Direction, header: &Header<'_>) -> Read<Option<Peers>> {
    let fields: Vec<_> =
        known(direction, false).iter().filter_map(|name| Some((*name, map.get(name)?))).collect();
    if fields.is_empty() {
        return Ok(None);
    }
    let (mut terms, mut first, mut all) = (Vec::new(), None, false);
    for (name, field) in fields {
        let items = field.list()?;
        if items.is_empty() {
            continue;
        }
        if let Some(first) = first {
            return Err(field.fault(format!("{first} is here too; make an entry of each")));
        }
        first = Some(name);
        for item in &items {
            match &name[name.len() - 4..] {
                "ints" => terms.push(Term::Endpoints(endpoints(item, header)?)),
                "ties" => all |= entity(item, header, &mut terms)?,
                "CIDR" => {
                    let net = check::strict_cidr(item)?;
                    terms.push(Term::Block(Block { net, except: Vec::new(), reach: Reach::World }));
                }
                "RSet" => terms.push(cidr_set(item)?),
                "ices" => terms.push(Term::Service(service(item)?)),
                _ => terms.push(Term::Name(fqdn(item)?)),
            }
        }
    }
    Ok(Some(if all { Peers::Any } else { Peers::Of(terms) }))
}

fn endpoints(field: &Field<'_>, header: &Header<'_>) -> Read<Selector> {
    let mut selector = cilium::selector(field)?;
    if cilium::is_reserved(&selector) {
        return Ok(selector);
    }
    let everything = selector.0.is_empty();
    let mentions = |wanted: &str| {
        let is = |key: &str| key == wanted || wanted.ends_with('.') && key.starts_with(wanted);
        selector.0.iter().any(|requirement| is(&requirement.key))
    };
    let has_namespace = mentions(NAMESPACE) || mentions(NAMESPACE_LABELS);
    let has_cluster = mentions(CLUSTER);
    if header.id.kind == Kind::CiliumNetworkPolicy {
        if !has_namespace {
            selector.0.insert(0, Requirement::equals(K8S, NAMESPACE, &header.id.namespace));
        }
    } else if everything {
        selector.0.push(Requirement::exists(K8S, NAMESPACE));
    }
    if !has_cluster {
        selector.0.push(Requirement::equals(K8S, CLUSTER, &header.options.cluster));
    }
    Ok(selector)
}

const ENTITIES: &str =
    "all, world, cluster, host, init, ingress, unmanaged, remote-node, health, kube-apiserver or none";

/// Adds the terms of an entity; `true` where it is everything.
fn entity(field: &Field<'_>, header: &Header<'_>, terms: &mut Vec<Term>) -> Read<bool> {
    let reserved = |name| Term::Endpoints(Selector(vec![Requirement::exists(RESERVED, name)]));
    match field.text()? {
        "all" => return Ok(true),
        "none" => {}
        "world" => terms.extend(["world", "world-ipv4", "world-ipv6"].map(reserved)),
        "cluster" => {
            let own = ["host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver"];
            terms.extend(own.map(reserved));
            let cluster = Requirement::equals(K8S, CLUSTER, &header.options.cluster);
            terms.push(Term::Endpoints(Selector(vec![cluster])));
        }
        name @ ("host" | "init" | "ingress" | "unmanaged" | "remote-node" | "health" | "kube-apiserver") => {
            terms.push(reserved(name));
        }
        other => return Err(field.fault(format!("{other:?} is no entity; write {ENTITIES}"))),
    }
    Ok(false)
}

fn cidr_set(field: &Field<'_>) -> Read<Term> {
    let map = field.map(&["cidr", "cidrGroupRef", "cidrGroupSelector", "except"], &[])?;
    let except = map.get("except");
    let one = "write one of cidr, cidrGroupRef and cidrGroupSelector";
    match (map.get("cidr"), map.get("cidrGroupRef"), map.get("cidrGroupSelector")) {
        (Some(field), None, None) => {
            let net = check::strict_cidr(&field)?;
            let except = check::excepts(net, except, false)?;
            Ok(Term::Block(Block { net, except, reach: Reach::World }))
        }
        (None, Some(name), None) => {
            let group = GroupRef::Name(check::dns_subdomain(&name)?.into());
            Ok(Term::Group(group, group_excepts(except)?))
        }
        (None, None, Some(selector)) => {
            Ok(Term::Group(GroupRef::Labels(cilium::selector(&selector)?), group_excepts(except)?))
        }
        _ => Err(field.fault(one)),
    }
}

fn group_excepts(field: Option<Field<'_>>) -> Read<Vec<ipnet::IpNet>> {
    let items = field.map(|field| field.list()).transpose()?.unwrap_or_default();
    items.iter().map(check::strict_cidr).collect()
}

fn service(field: &Field<'_>) -> Read<ServiceRef> {
    let map = field.map(&["k8sService", "k8sServiceSelector"], &[])?;
    let namespace = |map: &Map<'_>| -> Read<Option<Box<str>>> {
        Ok(map.get("namespace").map(|field| check::dns_label(&field)).transpose()?.map(Into::into))
    };
    match (map.get("k8sService"), map.get("k8sServiceSelector")) {
        (Some(field), None) => {
            let map = field.map(&["serviceName", "namespace"], &[])?;
            let name = check::dns_subdomain(&map.need("serviceName", "the service's name")?)?;
            Ok(ServiceRef { namespace: namespace(&map)?, which: GroupRef::Name(name.into()) })
        }
        (None, Some(field)) => {
            let map = field.map(&["selector", "namespace"], &[])?;
            let selector = cilium::selector(&map.need("selector", "a selector of services")?)?;
            Ok(ServiceRef { namespace: namespace(&map)?, which: GroupRef::Labels(selector) })
        }
        _ => Err(field.fault("write one of k8sService and k8sServiceSelector")),
    }
}

fn fqdn(field: &Field<'_>) -> Read<NamePattern> {
    dns_name(field).map(NamePattern)
}

/// A name or a pattern of names, by which DNS queries and their answers are told.
pub(super) fn dns_name(field: &Field<'_>) -> Read<Pattern> {
    let map = field.map(&["matchName", "matchPattern"], &[])?;
    let (given, star) = match (map.get("matchName"), map.get("matchPattern")) {
        (Some(name), None) => (name, false),
        (None, Some(pattern)) => (pattern, true),
        _ => return Err(field.fault("write one of matchName and matchPattern")),
    };
    let text = given.text()?;
    let right = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.') || star && c == b'*';
    if text.is_empty() || text.len() > 255 || !text.bytes().all(right) {
        let more = if star { ", and * for a part of a label" } else { "" };
        return Err(given.fault(format!("{text:?} is no DNS name; write letters, digits, -, _ and .{more}")));
    }
    let pattern = if star { Pattern::names(text) } else { Pattern::name(text) };
    pattern.map_err(|problem| given.fault(problem))
}
