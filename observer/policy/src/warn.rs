//! What is valid but hardly meant: policies that select nobody, names that nothing has.

use crate::{
    engine::Engine,
    l7::L7,
    label::{K8S, NAMESPACE, Operator, Selector},
    model::{Direction, GroupRef, Mode, Policy, PolicyId, Ports, Rule, Side, Term},
};
use hashbrown::HashSet;

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The policy.
    pub policy: PolicyId,
    /// Which of its `specs`.
    pub part: u32,
    /// The line of the policy or of the rule.
    pub line: u64,
    /// The rule's path, empty for the policy's subject.
    pub path: Box<str>,
    /// What it names and nothing has.
    pub problem: String,
}

/// Everything that endpoints have.
#[derive(Default)]
struct Known<'a> {
    namespaces: HashSet<&'a str>,
    labels: HashSet<(&'a str, &'a str)>,
    keys: HashSet<&'a str>,
    ports: HashSet<&'a str>,
}

impl Engine {
    /// What of the policies is about nothing that there is, sorted by policy and line.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut known = Known::default();
        for (labels, ports) in self.endpoint_kinds() {
            known.namespaces.extend(labels.get(K8S, NAMESPACE));
            known.labels.extend(labels.iter().map(|label| (&*label.key, &*label.value)));
            known.keys.extend(labels.iter().map(|label| &*label.key));
            known.ports.extend(ports.iter().map(|port| &*port.name));
        }
        let asking = self.kinds_with_dns();
        let mut warnings = Vec::new();
        for (policy, _, selected) in self.policies_with_kinds() {
            let (id, part) = (&policy.id, policy.part);
            let mut warn = |line, path: &str, problem| {
                warnings.push(Warning { policy: id.clone(), part, line, path: path.into(), problem });
            };
            let selected: Vec<u32> = selected.collect();
            if selected.is_empty() {
                let why = known.missing(policy.subject.selector());
                let why = why.unwrap_or_else(|| policy.subject.selector().to_string());
                warn(policy.line, "", format!("selects nothing: {why}"));
            }
            for direction in [Direction::Ingress, Direction::Egress] {
                for rule in policy.side(direction).into_iter().flat_map(Side::rules) {
                    for problem in rule.peers.terms().iter().filter_map(|term| self.missing(&known, term)) {
                        warn(rule.line, &rule.path, problem);
                    }
                    let is_by_name = rule.peers.terms().iter().any(|term| matches!(term, Term::Name(_)));
                    if is_by_name && selected.iter().any(|kind| !asking.contains(kind)) {
                        let why = "by no rule with `rules: dns` do its pods ask for names: answers are learnt as they pass, \
                                   and the first connection to a name may come too early";
                        warn(rule.line, &rule.path, why.to_owned());
                    }
                    let clauses = rule.ports.iter().flatten().flat_map(|entry| &entry.ports);
                    for clause in clauses {
                        if let Ports::Named(name) = &clause.ports
                            && !known.ports.contains(&**name)
                        {
                            warn(rule.line, &rule.path, format!("no pod has a port named {name}"));
                        }
                    }
                }
            }
        }
        warnings.sort();
        warnings
    }

    /// The kinds of endpoints whose queries of DNS are judged, so that their answers are held until policies have them.
    fn kinds_with_dns(&self) -> HashSet<u32> {
        let has_dns =
            |rule: &Rule| rule.ports.iter().flatten().any(|entry| matches!(entry.l7, Some(L7::Dns(_))));
        let judges = |policy: &Policy| policy.egress.iter().flat_map(Side::rules).any(has_dns);
        let policies =
            self.policies_with_kinds().filter(|(policy, mode, _)| *mode > Mode::Observe && judges(policy));
        policies.flat_map(|(.., kinds)| kinds).collect()
    }

    fn missing(&self, known: &Known<'_>, term: &Term) -> Option<String> {
        let surroundings = self.surroundings();
        match term {
            Term::Endpoints(selector) => known.missing(selector),
            Term::Group(GroupRef::Name(name), _) => {
                let there = surroundings.groups.iter().any(|group| group.name == *name);
                (!there).then(|| format!("no CIDR group is named {name}"))
            }
            Term::Group(GroupRef::Labels(selector), _) => {
                let there = surroundings.groups.iter().any(|group| selector.matches(&group.labels));
                (!there).then(|| format!("no CIDR group has {selector}"))
            }
            Term::Service(service) => {
                let of = surroundings.services.iter().filter(|found| {
                    service.namespace.as_ref().is_none_or(|namespace| *namespace == found.namespace)
                });
                let there = of.into_iter().any(|found| match &service.which {
                    GroupRef::Name(name) => found.name == *name,
                    GroupRef::Labels(selector) => selector.matches(&found.labels),
                });
                (!there).then(|| "no such service".to_owned())
            }
            Term::Name(name) => {
                let there = surroundings.names.keys().any(|found| name.0.is_match(found));
                let why = "until one does it matches nothing, and can't be enforced";
                (!there).then(|| format!("no DNS answer told addresses of {}: {why}", name.0))
            }
            Term::Block(_) => None,
        }
    }
}

impl Known<'_> {
    /// What a selector wants that no endpoint has.
    fn missing(&self, selector: &Selector) -> Option<String> {
        selector.0.iter().find_map(|requirement| {
            let key = &*requirement.key;
            match &requirement.operator {
                _ if requirement.source.as_deref() == Some(crate::label::RESERVED) => None,
                Operator::In(values) if key == NAMESPACE => {
                    let nobody = values.iter().all(|value| !self.namespaces.contains(&**value));
                    nobody.then(|| format!("no pod is in namespace {}", values.join(", ")))
                }
                Operator::In(values) => {
                    let nobody = values.iter().all(|value| !self.labels.contains(&(key, &**value)));
                    nobody.then(|| format!("no endpoint has the label {requirement}"))
                }
                Operator::Exists => {
                    (!self.keys.contains(key)).then(|| format!("no endpoint has the label {requirement}"))
                }
                Operator::NotIn(_) | Operator::DoesNotExist => None,
            }
        })
    }
}
