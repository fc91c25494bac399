//! Globs over DNS names and node names, and users' regular expressions.

use super::{compile::InvalidFilter, go::quote};
use regex::{Regex, RegexBuilder};

/// The largest program that a filter's expression may become. A filter comes from outside; this bounds the memory and
/// the time of one match, which is linear in the text.
const REGEX_BYTES: usize = 256 * 1024;

/// A user's expression, unanchored.
pub(super) fn expression(what: &str, pattern: &str) -> Result<Regex, InvalidFilter> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build().map_err(|error| {
        // The crate draws the place over several lines; the last one says what is wrong.
        let text = error.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        InvalidFilter::new(format!(
            "invalid {what} filter: failed to compile regexp {}: {why}",
            quote(pattern)
        ))
    })
}

const FQDN_CHARS: &str = "[-.0-9a-z]*";

fn glob_body(pattern: &str, what: &str) -> Result<String, InvalidFilter> {
    let lower = pattern.trim().to_lowercase();
    let trimmed = lower.strip_suffix('.').unwrap_or(&lower);
    if trimmed.is_empty() {
        return Err(InvalidFilter::new(format!("invalid {what} filter: empty pattern")));
    }
    if let Some(bad) = trimmed.chars().find(|c| !matches!(c, '-' | '.' | '_' | '*' | '0'..='9' | 'a'..='z')) {
        return Err(InvalidFilter::new(format!(
            "invalid {what} filter: {} has the character {bad:?}; allowed are letters, digits and -._*",
            quote(pattern)
        )));
    }
    Ok(trimmed.split('*').map(regex::escape).collect::<Vec<_>>().join(FQDN_CHARS))
}

fn any_of(bodies: &[String], what: &str) -> Result<Regex, InvalidFilter> {
    expression(what, &format!("^(?:{})$", bodies.join("|")))
}

/// One expression for a list of DNS name globs.
pub(super) fn fqdn(values: &[String], what: &str) -> Result<Regex, InvalidFilter> {
    any_of(&values.iter().map(|v| glob_body(v, what)).collect::<Result<Vec<_>, _>>()?, what)
}

/// One expression for a list of `[cluster/]node` globs over `cluster/node`; an empty side is any.
pub(super) fn node_name(values: &[String]) -> Result<Regex, InvalidFilter> {
    let what = "node name";
    let side = |glob: &str, empty: &str| {
        if glob.is_empty() { Ok(empty.to_owned()) } else { glob_body(glob, what) }
    };
    let bodies = values
        .iter()
        .map(|value| {
            if value.is_empty() {
                return Err(InvalidFilter::new(format!("invalid {what} filter: empty pattern")));
            }
            match value.split_once('/') {
                Some((cluster, node)) => Ok(format!("{}/{}", side(cluster, "[^/]*")?, side(node, "[^/]*")?)),
                // Hubble: without a cluster the pattern speaks of the default cluster's nodes.
                None => Ok(format!("default/{}", side(value, "[^/]*")?)),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    any_of(&bodies, what)
}
