//! Where a Collector is and how it is spoken to, as flags and the file say it, checked.

use http::Uri;
use std::path::{Path, PathBuf};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};

/// OTLP's port for gRPC.
const PORT: u16 = 4317;
/// Headers, and attributes of the resource.
const MOST: usize = 64;

/// A Collector.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::export) struct OtlpTarget {
    pub(super) uri: Uri,
    /// Sent with each request. Their values are not shown: tokens are among them.
    pub(super) headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    /// Whom to trust in place of the machine's own certificates; read for each connection.
    pub(super) ca_file: Option<PathBuf>,
    /// Attributes of the resource, beside those that every node has.
    pub(super) attributes: Vec<(String, String)>,
}

/// What of it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::export) enum Field {
    Endpoint,
    Headers,
    CaFile,
    Attributes,
}

impl Field {
    /// The flag, behind `--export-`.
    pub(in crate::export) fn flag(self) -> &'static str {
        match self {
            Self::Endpoint => "otlp-endpoint",
            Self::Headers => "otlp-headers",
            Self::CaFile => "otlp-ca-file",
            Self::Attributes => "otlp-resource-attributes",
        }
    }

    /// The key in a file.
    pub(in crate::export) fn key(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Headers => "headers",
            Self::CaFile => "caFile",
            Self::Attributes => "resourceAttributes",
        }
    }
}

impl OtlpTarget {
    /// Checks what was written. The error says what would be right.
    pub(in crate::export) fn new(
        endpoint: &str,
        headers: Vec<(String, String)>,
        ca_file: Option<PathBuf>,
        attributes: Vec<(String, String)>,
    ) -> Result<Self, (Field, String)> {
        let uri = uri(endpoint).ok_or_else(|| {
            let example = format!("http://collector:{PORT} or https://collector:{PORT}");
            (
                Field::Endpoint,
                format!("`{endpoint}` is no address of a Collector: write one such as {example}"),
            )
        })?;
        if let Some(file) = &ca_file {
            if uri.scheme_str() != Some("https") {
                let problem = "without TLS there is nobody to trust: write https:// before the endpoint";
                return Err((Field::CaFile, problem.to_owned()));
            }
            super::client::roots(Some(file)).map_err(|problem| (Field::CaFile, problem))?;
        }
        for (field, given) in [(Field::Headers, headers.len()), (Field::Attributes, attributes.len())] {
            if given > MOST {
                return Err((field, format!("there are {given}, more than {MOST}")));
            }
        }
        let headers = headers.into_iter().map(|(name, value)| header(&name, &value));
        Ok(Self { uri, headers: headers.collect::<Result<_, _>>()?, ca_file, attributes })
    }

    /// Its host and port.
    pub(super) fn address(&self) -> (String, u16) {
        // An address of IPv6 stands in brackets.
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        (host.to_owned(), self.uri.port_u16().unwrap_or(PORT))
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

/// `http://host`, `https://host:port`, with nothing behind it.
fn uri(endpoint: &str) -> Option<Uri> {
    let uri: Uri = endpoint.parse().ok()?;
    let is_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority()?;
    let is_host = !authority.host().is_empty() && !authority.as_str().contains('@');
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let is_port = port.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
    (is_scheme && is_host && is_port && matches!(uri.path(), "" | "/") && uri.query().is_none())
        .then_some(uri)
}

/// The value is not told: it may be a token.
fn header(name: &str, value: &str) -> Result<(AsciiMetadataKey, AsciiMetadataValue), (Field, String)> {
    let wrong = |why: &str| (Field::Headers, format!("`{name}` {why}"));
    let key: AsciiMetadataKey =
        name.to_ascii_lowercase().parse().map_err(|_| wrong("is no name of a header of gRPC"))?;
    let mut value: AsciiMetadataValue =
        value.parse().map_err(|_| wrong("has a value that is no visible ASCII"))?;
    value.set_sensitive(true);
    Ok((key, value))
}

/// `name=value`, as flags have headers and attributes; the error does not tell the value.
pub(in crate::export) fn pairs(all: &[String]) -> Result<Vec<(String, String)>, String> {
    let each = all.iter().enumerate().map(|(number, text)| {
        let pair =
            text.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        let pair = pair.filter(|(name, _)| !name.is_empty());
        pair.ok_or_else(|| format!("number {} is not of the form name=value", number + 1))
    });
    each.collect()
}

/// The CA's file, as messages have it.
pub(super) fn shown(file: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {problem}", file.display())
}
