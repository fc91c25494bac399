//! HTTP records.

use super::{compile::InvalidFilter, go::quote, patterns::expression, view::HttpView};
use crate::flow::{EventTypeFilter, HttpHeader};
use regex::Regex;

/// Hubble's number of the L7 event type.
const L7_EVENT: i32 = 129;

/// A status code, or its first digits.
#[derive(Clone, Debug)]
pub(super) enum Status {
    Exact(u32),
    Prefix(String),
}

impl Status {
    pub(super) fn compile(value: &str) -> Result<Self, InvalidFilter> {
        let digits = value.strip_suffix('+').unwrap_or(value);
        let number =
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.starts_with(['1', '2', '3', '4', '5']);
        match (number, value.ends_with('+'), digits.len()) {
            (true, false, 3) => Ok(Self::Exact(digits.parse().unwrap_or_default())),
            (true, true, 1 | 2) => Ok(Self::Prefix(digits.to_owned())),
            _ => Err(InvalidFilter::new(format!(
                "invalid http status code filter: invalid status code prefix: {}",
                quote(value)
            ))),
        }
    }

    fn matches(&self, code: u32) -> bool {
        match self {
            Self::Exact(wanted) => code == *wanted,
            Self::Prefix(prefix) => format!("{code:03}").starts_with(prefix.as_str()),
        }
    }
}

/// One condition on an HTTP record.
#[derive(Clone, Debug)]
pub(super) enum Http {
    Status(Vec<Status>),
    Method(Vec<String>),
    Path(Vec<Regex>),
    Url(Vec<Regex>),
    Header(Vec<HttpHeader>),
}

impl Http {
    pub(super) fn expressions(what: &str, values: &[String]) -> Result<Vec<Regex>, InvalidFilter> {
        values.iter().map(|v| expression(what, v)).collect()
    }

    pub(super) fn matches(&self, http: HttpView<'_>) -> bool {
        match self {
            // Code 0 is a request.
            Self::Status(list) => http.code != 0 && list.iter().any(|s| s.matches(http.code)),
            Self::Method(list) => list.iter().any(|m| m.eq_ignore_ascii_case(http.method)),
            Self::Path(list) => {
                let path = path(http.url);
                list.iter().any(|r| r.is_match(path))
            }
            Self::Url(list) => list.iter().any(|r| r.is_match(http.url)),
            Self::Header(list) => list.iter().any(|h| http.headers.contains(h)),
        }
    }
}

/// Event types that leave out L7 can never match; Hubble refuses that.
pub(super) fn check_event_types(types: &[EventTypeFilter], what: &str) -> Result<(), InvalidFilter> {
    if types.is_empty() || types.iter().any(|t| t.r#type == L7_EVENT) {
        return Ok(());
    }
    Err(InvalidFilter::new(format!(
        "filtering by http {what} requires the event type filter to only match 'l7' events"
    )))
}

/// The path of `scheme://authority/path?query#fragment`, or of a bare `/path`.
fn path(url: &str) -> &str {
    let url = url.find(['?', '#']).map_or(url, |end| &url[..end]);
    url.split_once("://").map_or(url, |(_, rest)| rest.find('/').map_or("", |at| &rest[at..]))
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_cut_out_of_urls() {
        for (url, path) in [
            ("http://api:8080/v1/charges?x=1", "/v1/charges"),
            ("/v1#top", "/v1"),
            ("http://api", ""),
            ("http://api?x=/y", ""),
            ("", ""),
        ] {
            assert_eq!(super::path(url), path, "{url}");
        }
    }
}
