//! Kubernetes label selectors over labels that carry a source (`k8s:app=web`).

use super::{compile::InvalidFilter, go::quote};

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
}

impl Selector {
    pub(super) fn compile(values: &[String], what: &str) -> Result<Vec<Self>, InvalidFilter> {
        values
            .iter()
            .map(|v| {
                Parser { rest: v }
                    .selector()
                    .map_err(|why| InvalidFilter::new(format!("invalid {what} filter: {why}: {}", quote(v))))
            })
            .collect()
    }

    /// `labels` gives `source:key=value`, `key=value` or `source:key`, anew at each call.
    pub(super) fn matches<'a, I: Iterator<Item = &'a str>>(&self, labels: impl Fn() -> I) -> bool {
        self.0.iter().all(|requirement| {
            let mut values = labels().filter_map(|label| requirement.value_in(label));
            match &requirement.operator {
                Operator::Exists => values.next().is_some(),
                Operator::NotExists => values.next().is_none(),
                Operator::In(wanted) => values.any(|v| wanted.iter().any(|w| w == v)),
                // Kubernetes: an absent key satisfies `!=` and `notin`.
                Operator::NotIn(unwanted) => !values.any(|v| unwanted.iter().any(|u| u == v)),
            }
        })
    }
}

impl Requirement {
    /// The value of `label` if it is the one this requirement speaks of.
    fn value_in<'a>(&self, label: &'a str) -> Option<&'a str> {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        let (source, key) = name.split_once(':').unwrap_or(("", name));
        let source_fits = match self.source.as_deref() {
            None | Some("any") => true,
            Some(wanted) => wanted == source,
        };
        (source_fits && key == self.key).then_some(value)
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn selector(mut self) -> Result<Selector, String> {
        let mut requirements = Vec::new();
        self.skip_blanks();
        if self.rest.is_empty() {
            return Ok(Selector(requirements));
        }
        loop {
            requirements.push(self.requirement()?);
            if self.rest.is_empty() {
                return Ok(Selector(requirements));
            }
            if !self.eat(",") {
                return Err(format!("expected ',' before {}", quote(self.rest)));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.eat("!") {
            return self.key(Operator::NotExists);
        }
        let mut requirement = self.key(Operator::Exists)?;
        requirement.operator = if self.rest.is_empty() || self.rest.starts_with(',') {
            Operator::Exists
        } else if self.eat("!=") {
            Operator::NotIn(vec![self.value()?])
        } else if self.eat("==") || self.eat("=") {
            Operator::In(vec![self.value()?])
        } else if self.eat_word("notin") {
            Operator::NotIn(self.values()?)
        } else if self.eat_word("in") {
            Operator::In(self.values()?)
        } else {
            return Err(format!("expected one of =, ==, !=, in, notin before {}", quote(self.rest)));
        };
        Ok(requirement)
    }

    fn key(&mut self, operator: Operator) -> Result<Requirement, String> {
        let word = self.word();
        let (source, key) = match word.split_once(':') {
            Some((source, key)) => (Some(source), key),
            None => (None, word),
        };
        if source == Some("") || !valid_key(key) {
            return Err(format!(
                "{} is no label key; keys are letters, digits and -._ with an optional prefix and source (k8s:app)",
                quote(word)
            ));
        }
        Ok(Requirement { source: source.map(str::to_owned), key: key.to_owned(), operator })
    }

    fn value(&mut self) -> Result<String, String> {
        let word = self.word();
        if word.len() > 63 || !word.is_empty() && !valid_name(word) {
            return Err(format!("{} is no label value", quote(word)));
        }
        Ok(word.to_owned())
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if !self.eat("(") {
            return Err("expected '(' after in or notin".to_owned());
        }
        let mut values = vec![self.value()?];
        while self.eat(",") {
            values.push(self.value()?);
        }
        if self.eat(")") { Ok(values) } else { Err("expected ',' or ')' in a list of values".to_owned()) }
    }

    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let end = self
            .rest
            .find(|c: char| c.is_whitespace() || matches!(c, ',' | '=' | '!' | '(' | ')'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_blanks();
        word
    }

    fn eat(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest;
        self.skip_blanks();
        true
    }

    /// A word operator ends at a blank or a bracket.
    fn eat_word(&mut self, token: &str) -> bool {
        self.rest
            .strip_prefix(token)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '('))
            && self.eat(token)
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

/// Kubernetes' qualified name, and Cilium's long keys that hold several prefixes.
fn valid_key(key: &str) -> bool {
    key.len() <= 317 && key.split('/').all(|part| !part.is_empty() && valid_name(part))
}

fn valid_name(name: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    alphanumeric(name.chars().next())
        && alphanumeric(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [&str; 4] =
        ["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop", "reserved:world", "k8s:empty="];

    fn check(selector: &str) -> Result<bool, String> {
        let compiled = Selector::compile(&[selector.to_owned()], "label").map_err(|e| e.to_string())?;
        Ok(compiled[0].matches(|| LABELS.into_iter()))
    }

    #[test]
    fn selectors_follow_kubernetes() {
        for (selector, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web", true),
            ("k8s:app=web", true),
            ("any:app=web", true),
            ("container:app=web", false),
            ("app!=web", false),
            ("app!=db", true),
            ("tier!=db", true),
            ("app", true),
            ("!app", false),
            ("!tier", true),
            ("!k8s:app", false),
            ("app in (web, db)", true),
            ("app in(web)", true),
            ("app notin (web,db)", false),
            ("tier notin (web)", true),
            ("app=web,tier!=db,reserved:world", true),
            ("app=web,tier=db", false),
            ("reserved:world", true),
            ("reserved:world=", true),
            ("reserved:host", false),
            ("empty=", true),
            ("io.kubernetes.pod.namespace=shop", true),
            ("in=x", false),
            ("notin", false),
        ] {
            assert_eq!(check(selector), Ok(matches), "{selector}");
        }
    }

    #[test]
    fn wrong_selectors_are_refused() {
        for selector in [
            "=x",
            "app=web,",
            "app in web",
            "app in (web",
            "a b",
            "app=(x)",
            "-a=b",
            ":a=b",
            "a==b=c",
            "a=b c",
        ] {
            assert!(check(selector).is_err(), "{selector}");
        }
    }
}
