//! Globs over DNS names and node names.

use super::compile::InvalidFilter;

/// Stands for a star of a glob: what a name has, but `_`.
fn in_star(c: u8) -> bool {
    matches!(c, b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z')
}

/// A lower-case name with stars. Names are short, so that the time of a match is bounded by their length.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Glob {
    text: Box<[u8]>,
    letters: usize,
}

impl Glob {
    fn compile(pattern: &str) -> Result<Self, InvalidFilter> {
        let trimmed = pattern.trim();
        let text = trimmed.strip_suffix('.').unwrap_or(trimmed).to_lowercase();
        if text.is_empty() {
            return Err(InvalidFilter::new("empty pattern"));
        }
        if text.ends_with('.') {
            return Err(InvalidFilter::new("multiple trailing dots in pattern"));
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, '-' | '.' | '_' | '*' | '0'..='9' | 'a'..='z'))
        {
            let quote = if bad == '\'' { "\\" } else { "" };
            return Err(InvalidFilter::new(format!("'{quote}{bad}': invalid rune in pattern")));
        }
        // Two stars in a row are one.
        let mut bytes = text.into_bytes();
        bytes.dedup_by(|next, previous| *next == b'*' && *previous == b'*');
        let letters = bytes.iter().filter(|c| **c != b'*').count();
        Ok(Self { text: bytes.into(), letters })
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        let (name, glob) = (name.as_bytes(), &*self.text);
        if name.len() < self.letters {
            return false;
        }
        // The place after the last star, and where in the name what it stands for ends.
        let mut star: Option<(usize, usize)> = None;
        let (mut at, mut place) = (0, 0);
        while at < name.len() {
            match glob.get(place) {
                Some(b'*') => {
                    place += 1;
                    star = Some((place, at));
                }
                Some(c) if *c == name[at] => (at, place) = (at + 1, place + 1),
                // An earlier star could not do what the last one can't: both stand for the same bytes.
                _ => match &mut star {
                    Some((after, end)) if in_star(name[*end]) => {
                        *end += 1;
                        (at, place) = (*end, *after);
                    }
                    _ => return false,
                },
            }
        }
        glob[place..].iter().all(|c| *c == b'*')
    }
}

/// A list of globs over DNS names.
pub(super) fn fqdn(values: &[String]) -> Result<Vec<Glob>, InvalidFilter> {
    values.iter().map(|value| Glob::compile(value)).collect()
}

/// `[cluster/]node` over `cluster/node`; a side that is left out is any name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodePattern {
    cluster: Option<Glob>,
    node: Option<Glob>,
}

impl NodePattern {
    pub(super) fn compile(value: &str) -> Result<Self, InvalidFilter> {
        if value.is_empty() {
            return Err(InvalidFilter::new("empty pattern"));
        }
        let (cluster, node) = value.split_once('/').unwrap_or(("", value));
        if node.contains('/') {
            return Err(InvalidFilter::new("too many slashes in pattern"));
        }
        let side = |glob: &str| (!glob.is_empty()).then(|| Glob::compile(glob)).transpose();
        Ok(Self { cluster: side(cluster)?, node: side(node)? })
    }

    /// Hubble: a name without a cluster is of the cluster `default`.
    pub(super) fn matches(&self, name: &str) -> bool {
        let (cluster, node) = name.split_once('/').unwrap_or(("default", name));
        let side = |glob: &Option<Glob>, name| {
            glob.as_ref().map_or_else(|| is_name(name), |glob| glob.matches(name))
        };
        side(&self.cluster, cluster) && side(&self.node, node)
    }
}

/// Lower-case labels with dots between them.
fn is_name(name: &str) -> bool {
    name.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(|c| c != b'.' && (c == b'_' || in_star(c))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The expression that Hubble makes of a glob.
        #[test]
        fn globs_match_what_hubbles_expression_matches(glob in "[ab_.*]{1,8}", name in "[ab_.]{0,10}") {
            prop_assume!(!glob.trim_end_matches('.').is_empty() && !glob.ends_with('.'));
            let expression = format!("^{}$", regex::escape(&glob).replace("\\*", "[-.0-9a-z]*"));
            let wanted = regex::Regex::new(&expression).unwrap().is_match(&name);
            prop_assert_eq!(Glob::compile(&glob).unwrap().matches(&name), wanted);
        }
    }
}
