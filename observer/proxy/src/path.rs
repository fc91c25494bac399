//! Paths that mean the same.

use std::borrow::Cow;

/// The path that a server may take this one for: escapes that need not be are undone, `.` and `..` are followed, and of
/// several slashes one is left. What is behind `?` stays. A rule for paths must allow both, else `/public/../private` would
/// pass where `/public/.*` may.
pub fn normal(target: &str) -> Cow<'_, str> {
    let (path, query) = target.find('?').map_or((target, ""), |at| target.split_at(at));
    let odd = |pair: &[u8]| pair == b"//" || pair == b"/.";
    if !path.contains(['%', '\\']) && !path.as_bytes().windows(2).any(odd) {
        return Cow::Borrowed(target);
    }
    let plain = undone(path);
    let mut kept: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for part in plain.split('/').skip(1) {
        is_folder = matches!(part, "" | "." | "..");
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    let mut normal = String::with_capacity(target.len());
    for part in &kept {
        normal.push('/');
        normal.push_str(part);
    }
    if is_folder || kept.is_empty() {
        normal.push('/');
    }
    normal.push_str(query);
    Cow::Owned(normal)
}

/// Undoes escapes of printable ASCII, and takes backslashes for slashes, as some servers do.
fn undone(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut undone = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let digits = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match value {
            // `%25` would give escapes that nobody wrote, `%3f` a query.
            Some(value) if value.is_ascii_graphic() && value != b'%' && value != b'?' => {
                undone.push(value);
                at += 3;
            }
            _ => {
                undone.push(*byte);
                at += 1;
            }
        }
    }
    let undone: Vec<u8> = undone.into_iter().map(|byte| if byte == b'\\' { b'/' } else { byte }).collect();
    String::from_utf8(undone).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_a_server_takes_it_for() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b?c=/../d", "/a/b?c=/../d"),
            ("/public/../private", "/private"),
            ("/public/%2e%2e/private", "/private"),
            ("/public/%2E./private?x", "/private?x"),
            ("/public/..%2fprivate", "/private"),
            ("/public/..%5cprivate", "/private"),
            ("//a///b/", "/a/b/"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/%61dmin", "/admin"),
            ("/a%252e", "/a%252e"),
            ("/a%3fb", "/a%3fb"),
            ("/a%", "/a%"),
            ("/a%zz%4", "/a%zz%4"),
            ("/.hidden", "/.hidden"),
            ("/%00", "/%00"),
        ] {
            assert_eq!(normal(target), expected, "{target}");
        }
    }
}
