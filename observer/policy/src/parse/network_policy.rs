//! `networking.k8s.io/v1`, with the defaults that the API server fills in.

use super::{Dialect, Header, check, selector};
use crate::{
    label::{K8S, NAMESPACE, NAMESPACE_LABELS, Requirement, Selector},
    model::{
        Block, Peers, Policy, PortClause, PortRule, Ports, Protocols, Reach, Rule, SCTP, Side, Subject, TCP,
        Term, UDP,
    },
    source::field::{Field, Map, Read},
};

pub(super) fn read(document: &Map<'_>, header: &Header<'_>) -> Read<Policy> {
    let spec = document.get("spec");
    let spec =
        spec.map(|spec| spec.map(&["podSelector", "policyTypes", "ingress", "egress"], &[])).transpose()?;
    let get = |name| spec.as_ref().and_then(|spec| spec.get(name));
    let mut subject = get("podSelector").map(|field| pods(&field)).transpose()?.unwrap_or_default();
    subject.0.insert(0, of_namespace(header));
    let (ingress, egress) = (rules(get("ingress"), "from", header)?, rules(get("egress"), "to", header)?);
    let (mut isolates_in, mut isolates_out) = types(get("policyTypes").as_ref(), !egress.is_empty())?;
    if header.options.dialect == Dialect::Cilium {
        isolates_in |= !ingress.is_empty();
        isolates_out |= !egress.is_empty();
    }
    let side = |isolates: bool, allow| isolates.then_some(Side { isolates, allow, deny: Vec::new() });
    Ok(Policy {
        id: header.id.clone(),
        part: 0,
        file: header.file.cloned(),
        line: header.line,
        uid: header.uid.clone(),
        mode: header.mode,
        labels: Vec::new(),
        description: None,
        log: None,
        subject: Subject::Pods(subject),
        ingress: side(isolates_in, ingress),
        egress: side(isolates_out, egress),
    })
}

/// Whether ingress and egress are isolated. Left out, ingress always is, and egress where it has rules.
fn types(field: Option<&Field<'_>>, has_egress: bool) -> Read<(bool, bool)> {
    let types = field.map(Field::list).transpose()?.unwrap_or_default();
    if types.len() > 2 {
        return Err(types[2].fault("at most two types; write Ingress, Egress or both"));
    }
    let (mut ingress, mut egress) = (types.is_empty(), types.is_empty() && has_egress);
    for field in &types {
        match field.text()? {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            other => return Err(field.fault(format!("{other:?} is no type; write Ingress or Egress"))),
        }
    }
    Ok((ingress, egress))
}

fn of_namespace(header: &Header<'_>) -> Requirement {
    Requirement::equals(K8S, NAMESPACE, &header.id.namespace)
}

fn pods(field: &Field<'_>) -> Read<Selector> {
    selector::read(field, |key, field| {
        check::label_key(key, field)?;
        Ok((Some(K8S.into()), key.into()))
    })
}

fn namespaces(field: &Field<'_>) -> Read<Selector> {
    selector::read(field, |key, field| {
        check::label_key(key, field)?;
        Ok((Some(K8S.into()), format!("{NAMESPACE_LABELS}{key}").into()))
    })
}

fn rules(field: Option<Field<'_>>, peers_name: &str, header: &Header<'_>) -> Read<Vec<Rule>> {
    let items = field.map(|field| field.list()).transpose()?.unwrap_or_default();
    items.iter().map(|item| rule(item, peers_name, header)).collect()
}

fn rule(field: &Field<'_>, peers_name: &str, header: &Header<'_>) -> Read<Rule> {
    let (path, line) = (field.path().into(), field.line());
    let map = field.map(&[peers_name, "ports"], &[])?;
    let peers = map.get(peers_name).map(|field| field.list()).transpose()?.unwrap_or_default();
    let ports = map.get("ports").map(|field| field.list()).transpose()?.unwrap_or_default();
    let clauses: Vec<_> = ports.iter().map(port).collect::<Read<_>>()?;
    let mut terms = peers.iter().map(|field| peer(field, header)).collect::<Read<Vec<_>>>()?;
    let blocks = |term: &Term| matches!(term, Term::Block(_));
    if header.options.dialect == Dialect::Cilium && peers_name == "from" && terms.iter().any(blocks) {
        terms.push(Term::Endpoints(Selector(vec![of_namespace(header)])));
    }
    Ok(Rule {
        path,
        line,
        peers: if terms.is_empty() { Peers::Any } else { Peers::Of(terms) },
        ports: (!clauses.is_empty()).then(|| vec![PortRule { ports: clauses, l7: None }]),
    })
}

fn peer(field: &Field<'_>, header: &Header<'_>) -> Read<Term> {
    let map = field.map(&["podSelector", "namespaceSelector", "ipBlock"], &[])?;
    let (pod, namespace) = (map.get("podSelector"), map.get("namespaceSelector"));
    if let Some(block) = map.get("ipBlock") {
        if let Some(other) = pod.or(namespace) {
            return Err(other.fault("ipBlock stands alone; write the selector as an entry of its own"));
        }
        let block = block.map(&["cidr", "except"], &[])?;
        let net = check::cidr(&block.need("cidr", "a CIDR such as 10.0.0.0/8")?)?;
        let except = check::excepts(net, block.get("except"), true)?;
        let reach = match header.options.dialect {
            Dialect::Kubernetes => Reach::Everyone,
            Dialect::Cilium => Reach::World,
        };
        return Ok(Term::Block(Block { net, except, reach }));
    }
    let mut requirements = match &namespace {
        // Every pod has a namespace, and nothing else has.
        Some(field) => {
            let mut requirements = namespaces(field)?.0;
            requirements.insert(0, Requirement::exists(K8S, NAMESPACE));
            requirements
        }
        None if pod.is_some() => vec![of_namespace(header)],
        None => return Err(field.fault("an empty peer; write podSelector, namespaceSelector or ipBlock")),
    };
    if let Some(field) = pod {
        requirements.extend(pods(&field)?.0);
    }
    Ok(Term::Endpoints(Selector(requirements)))
}

fn port(field: &Field<'_>) -> Read<PortClause> {
    let map = field.map(&["protocol", "port", "endPort"], &[])?;
    let number = match map.get("protocol") {
        None => TCP,
        Some(field) => match field.text()? {
            "TCP" => TCP,
            "UDP" => UDP,
            "SCTP" => SCTP,
            other => {
                return Err(field.fault(format!("{other:?} is no protocol here; write TCP, UDP or SCTP")));
            }
        },
    };
    let end = map.get("endPort");
    let ports = match (map.get("port"), end) {
        (None, None) => Ports::All,
        (None, Some(end)) => return Err(end.fault("endPort needs a port before it; write port")),
        (Some(field), end) if field.as_int().is_some() => {
            let first = check::port(&field)?;
            let last = end.as_ref().map(check::port).transpose()?.unwrap_or(first);
            if let (true, Some(end)) = (last < first, &end) {
                return Err(end.fault(format!("{last} is before port {first}; write {first} or more")));
            }
            Ports::Range(first, last)
        }
        (Some(field), None) => Ports::Named(check::port_name(field.text()?, &field, true)?.into()),
        (Some(_), Some(end)) => return Err(end.fault("endPort needs a number in port; a name is one port")),
    };
    Ok(PortClause { protocols: Protocols::One(number), ports })
}
