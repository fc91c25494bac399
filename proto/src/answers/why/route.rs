//! Which flows speak of the way from A to B, by the filter that names both.

use crate::{
    answers::ends,
    filter::{Filters, InvalidFilter},
    flow::{Flow, FlowFilter},
    observer::GetFlowsRequest,
    text::parts::End,
};
use std::{collections::BTreeSet, mem};

/// All fields that a filter has for each side.
macro_rules! for_each_side {
    ($filter:ident, $macro:ident) => {
        $macro!($filter, source_ip, destination_ip);
        $macro!($filter, source_pod, destination_pod);
        $macro!($filter, source_fqdn, destination_fqdn);
        $macro!($filter, source_label, destination_label);
        $macro!($filter, source_service, destination_service);
        $macro!($filter, source_workload, destination_workload);
        $macro!($filter, source_cluster_name, destination_cluster_name);
        $macro!($filter, source_port, destination_port);
        $macro!($filter, source_identity, destination_identity);
    };
}

macro_rules! swap {
    ($filter:ident, $source:ident, $destination:ident) => {
        mem::swap(&mut $filter.$source, &mut $filter.$destination);
    };
}

macro_rules! clear_source {
    ($filter:ident, $source:ident, $destination:ident) => {
        $filter.$source.clear();
    };
}

macro_rules! any_destination {
    ($filter:ident, $source:ident, $destination:ident) => {
        if !$filter.$destination.is_empty() {
            return true;
        }
    };
}

/// The same with both ends swapped.
fn mirrored(mut filter: FlowFilter) -> FlowFilter {
    for_each_side!(filter, swap);
    filter
}

/// What is asked of the destination alone.
fn of_destination(mut filter: FlowFilter) -> FlowFilter {
    for_each_side!(filter, clear_source);
    filter
}

/// What the destination was asked for by, ports aside.
fn destination(filter: &FlowFilter) -> String {
    let workloads: Vec<String> =
        filter.destination_workload.iter().map(|workload| workload.name.clone()).collect();
    let identities: Vec<String> = filter.destination_identity.iter().map(u32::to_string).collect();
    [
        &filter.destination_pod,
        &filter.destination_service,
        &workloads,
        &filter.destination_ip,
        &filter.destination_fqdn,
        &filter.destination_label,
        &identities,
        &filter.destination_cluster_name,
    ]
    .map(|values| values.join(" or "))
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join(", ")
}

fn names_a_destination(filter: &FlowFilter) -> bool {
    for_each_side!(filter, any_destination);
    false
}

/// What a flow has to do with the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From A to B.
    There,
    /// From B to A.
    Back,
    /// From A to B on another port, and back.
    OtherPortThere,
    OtherPortBack,
    /// From A to somebody else.
    FromA,
    /// To A from somebody else.
    ToA,
    /// From or to B, with somebody else.
    WithB,
}

/// The question as filters.
#[derive(Clone, Debug)]
pub struct Route {
    there: FlowFilter,
    compiled: [(Way, Filters); 8],
    /// To B, from anybody.
    with_b: Filters,
    /// By B's names, where it has some.
    by_name: Option<Filters>,
}

impl Route {
    /// The services that B is named by, in full.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        let names = self.there.destination_service.iter().map(String::as_str);
        names.filter(|name| name.split_once('/').is_some_and(|(_, name)| !name.is_empty()))
    }

    /// From a filter whose source is A and whose destination is B, perhaps with its port.
    pub fn new(filter: FlowFilter) -> Result<Self, String> {
        if !names_a_destination(&mirrored(filter.clone())) {
            return Err(
                "who can't reach it? name the source: --from-pod NAMESPACE/POD, --from-ip, --from-workload"
                    .to_owned(),
            );
        }
        if !names_a_destination(&filter) {
            return Err(
                "what can't it reach? name the destination: --to-pod NAMESPACE/POD, --to-service, --to-ip"
                    .to_owned(),
            );
        }
        let ends = FlowFilter { source_port: Vec::new(), destination_port: Vec::new(), ..filter.clone() };
        let a = mirrored(of_destination(mirrored(ends.clone())));
        let b = of_destination(filter.clone());
        let compile = |way, filter: &FlowFilter| {
            let compiled = Filters::compile(std::slice::from_ref(filter), &[]);
            compiled.map(|compiled| (way, compiled)).map_err(|error: InvalidFilter| error.to_string())
        };
        // The first that matches decides.
        let compiled = [
            compile(Way::There, &filter)?,
            compile(Way::Back, &mirrored(filter.clone()))?,
            compile(Way::OtherPortThere, &ends)?,
            compile(Way::OtherPortBack, &mirrored(ends.clone()))?,
            compile(Way::FromA, &a)?,
            compile(Way::ToA, &mirrored(a))?,
            compile(Way::WithB, &b)?,
            compile(Way::WithB, &mirrored(b.clone()))?,
        ];
        let names = &filter.destination_fqdn;
        let by_name = FlowFilter { destination_fqdn: names.clone(), ..FlowFilter::default() };
        let by_name = (!names.is_empty()).then(|| compile(Way::WithB, &by_name).map(|(_, filters)| filters));
        Ok(Self {
            with_b: compile(Way::WithB, &b)?.1,
            by_name: by_name.transpose()?,
            there: filter,
            compiled,
        })
    }

    /// Whether this one can answer packets of the question: not where that names addresses of the other family only.
    pub(super) fn is_of_family(&self, flow: &Flow) -> bool {
        let mut asked = self.there.source_ip.iter().chain(&self.there.destination_ip);
        let is_v6 = ends::address(flow, End::Source).contains(':');
        asked.clone().next().is_none() || asked.any(|address| address.contains(':') == is_v6)
    }

    /// In words.
    pub fn question(&self) -> String {
        let source = mirrored(self.there.clone());
        let [from, to] = [&source, &self.there].map(destination);
        let on = match (&self.there.destination_port[..], &self.there.protocol[..]) {
            ([], []) => String::new(),
            (ports, []) => format!(" on port {}", ports.join(", ")),
            ([], protocols) => format!(" by {}", protocols.join(", ")),
            (ports, protocols) => format!(" on port {} by {}", ports.join(", "), protocols.join(", ")),
        };
        format!("Why can't {from} reach {to}{on}?")
    }

    /// B's address in a flow of B with somebody.
    pub(super) fn address_of_b<'a>(&self, flow: &'a Flow) -> &'a str {
        let is_destination = self.with_b.matches(flow);
        ends::address(flow, if is_destination { End::Destination } else { End::Source })
    }

    /// Whether the question names B by this name of DNS or by one of these addresses.
    pub(super) fn names_b(&self, name: &str, addresses: &BTreeSet<String>) -> bool {
        let mut labels = name.split('.');
        let (first, second) = (labels.next().unwrap_or_default(), labels.next());
        // Services and pods as Kubernetes' DNS has them: `name.namespace`, perhaps with more behind it.
        let is_named = |value: &String, is_whole: bool| {
            let (namespace, own) = value.split_once('/').unwrap_or(("", value));
            let has_namespace = namespace.is_empty() || second.is_none_or(|second| second == namespace);
            !own.is_empty() && has_namespace && if is_whole { first == own } else { first.starts_with(own) }
        };
        // Pods begin with what their service is usually called.
        let is_of_service = |pod: &String| {
            let of = |(namespace, pod): (&str, &str)| {
                let rest = pod.strip_prefix(first).unwrap_or_default();
                !first.is_empty() && second == Some(namespace) && rest.starts_with('-')
            };
            pod.split_once('/').is_some_and(of)
        };
        let filter = &self.there;
        filter.destination_service.iter().any(|service| is_named(service, true))
            || filter.destination_pod.iter().any(|pod| is_named(pod, false) || is_of_service(pod))
            || filter.destination_workload.iter().any(|workload| is_named(&workload.name, true))
            || filter.destination_ip.iter().any(|ip| addresses.contains(ip))
            || self.by_name.as_ref().is_some_and(|by_name| {
                by_name.matches(&Flow { destination_names: vec![name.to_owned()], ..Flow::default() })
            })
    }

    pub(super) fn way(&self, flow: &Flow) -> Option<Way> {
        let mut ways = self.compiled.iter().filter(|(_, filter)| filter.matches(flow)).map(|(way, _)| *way);
        let way = ways.next()?;
        // Of pods that call each other, as replicas do, each is both ends: who called decides.
        let back = match way {
            Way::There => Way::Back,
            Way::OtherPortThere => Way::OtherPortBack,
            _ => return Some(way),
        };
        let is_answer = ends::callers(flow).0 == End::Destination;
        Some(if is_answer && ways.any(|way| way == back) { back } else { way })
    }

    /// Asks for all flows between both.
    pub fn between(&self) -> GetFlowsRequest {
        let there = FlowFilter { destination_port: Vec::new(), ..self.there.clone() };
        GetFlowsRequest { whitelist: vec![mirrored(there.clone()), there], ..GetFlowsRequest::default() }
    }

    /// Asks for what A asks DNS, wherever its servers are but at B.
    pub fn dns(&self) -> GetFlowsRequest {
        let a = FlowFilter { protocol: vec!["dns".to_owned()], ..self.a() };
        GetFlowsRequest {
            whitelist: vec![mirrored(a.clone()), a],
            blacklist: self.between().whitelist,
            ..GetFlowsRequest::default()
        }
    }

    /// Asks for what else each does with others.
    pub fn around(&self) -> GetFlowsRequest {
        let a = self.a();
        let b = of_destination(self.there.clone());
        let mut asked = self.between().whitelist;
        asked.extend(self.dns().whitelist);
        GetFlowsRequest {
            whitelist: vec![mirrored(a.clone()), a, mirrored(b.clone()), b],
            blacklist: asked,
            ..GetFlowsRequest::default()
        }
    }

    /// From A to anybody.
    fn a(&self) -> FlowFilter {
        let there = FlowFilter { source_port: Vec::new(), ..self.there.clone() };
        mirrored(of_destination(mirrored(there)))
    }
}
