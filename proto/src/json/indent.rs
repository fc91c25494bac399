//! JSON over many lines, as Go indents it by two blanks.

/// Indents JSON that has no blanks between its parts.
pub fn indented(compact: &str) -> String {
    let mut out = String::with_capacity(compact.len() * 2);
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut chars = compact.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        (0..depth).for_each(|_| out.push_str("  "));
    };
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '\\' if in_text => out.extend(chars.next()),
            '"' => in_text = !in_text,
            _ if in_text => {}
            // Nothing in it: it stays together.
            '{' | '[' if chars.peek().is_some_and(|next| matches!(next, '}' | ']')) => {
                out.extend(chars.next());
            }
            '{' | '[' => {
                depth += 1;
                new_line(&mut out, depth);
            }
            ',' => new_line(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
        if !in_text && chars.peek().is_some_and(|next| matches!(next, '}' | ']')) {
            depth = depth.saturating_sub(1);
            new_line(&mut out, depth);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_does_it() {
        assert_eq!(
            indented(r#"[{},{"a":"x,{}:\\\"]","b":[1,{"c":[]}]}]"#),
            "[\n  {},\n  {\n    \"a\": \"x,{}:\\\\\\\"]\",\n    \"b\": [\n      1,\n      {\n        \"c\": []\n      }\n    ]\n  }\n]"
        );
        assert_eq!(indented("[]"), "[]");
    }
}
