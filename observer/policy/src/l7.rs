//! What a rule says about the requests in a connection, and the requests that it is asked about.

use regex::Regex;
use std::{borrow::Cow, fmt};

/// What may be said in a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L7 {
    /// Requests of which one of these rules holds.
    Http(Vec<HttpRule>),
    /// Queries for names that one of these is about.
    Dns(Vec<Pattern>),
}

/// What one HTTP request must be; what is not said may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HttpRule {
    /// The whole method.
    pub method: Option<Pattern>,
    /// The whole path.
    pub path: Option<Pattern>,
    /// The whole host.
    pub host: Option<Pattern>,
    /// Headers that must be there, some with a value; names in lower case.
    pub headers: Vec<(Box<str>, Option<Box<str>>)>,
}

/// A request that a verdict is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// An HTTP request.
    Http {
        /// Its method.
        method: &'a str,
        /// Its path.
        path: &'a str,
        /// The host that it is for.
        host: &'a str,
        /// Its headers.
        headers: Vec<(&'a str, Cow<'a, str>)>,
    },
    /// A DNS query for a name.
    Dns(&'a str),
}

impl L7 {
    /// Whether a request passes; one of another protocol does not.
    pub fn allows(&self, request: &Request<'_>) -> bool {
        match (self, request) {
            (Self::Http(rules), Request::Http { method, path, host, headers }) => {
                rules.iter().any(|rule| rule.allows(method, path, host, headers))
            }
            (Self::Dns(names), Request::Dns(name)) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                names.iter().any(|pattern| pattern.is_match(&name))
            }
            _ => false,
        }
    }
}

impl HttpRule {
    fn allows(&self, method: &str, path: &str, host: &str, headers: &[(&str, Cow<'_, str>)]) -> bool {
        let holds = |pattern: &Option<Pattern>, text| pattern.as_ref().is_none_or(|p| p.is_match(text));
        let has = |(name, value): &(Box<str>, Option<Box<str>>)| {
            let named = headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
            named.map(|(_, found)| found).any(|found| value.as_ref().is_none_or(|value| **value == **found))
        };
        holds(&self.method, method)
            && holds(&self.path, path)
            && holds(&self.host, host)
            && self.headers.iter().all(has)
    }
}

/// A regular expression for a whole text.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    regex: Regex,
}

/// What one expression may take, compiled.
const MAX_REGEX: usize = 1 << 20;

impl Pattern {
    /// The expression, which must match a whole text.
    pub fn regex(text: &str) -> Result<Self, String> {
        Self::build(text, &format!("^(?:{text})$"))
    }

    /// Exactly one DNS name.
    pub fn name(text: &str) -> Result<Self, String> {
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        Self::build(text, &format!("^{}$", regex::escape(&name)))
    }

    /// A pattern of DNS names: `*` is a part of one label, `**.` in front any labels, `*` alone every name.
    pub fn names(text: &str) -> Result<Self, String> {
        const LABEL: &str = "[-a-z0-9_]";
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        if lower == "*" {
            return Self::build(text, "^.*$");
        }
        let (front, rest) = match lower.strip_prefix("**.") {
            Some(rest) => (format!("(?:{LABEL}+[.])+"), rest),
            None => (String::new(), lower.as_str()),
        };
        let parts: Vec<_> = rest.split('*').map(regex::escape).collect();
        Self::build(text, &format!("^{front}{}$", parts.join(&format!("{LABEL}*"))))
    }

    fn build(text: &str, expression: &str) -> Result<Self, String> {
        let regex = regex::RegexBuilder::new(expression).size_limit(MAX_REGEX).build();
        let words = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().to_owned();
        Ok(Self { text: text.into(), regex: regex.map_err(words)? })
    }

    /// Whether it is a whole text.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.regex.as_str() == other.regex.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_for_the_whole_text() {
        let path = Pattern::regex("/public|/open").unwrap();
        assert!(path.is_match("/public") && path.is_match("/open"));
        assert!(!path.is_match("/public/x") && !path.is_match("/not/open"));
        assert!(Pattern::regex("(").is_err());
    }

    #[test]
    fn stars_stay_within_a_label() {
        for (pattern, yes, no) in [
            ("*.example.com", "a.example.com", "a.b.example.com"),
            ("**.example.com", "a.b.example.com", "example.com"),
            ("api-*.example.com", "api-.example.com", "api.example.com"),
            ("*", "anything.at.all", "\n"),
        ] {
            let pattern = Pattern::names(pattern).unwrap();
            assert!(pattern.is_match(yes) && !pattern.is_match(no), "{pattern}");
        }
        assert!(Pattern::name("API.example.com.").unwrap().is_match("api.example.com"));
    }
}
