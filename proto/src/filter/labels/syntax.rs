//! Reads selectors. Hubble turns a key `k8s:app` into `k8s.app` and `app` into `any.app`, has Kubernetes read the selector,
//! and takes what stands before a key's first dot for its source; what is wrong is told of the turned text.

use super::{Operator, Requirement};
use crate::filter::go::quote;
use std::collections::BTreeSet;

const MOST_NAME: usize = 63;
const MOST_PREFIX: usize = 253;
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// Kubernetes' words for names that it refuses.
mod words {
    pub(super) const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
        an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
        '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    pub(super) const PREFIX: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
        characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
        validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    pub(super) const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' \
        or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
        used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
}

pub(super) fn parse(selector: &str) -> Result<Vec<Requirement>, String> {
    let text = with_sources(selector);
    let mut parser = Parser { rest: &text };
    let mut requirements = Vec::new();
    loop {
        match parser.peek() {
            "" => return Ok(requirements),
            token @ ("=" | "==" | "!=" | "," | "(" | ")" | "<" | ">") => {
                return Err(format!("found '{token}', expected: !, identifier, or 'end of string'"));
            }
            _ => {}
        }
        let requirement =
            parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
        requirements.push(requirement);
        match parser.next() {
            "" => return Ok(requirements),
            "," => {}
            token => return Err(format!("found '{token}', expected: ',' or 'end of string'")),
        }
        if let token @ ("" | "=" | "==" | "!=" | "," | "(" | ")" | "<" | ">") = parser.peek() {
            return Err(format!("found '{token}', expected: identifier after ','"));
        }
    }
}

/// Each key behind its source and a dot.
fn with_sources(selector: &str) -> String {
    let mut out = String::with_capacity(selector.len() + 8);
    let mut rest = selector;
    while !rest.is_empty() {
        let key = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '!');
        out.push_str(&rest[..rest.len() - key.len()]);
        if key.is_empty() && !rest.is_empty() {
            out.push_str("any.");
            break;
        }
        let end = key.find(|c: char| c.is_whitespace() || "=!,".contains(c)).unwrap_or(key.len());
        let (key, after) = key.split_at(end);
        match key.split_once(':') {
            Some((source, key)) => out.extend([source, ".", key]),
            None => out.extend(["any.", key]),
        }
        let mut depth = 0;
        let comma = after.find(|c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        let (requirement, further) = after.split_at(comma.map_or(after.len(), |comma| comma + 1));
        out.push_str(requirement);
        rest = further;
    }
    out
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// A symbol, a word, or nothing at the end.
    fn next(&mut self) -> &'a str {
        const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        self.rest = self.rest.trim_start_matches(blank);
        let symbol = SYMBOLS.iter().find(|symbol| self.rest.starts_with(**symbol));
        let length = symbol.map_or_else(
            || self.rest.find(|c: char| blank(c) || "=!(),><\0".contains(c)).unwrap_or(self.rest.len()),
            |symbol| symbol.len(),
        );
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        token
    }

    fn peek(&self) -> &'a str {
        Parser { rest: self.rest }.next()
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut absent, mut key) = (false, self.next());
        if key == "!" {
            (absent, key) = (true, self.next());
        }
        if !is_word(key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        check_key(key)?;
        let operator = match self.peek() {
            _ if absent => Operator::NotExists,
            "" | "," => Operator::Exists,
            _ => self.operator(key)?,
        };
        let (source, name) = key.split_once('.').unwrap_or(("any", key));
        Ok(Requirement {
            source: (source != "any").then(|| source.to_owned()),
            key: name.to_owned(),
            operator,
        })
    }

    fn operator(&mut self, key: &str) -> Result<Operator, String> {
        let operator = self.next();
        let values = match operator {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => self.value()?,
            _ => return Err(format!("found '{operator}', expected: {OPERATORS}")),
        };
        let mut faults = Vec::new();
        let number = values.iter().next().and_then(|value| value.parse::<i64>().ok());
        if matches!(operator, ">" | "<") && number.is_none() {
            let value = values.iter().next().map_or("", |value| value);
            let why = "for 'Gt', 'Lt' operators, the value must be an integer";
            faults.push(format!("values[0]: Invalid value: {}: {why}", quote(value)));
        }
        for (index, value) in values.iter().enumerate() {
            if let Some(why) = value_fault(value) {
                faults.push(format!("values[{index}][{key}]: Invalid value: {}: {why}", quote(value)));
            }
        }
        match faults.as_slice() {
            [] => {}
            [fault] => return Err(fault.clone()),
            faults => return Err(format!("[{}]", faults.join(", "))),
        }
        let values = values.into_iter().map(str::to_owned).collect();
        Ok(match operator {
            ">" => Operator::Greater(number.unwrap_or_default()),
            "<" => Operator::Less(number.unwrap_or_default()),
            "!=" | "notin" => Operator::NotIn(values),
            _ => Operator::In(values),
        })
    }

    fn value(&mut self) -> Result<BTreeSet<&'a str>, String> {
        if matches!(self.peek(), "" | ",") {
            return Ok(BTreeSet::from([""]));
        }
        match self.next() {
            word if is_word(word) => Ok(BTreeSet::from([word])),
            token => Err(format!("found '{token}', expected: identifier")),
        }
    }

    /// `(a, b)`; where nothing stands before a comma or bracket, the empty value.
    fn values(&mut self) -> Result<BTreeSet<&'a str>, String> {
        match self.next() {
            "(" => {}
            token => return Err(format!("found '{token}' expected: '('")),
        }
        let mut values = BTreeSet::new();
        match self.peek() {
            ")" | "," => _ = values.insert(""),
            word if is_word(word) => {}
            token => return Err(format!("found '{token}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.next() {
                ")" => return Ok(values),
                "," => {
                    if matches!(self.peek(), "," | ")") {
                        values.insert("");
                    }
                }
                word if is_word(word) => {
                    values.insert(word);
                    if !matches!(self.peek(), "," | ")") {
                        return Err(format!("found '{}', expected: ',' or ')'", self.peek()));
                    }
                }
                token => return Err(format!("found '{token}', expected: ',', or identifier")),
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    !matches!(token, "" | "=" | "==" | "!=" | "!" | "(" | ")" | "," | ">" | "<")
}

/// `[prefix/]name`.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) => (Some(prefix), name),
    };
    let mut faults = Vec::new();
    if name.contains('/') {
        let example = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
        faults.push(format!("a valid label key {} {example}", words::NAME));
    } else {
        if let Some(prefix) = prefix {
            if prefix.len() > MOST_PREFIX {
                faults.push(format!("prefix part must be no more than {MOST_PREFIX} bytes"));
            }
            let valid =
                |part: &str| is_name(part) && !part.contains(|c: char| c == '_' || c.is_ascii_uppercase());
            if !prefix.split('.').all(valid) {
                faults.push(words::PREFIX.to_owned());
            }
        }
        if name.is_empty() {
            faults.push("name part must be non-empty".to_owned());
        } else if name.len() > MOST_NAME {
            faults.push(format!("name part must be no more than {MOST_NAME} bytes"));
        }
        if !is_name(name) {
            faults.push(format!("name part {}", words::NAME));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("<nil>: Invalid value: {}: {}", quote(key), faults.join("; ")))
}

fn value_fault(value: &str) -> Option<String> {
    let long = (value.len() > MOST_NAME).then(|| format!("must be no more than {MOST_NAME} bytes"));
    let wrong = (!value.is_empty() && !is_name(value)).then(|| words::VALUE.to_owned());
    let faults: Vec<_> = long.into_iter().chain(wrong).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

fn is_name(name: &str) -> bool {
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    alphanumeric(name.chars().next())
        && alphanumeric(name.chars().last())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
