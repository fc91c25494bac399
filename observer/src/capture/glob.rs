//! Patterns of link names.

use std::str::FromStr;

/// A pattern of interface names: `*` stands for any run of characters, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Whether `name` is of this pattern.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        let mut rest = rest;
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(pattern: &str) -> Result<Self, String> {
        // IFNAMSIZ is 16 with the closing NUL; a longer literal can match nothing.
        let literal = pattern.chars().filter(|c| *c != '*').count();
        if pattern.is_empty() || literal > 15 || pattern.contains('/') {
            return Err(format!(
                "`{pattern}` matches no interface name: give a name of 1 to 15 characters, `*` for any run"
            ));
        }
        Ok(Self(pattern.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (pattern, name, matches) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth01", true),
            ("*", "anything", true),
            ("cali*x", "cali12x", true),
            ("cali*x", "calix", true),
            ("cali*x", "cali12y", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXc", false),
            ("ab*bc", "abc", false),
        ] {
            let glob: Glob = pattern.parse().unwrap();
            assert_eq!(glob.matches(name), matches, "{pattern} on {name}");
        }
        assert!("".parse::<Glob>().is_err());
        assert!("0123456789abcdef".parse::<Glob>().is_err());
    }
}
