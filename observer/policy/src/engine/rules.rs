//! Rules with everything they refer to resolved.

use super::{Class, addresses::Addresses, selectors::Selectors};
use crate::{
    label::{K8S, NAMESPACE, Requirement, Selector},
    model::{
        Block, GroupRef, NamePattern, Peers, Policy, Ports, Protocols, Reach, Rule, ServiceRef, Side, Term,
    },
    world::{NamedPort, Service, Surroundings},
};
use hashbrown::HashSet;
use ipnet::IpNet;
use slab::Slab;
use std::sync::Arc;

/// A rule of a policy, resolved.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Whoever the peer is.
    pub(super) any: bool,
    pub(super) selectors: Box<[u32]>,
    /// Addresses, and whether only those outside of the cluster are meant.
    pub(super) set: Option<(u32, Reach)>,
    pub(super) spans: Box<[Span]>,
    pub(super) named: Box<[Named]>,
    pub(super) deny: bool,
}

/// The place of a protocol and port in the order of all of them.
pub(super) const fn key(protocol: u8, port: u16) -> u32 {
    (protocol as u32) << 16 | port as u32
}

/// How exactly protocol and port are named.
pub(super) const ALL: u8 = 0;
pub(super) const PROTOCOL: u8 = 1;
pub(super) const PORT: u8 = 2;

/// Ports of a protocol, or all of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) exact: u8,
    /// Which of the rule's entries of ports has requests to judge.
    pub(super) l7: Option<u32>,
}

/// A port that the destination names.
#[derive(Debug)]
pub(super) struct Named {
    name: Box<str>,
    protocols: Protocols,
    l7: Option<u32>,
}

impl Compiled {
    /// What its ports are for a destination.
    pub(super) fn spans<'a>(&'a self, ports: &'a [NamedPort]) -> impl Iterator<Item = Span> + 'a {
        let named = self.named.iter().flat_map(move |named| {
            let right = move |port: &&NamedPort| {
                port.name == named.name && named.protocols.numbers().any(|number| number == port.protocol)
            };
            ports.iter().filter(right).map(|port| {
                let key = key(port.protocol, port.port);
                Span { first: key, last: key, exact: PORT, l7: named.l7 }
            })
        });
        self.spans.iter().copied().chain(named)
    }
}

/// Whether what a policy refers to can change besides endpoints.
pub(super) fn is_dynamic(policy: &Policy) -> bool {
    let sides = policy.ingress.iter().chain(&policy.egress);
    let mut terms = sides.flat_map(Side::rules).flat_map(|rule| rule.peers.terms());
    terms.any(|term| matches!(term, Term::Group(..) | Term::Service(_) | Term::Name(_)))
}

/// What resolving needs.
pub(super) struct Context<'a> {
    pub(super) selectors: &'a mut Selectors,
    pub(super) addresses: &'a mut Addresses,
    pub(super) classes: &'a Slab<Class>,
    pub(super) surroundings: &'a Surroundings,
}

/// Resolves the rules of a direction, in the order of [`Side::rules`].
pub(super) fn compile(side: &Side, context: &mut Context<'_>) -> Box<[Compiled]> {
    let allow = side.allow.iter().map(|rule| (rule, false));
    let both = allow.chain(side.deny.iter().map(|rule| (rule, true)));
    both.map(|(rule, deny)| resolve(rule, deny, context)).collect()
}

fn resolve(rule: &Rule, deny: bool, context: &mut Context<'_>) -> Compiled {
    let (mut wanted, mut blocks, mut reach) = (Vec::new(), Vec::new(), Reach::World);
    for term in rule.peers.terms() {
        match term {
            Term::Endpoints(selector) => wanted.push(selector.clone()),
            Term::Block(Block { net, except, reach: own }) => {
                reach = *own;
                blocks.push((*net, except.clone()));
            }
            Term::Group(group, except) => blocks.extend(group_blocks(group, except, context.surroundings)),
            Term::Service(service) => {
                for found in services(service, context.surroundings) {
                    wanted.extend(selected(found));
                    // As Cilium has it: like CIDRs that are only these addresses.
                    blocks.extend(found.backends.iter().map(|ip| (IpNet::from(*ip), Vec::new())));
                }
            }
            Term::Name(name) => blocks.extend(name_blocks(name, context.surroundings)),
        }
    }
    let mut seen = HashSet::new();
    wanted.retain(|selector| seen.insert(selector.clone()));
    let selectors =
        wanted.iter().map(|selector| context.selectors.acquire(selector, context.classes)).collect();
    for (_, except) in &mut blocks {
        except.sort_unstable();
    }
    blocks.sort_unstable();
    blocks.dedup();
    let set = (!blocks.is_empty()).then(|| (context.addresses.acquire(Arc::from(blocks)), reach));
    let (spans, named) = ports(rule);
    Compiled { any: rule.peers == Peers::Any, selectors, set, spans, named, deny }
}

fn group_blocks<'a>(
    group: &'a GroupRef,
    except: &'a [IpNet],
    surroundings: &'a Surroundings,
) -> impl Iterator<Item = (IpNet, Vec<IpNet>)> + 'a {
    let named = surroundings.groups.iter().filter(move |found| match group {
        GroupRef::Name(name) => found.name == *name,
        GroupRef::Labels(selector) => selector.matches(&found.labels),
    });
    let within = |net: IpNet| except.iter().copied().filter(move |except| net.contains(except)).collect();
    // A block that is left out whole, by a larger one, is none.
    let whole = |net: &IpNet| except.iter().any(|except| except.contains(net));
    named
        .flat_map(|group| &group.nets)
        .filter(move |net| !whole(net))
        .map(move |net| (net.trunc(), within(*net)))
}

fn services<'a>(
    service: &'a ServiceRef,
    surroundings: &'a Surroundings,
) -> impl Iterator<Item = &'a Service> + 'a {
    surroundings.services.iter().filter(move |found| {
        service.namespace.as_ref().is_none_or(|namespace| *namespace == found.namespace)
            && match &service.which {
                GroupRef::Name(name) => found.name == *name,
                GroupRef::Labels(selector) => selector.matches(&found.labels),
            }
    })
}

/// The pods behind a service.
fn selected(service: &Service) -> Option<Selector> {
    let labels = service.selector.iter().map(|(key, value)| Requirement::equals(K8S, key, value));
    let namespace = Requirement::equals(K8S, NAMESPACE, &service.namespace);
    let selector = || Selector(std::iter::once(namespace).chain(labels).collect());
    (!service.selector.is_empty()).then(selector)
}

fn name_blocks<'a>(
    name: &'a NamePattern,
    surroundings: &'a Surroundings,
) -> impl Iterator<Item = (IpNet, Vec<IpNet>)> + 'a {
    let resolved = surroundings.names.iter().filter(|(found, _)| name.0.is_match(found));
    resolved.flat_map(|(_, addresses)| addresses).map(|address| (IpNet::from(*address), Vec::new()))
}

fn ports(rule: &Rule) -> (Box<[Span]>, Box<[Named]>) {
    let Some(entries) = &rule.ports else {
        let all = Span { first: 0, last: key(u8::MAX, u16::MAX), exact: ALL, l7: None };
        return (Box::new([all]), Box::default());
    };
    let (mut spans, mut named) = (Vec::new(), Vec::new());
    for (n, entry) in entries.iter().enumerate() {
        let l7 = entry.l7.as_ref().map(|_| n as u32);
        for clause in &entry.ports {
            let (first, last, exact) = match &clause.ports {
                Ports::All => (0, u16::MAX, PROTOCOL),
                Ports::Range(first, last) => (*first, *last, PORT),
                Ports::Named(name) => {
                    named.push(Named { name: name.clone(), protocols: clause.protocols, l7 });
                    continue;
                }
            };
            if first > last {
                continue;
            }
            for protocol in clause.protocols.numbers() {
                spans.push(Span { first: key(protocol, first), last: key(protocol, last), exact, l7 });
            }
        }
    }
    (spans.into(), named.into())
}
