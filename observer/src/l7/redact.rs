//! What of requests is nobody's business who reads flows: Hubble's settings, with what logs people in left out from the start.

use std::borrow::Cow;

/// Stands for what was left out, as Hubble writes it.
pub(super) const REDACTED: &str = "HUBBLE_REDACTED";

/// What is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// The password in a URL.
    pub userinfo: bool,
    /// What stands behind the question mark of a URL.
    pub query: bool,
    /// Only these fields of a head are told, where any are named.
    pub allowed: Vec<String>,
    /// These are not.
    pub denied: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        let denied = ["authorization", "cookie", "proxy-authorization", "set-cookie"];
        Self { userinfo: true, query: false, allowed: Vec::new(), denied: denied.map(str::to_owned).to_vec() }
    }
}

impl Redaction {
    /// A field's value, as it is told.
    pub(crate) fn field<'a>(&self, name: &str, value: &'a [u8]) -> Cow<'a, str> {
        let is_in = |names: &[String]| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        if is_in(&self.denied) || !self.allowed.is_empty() && !is_in(&self.allowed) {
            return REDACTED.into();
        }
        String::from_utf8_lossy(value)
    }

    /// The URL of a request: absolute, where the request says of which host.
    pub(crate) fn url(&self, target: &str, host: Option<&[u8]>) -> String {
        let mut url = match host {
            Some(host) if target.starts_with('/') => {
                format!("http://{}{target}", String::from_utf8_lossy(host))
            }
            _ => target.to_owned(),
        };
        if self.query
            && let Some(at) = url.find(['?', '#'])
        {
            url.truncate(at + 1);
            url.push_str(REDACTED);
        }
        if self.userinfo
            && let Some(start) = url.find("://").map(|at| at + "://".len())
        {
            let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
            if let Some(at) = url[start..end].rfind('@')
                && let Some(colon) = url[start..start + at].find(':')
            {
                url.replace_range(start + colon + 1..start + at, REDACTED);
            }
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_whole_and_without_passwords() {
        let redaction = Redaction::default();
        let without_query = Redaction { query: true, ..Redaction::default() };
        for (target, host, url, shorter) in [
            ("/a?k=1", Some("shop"), "http://shop/a?k=1", "http://shop/a?HUBBLE_REDACTED"),
            ("/a", None, "/a", "/a"),
            ("*", Some("shop"), "*", "*"),
            ("shop:443", Some("shop"), "shop:443", "shop:443"),
            (
                "http://u:p@shop/a@b:c",
                None,
                "http://u:HUBBLE_REDACTED@shop/a@b:c",
                "http://u:HUBBLE_REDACTED@shop/a@b:c",
            ),
            ("/", Some("u:p:q@r@shop"), "http://u:HUBBLE_REDACTED@shop/", "http://u:HUBBLE_REDACTED@shop/"),
            ("http://u@shop", None, "http://u@shop", "http://u@shop"),
            ("http://shop?u:p@x", None, "http://shop?u:p@x", "http://shop?HUBBLE_REDACTED"),
        ] {
            assert_eq!(redaction.url(target, host.map(str::as_bytes)), url);
            assert_eq!(without_query.url(target, host.map(str::as_bytes)), shorter);
        }
    }

    #[test]
    fn fields_are_told_that_are_allowed_and_not_denied() {
        let redaction = Redaction::default();
        for (name, value) in [("Cookie", REDACTED), ("AUTHORIZATION", REDACTED), ("accept", "\u{fffd}x")] {
            assert_eq!(redaction.field(name, b"\xffx"), value, "{name}");
        }
        let few = Redaction { allowed: vec!["host".into(), "cookie".into()], ..redaction };
        for (name, value) in [("Host", "v"), ("accept", REDACTED), ("cookie", REDACTED)] {
            assert_eq!(few.field(name, b"v"), value, "{name}");
        }
    }
}
