//! HTTP records.

use super::{compile::InvalidFilter, go::quote, view::HttpView};
use crate::flow::{EventTypeFilter, HttpHeader};
use regex::Regex;
use std::borrow::Cow;

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
    pub(super) fn matches(&self, http: HttpView<'_>) -> bool {
        match self {
            // Code 0 is a request.
            Self::Status(list) => http.code != 0 && list.iter().any(|s| s.matches(http.code)),
            Self::Method(list) => {
                !http.method.is_empty() && list.iter().any(|m| m.eq_ignore_ascii_case(http.method))
            }
            Self::Path(list) => path(http.url).is_some_and(|path| list.iter().any(|r| r.is_match(&path))),
            Self::Url(list) => !http.url.is_empty() && list.iter().any(|r| r.is_match(http.url)),
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

/// The path of `scheme://authority/path?query`, or of a bare `/path?query`, as Go's `url.ParseRequestURI` reads it: percent
/// signs resolved, a `#` like any other character; nothing where it is neither.
fn path(url: &str) -> Option<Cow<'_, str>> {
    if url.bytes().any(|b| b.is_ascii_control()) {
        return None;
    }
    let without_query = url.split_once('?').map_or(url, |(url, _)| url);
    let path = match without_query.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => match rest.strip_prefix("//") {
            Some(rest) => rest.find('/').map_or("", |at| &rest[at..]),
            None if rest.starts_with('/') => rest,
            None => "",
        },
        _ if without_query.starts_with('/') || url == "*" => without_query,
        _ => return None,
    };
    unescape(path)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Nothing where a percent sign has no two digits behind it.
fn unescape(path: &str) -> Option<Cow<'_, str>> {
    if !path.contains('%') {
        return Some(path.into());
    }
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned().into())
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_cut_out_of_urls() {
        for (url, path) in [
            ("http://api:8080/v1/charges?x=1", Some("/v1/charges")),
            ("/v1#top", Some("/v1#top")),
            ("/a%2Fb%20c", Some("/a/b c")),
            ("http://api", Some("")),
            ("http://api?x=/y", Some("")),
            ("mailto:a@b", Some("")),
            ("*", Some("*")),
            ("", None),
            ("v1/charges", None),
            ("/a%2", None),
            ("/a%zz", None),
            ("/a\n", None),
        ] {
            assert_eq!(super::path(url).as_deref(), path, "{url}");
        }
    }
}
