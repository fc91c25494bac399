//! `cilium.io/v2`: the rules of CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy.

use super::{Header, check, cilium_peers, cilium_ports, selector};
use crate::{
    label::{K8S, NAMESPACE, RESERVED, Requirement, Selector},
    model::{Direction, Kind, Peers, Policy, Rule, Side, Subject},
    source::field::{Field, Map, Read},
};

const RULE: &[&str] = &[
    "endpointSelector",
    "nodeSelector",
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "labels",
    "enableDefaultDeny",
    "description",
    "log",
];
const MAX_LOG: usize = 32;

pub(super) fn read(document: &Map<'_>, header: &Header<'_>, policies: &mut Vec<Policy>) -> Read<()> {
    let mut parts = Vec::new();
    parts.extend(document.get("spec"));
    let specs = document.get("specs");
    parts.extend(specs.as_ref().map(Field::list).transpose()?.unwrap_or_default());
    if parts.is_empty() {
        return Err(specs
            .as_ref()
            .unwrap_or(&document.whole)
            .fault("no rule; write spec, or specs with a list of them"));
    }
    for (part, field) in parts.iter().enumerate() {
        policies.push(policy(field, part as u32, header)?);
    }
    Ok(())
}

fn policy(field: &Field<'_>, part: u32, header: &Header<'_>) -> Read<Policy> {
    let map = field.map(RULE, &[])?;
    let subject = subject(&map, header)?;
    let on_node = matches!(subject, Subject::Nodes(_));
    let default_deny = map.get("enableDefaultDeny");
    let default_deny = default_deny.map(|field| field.map(&["ingress", "egress"], &[])).transpose()?;
    let side = |direction, allow_name, deny_name| -> Read<Option<Side>> {
        let allow = rules(map.get(allow_name), direction, false, on_node, header)?;
        let deny = rules(map.get(deny_name), direction, true, on_node, header)?;
        let name = if direction == Direction::Ingress { "ingress" } else { "egress" };
        let said =
            default_deny.as_ref().and_then(|map| map.get(name)).map(|field| field.boolean()).transpose()?;
        // Without an entry the direction is untouched, whatever enableDefaultDeny says.
        let mentioned = !allow.is_empty() || !deny.is_empty();
        Ok(mentioned.then(|| Side { isolates: said.unwrap_or(true), allow, deny }))
    };
    let ingress = side(Direction::Ingress, "ingress", "ingressDeny")?;
    let egress = side(Direction::Egress, "egress", "egressDeny")?;
    if ingress.is_none() && egress.is_none() {
        let right = "write at least one entry in ingress, ingressDeny, egress or egressDeny ({} denies all)";
        return Err(field.fault(format!("a rule without entries; {right}")));
    }
    let description = map.get("description").map(|field| field.text()).transpose()?.map(Into::into);
    Ok(Policy {
        id: header.id.clone(),
        part,
        file: header.file.cloned(),
        line: field.line(),
        uid: header.uid.clone(),
        mode: header.mode,
        labels: labels(&map)?,
        description,
        log: log(&map)?,
        subject,
        ingress,
        egress,
    })
}

fn subject(map: &Map<'_>, header: &Header<'_>) -> Read<Subject> {
    match (map.get("endpointSelector"), map.get("nodeSelector")) {
        (Some(_), Some(node)) => Err(node.fault("endpointSelector is here too; keep one of them")),
        (None, None) => Err(map.whole.fault("no subject; write endpointSelector ({} is every pod)")),
        (None, Some(node)) if header.id.kind != Kind::CiliumClusterwideNetworkPolicy => {
            Err(node
                .fault("nodes are selected by CiliumClusterwideNetworkPolicy alone; write endpointSelector"))
        }
        (None, Some(node)) => Ok(Subject::Nodes(selector(&node)?)),
        (Some(endpoint), None) => {
            let mut selector = selector(&endpoint)?;
            if header.id.kind == Kind::CiliumNetworkPolicy && !is_reserved(&selector) {
                // Its own namespace wins over any that it names.
                selector.0.retain(|requirement| &*requirement.key != NAMESPACE);
                selector.0.insert(0, Requirement::equals(K8S, NAMESPACE, &header.id.namespace));
            }
            Ok(Subject::Pods(selector))
        }
    }
}

/// A selector as it is written: nothing is added.
pub(super) fn selector(field: &Field<'_>) -> Read<Selector> {
    selector::read(field, |key, field| {
        let (source, key) = check::cilium_key(key, field)?;
        Ok((source.map(Into::into), key.into()))
    })
}

/// Whether a selector is about reserved identities; Cilium then adds neither namespace nor cluster.
pub(super) fn is_reserved(selector: &Selector) -> bool {
    selector.0.iter().any(|requirement| requirement.source.as_deref() == Some(RESERVED))
}

fn labels(map: &Map<'_>) -> Read<Vec<Box<str>>> {
    let items = map.get("labels").map(|field| field.list()).transpose()?.unwrap_or_default();
    let label = |item: &Field<'_>| {
        let map = item.map(&["key", "value", "source"], &[])?;
        let text = |name| map.get(name).map(|field| field.text()).transpose();
        let key = map.need("key", "the label's key")?.text()?;
        let source = text("source")?.unwrap_or("unspec");
        let value = text("value")?.unwrap_or_default();
        Ok(format!("{source}:{key}={value}").into())
    };
    items.iter().map(label).collect()
}

fn log(map: &Map<'_>) -> Read<Option<Box<str>>> {
    let Some(field) = map.get("log") else { return Ok(None) };
    let Some(value) = field.map(&["value"], &[])?.get("value") else { return Ok(None) };
    let text = value.text()?;
    if text.len() > MAX_LOG || !text.bytes().all(|c| (b' '..=b'~').contains(&c)) {
        return Err(value.fault(format!("write at most {MAX_LOG} printable characters")));
    }
    Ok(Some(text.into()))
}

fn rules(
    field: Option<Field<'_>>,
    direction: Direction,
    deny: bool,
    on_node: bool,
    header: &Header<'_>,
) -> Read<Vec<Rule>> {
    let items = field.map(|field| field.list()).transpose()?.unwrap_or_default();
    let context = cilium_ports::Context { direction, deny, on_node };
    items.iter().map(|item| rule(item, &context, header)).collect()
}

fn rule(field: &Field<'_>, context: &cilium_ports::Context, header: &Header<'_>) -> Read<Rule> {
    let known = cilium_peers::known(context.direction, context.deny);
    let map = field.map(&[known, &["toPorts", "icmps"]].concat(), cilium_peers::REFUSED)?;
    let peers = cilium_peers::read(&map, context.direction, header)?;
    let ports = cilium_ports::read(&map, context)?;
    let peers = match (peers, &ports) {
        (Some(terms), _) => terms,
        (None, Some(_)) => Peers::Any,
        // An entry that names nobody and no port is about nothing: `{}` allows nothing, and denies nothing.
        (None, None) => Peers::Of(Vec::new()),
    };
    Ok(Rule { path: field.path().into(), line: field.line(), peers, ports })
}
