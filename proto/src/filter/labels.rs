//! Kubernetes label selectors over labels that carry a source (`k8s:app=web`).

mod syntax;

use super::compile::InvalidFilter;
use ipnet::IpNet;

/// One selector: all its requirements hold. An empty selector matches all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    /// `None`: any source.
    source: Option<String>,
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    Exists,
    NotExists,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl Selector {
    pub(super) fn compile(values: &[String], what: &str) -> Result<Vec<Self>, InvalidFilter> {
        let parse = |text: &String| syntax::parse(text).map(Self);
        values
            .iter()
            .map(|text| {
                parse(text).map_err(|why| InvalidFilter::new(format!("invalid {what} filter: {why}")))
            })
            .collect()
    }

    /// `labels` gives `source:key=value`, `key=value` or `source:key`, anew at each call.
    pub(super) fn matches<'a, I: Iterator<Item = &'a str>>(&self, labels: impl Fn() -> I) -> bool {
        self.0.iter().all(|requirement| {
            // Hubble: of several labels that a key without a source means, the first counts.
            let value = labels().find_map(|label| requirement.value_in(label));
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.operator {
                Operator::Exists => value.is_some(),
                Operator::NotExists => value.is_none(),
                Operator::In(wanted) => value.is_some_and(|v| wanted.iter().any(|w| w == v)),
                // Kubernetes: an absent key satisfies `!=` and `notin`.
                Operator::NotIn(unwanted) => !value.is_some_and(|v| unwanted.iter().any(|u| u == v)),
                Operator::Greater(than) => number().is_some_and(|number| number > *than),
                Operator::Less(than) => number().is_some_and(|number| number < *than),
            }
        })
    }
}

impl Requirement {
    /// The value of `label` if it is the one this requirement speaks of.
    fn value_in<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        let (source, key) = name.split_once(':').unwrap_or(("", name));
        let same_source = self.source.as_deref().is_none_or(|wanted| wanted == source);
        // Hubble: a CIDR's label stands for all nets inside it.
        let same_key = match self.source.as_deref() {
            Some("cidr") => {
                net(&self.key).is_some_and(|wide| net(key).is_some_and(|net| wide.contains(&net)))
            }
            _ => key == self.key,
        };
        (same_source && same_key).then_some(value)
    }
}

/// Keys have `-` in the place of `:`.
fn net(key: &str) -> Option<IpNet> {
    key.replace('-', ":").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cidr_label_stands_for_the_nets_inside_it() {
        let labels = ["cidr:10.1.2.0/24", "cidr:fd00-1--0/32", "reserved:world"];
        for (selector, matches) in [
            ("cidr:10.1.0.0/16", true),
            ("cidr:10.1.2.0/24", true),
            ("cidr:10.1.2.0/25", false),
            ("cidr:fd00--0/16", true),
            ("cidr:fd01--0/16", false),
            ("10.1.0.0/16", false),
            ("10.1.2.0/24", true),
        ] {
            let compiled = Selector::compile(&[selector.to_owned()], "label").unwrap();
            assert_eq!(compiled[0].matches(|| labels.into_iter()), matches, "{selector}");
        }
    }
}
