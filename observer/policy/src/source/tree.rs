//! YAML and JSON as a tree whose every node knows its place, within bounds that hold whatever the text is.

use super::Fault;
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};
use hashbrown::{HashMap, HashSet};

/// The deepest field of a policy is at 14.
const MAX_DEPTH: usize = 40;
/// Ten thousand policies of a usual size have 400,000 nodes.
const MAX_NODES: usize = 4_000_000;
/// What aliases may copy: a few shared selectors are harmless, a bomb is millions.
const MAX_COPIED: usize = 50_000;
/// The API server takes no object above 3 MiB, so a longer line holds no policy.
const MAX_LINE: usize = 4 << 20;

/// One value and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// What a value can be. Numbers other than integers stand nowhere in a policy.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float,
    Text(Box<str>),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Box<str>,
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// Reads every document of a text.
pub(crate) fn read(text: &str) -> Result<Vec<Node>, Fault> {
    for (number, line) in text.split('\n').enumerate() {
        if line.len() > MAX_LINE {
            let problem = format!("a line of {} bytes; at most {MAX_LINE} are read, break it", line.len());
            return Err(Fault { line: number as u64 + 1, column: 1, path: String::new(), problem });
        }
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    Builder::default().run(Parser::new_from_str_with_options(text, options))
}

/// What is open around the next event.
enum Open {
    List {
        at: Span,
        anchor: usize,
        before: usize,
        items: Vec<Node>,
    },
    Map {
        at: Span,
        anchor: usize,
        before: usize,
        entries: Vec<(Key, Node)>,
        seen: HashSet<Box<str>>,
        key: Option<Key>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    documents: Vec<Node>,
    /// Anchored values with the number of their nodes, dropped with the document.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    copied: usize,
}

impl Builder {
    fn run<'a>(
        mut self,
        events: impl Iterator<Item = Result<(Event<'a>, Span), ScanError>>,
    ) -> Result<Vec<Node>, Fault> {
        for event in events {
            let (event, at) = event.map_err(|error| {
                let marker = error.marker();
                let problem = match error.kind() {
                    ErrorKind::RecursionLimitExceeded => too_deep(),
                    kind => format!("{kind}; write valid YAML or JSON here"),
                };
                Fault {
                    line: marker.line() as u64,
                    column: marker.col() as u64 + 1,
                    path: String::new(),
                    problem,
                }
            })?;
            self.event(event, at)?;
        }
        Ok(self.documents)
    }

    fn event(&mut self, event: Event<'_>, at: Span) -> Result<(), Fault> {
        let before = self.nodes;
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let value =
                    if matches!(style, ScalarStyle::Plain) { plain(&text) } else { text_value(&text) };
                self.count(1, at)?;
                self.close(node(value, at), anchor, before, Some(&text))
            }
            Event::SequenceStart(_, anchor, _) => {
                self.count(1, at)?;
                self.deepen(at)?;
                self.open.push(Open::List { at, anchor, before, items: Vec::new() });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.count(1, at)?;
                self.deepen(at)?;
                let (entries, seen) = (Vec::new(), HashSet::new());
                self.open.push(Open::Map { at, anchor, before, entries, seen, key: None });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { at, anchor, before, items }) => {
                    self.close(node(Value::List(items), at), anchor, before, None)
                }
                Some(Open::Map { at, anchor, before, entries, .. }) => {
                    self.close(node(Value::Map(entries), at), anchor, before, None)
                }
                None => Ok(()),
            },
            Event::Alias(id) => {
                let Some((_, size)) = self.anchors.get(&id) else {
                    return Err(fault(at, "an alias inside of what it stands for; write the value out"));
                };
                self.copied += size;
                if self.copied > MAX_COPIED {
                    let problem =
                        format!("aliases that stand for more than {MAX_COPIED} values; write them out");
                    return Err(fault(at, &problem));
                }
                self.nodes += size;
                let copy = self.anchors.get(&id).map(|(node, _)| node.clone());
                copy.map_or(Ok(()), |copy| self.close(copy, 0, before, None))
            }
            Event::DocumentStart(..) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn count(&mut self, more: usize, at: Span) -> Result<(), Fault> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(fault(at, &format!("more than {MAX_NODES} values in one file; split it")));
        }
        Ok(())
    }

    fn deepen(&self, at: Span) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(fault(at, &too_deep()));
        }
        Ok(())
    }

    /// Puts a finished value where it belongs.
    fn close(&mut self, done: Node, anchor: usize, before: usize, text: Option<&str>) -> Result<(), Fault> {
        if anchor != 0 {
            let size = self.nodes - before;
            self.copied += size;
            if self.copied > MAX_COPIED {
                let problem = format!("anchors on more than {MAX_COPIED} values; write them out");
                return Err(fault_at(&done, &problem));
            }
            self.anchors.insert(anchor, (done.clone(), size));
        }
        match self.open.last_mut() {
            None => self.documents.push(done),
            Some(Open::List { items, .. }) => items.push(done),
            Some(Open::Map { entries, seen, key, .. }) => {
                if let Some(key) = key.take() {
                    entries.push((key, done));
                    return Ok(());
                }
                let Some(name) = text else { return Err(fault_at(&done, "a key must be a text")) };
                if name == "<<" {
                    return Err(fault_at(&done, "merge keys are not supported; write the fields out"));
                }
                if !seen.insert(name.into()) {
                    return Err(fault_at(&done, &format!("{name} stands here twice; keep one")));
                }
                *key = Some(Key { name: name.into(), line: done.line, column: done.column });
            }
        }
        Ok(())
    }
}

fn node(value: Value, at: Span) -> Node {
    Node { value, line: at.start.line() as u64, column: at.start.col() as u64 + 1 }
}

fn fault(at: Span, problem: &str) -> Fault {
    fault_at(&node(Value::Null, at), problem)
}

fn fault_at(node: &Node, problem: &str) -> Fault {
    Fault { line: node.line, column: node.column, path: String::new(), problem: problem.to_owned() }
}

fn too_deep() -> String {
    format!("nested deeper than {MAX_DEPTH}; no policy is")
}

fn text_value(text: &str) -> Value {
    Value::Text(text.into())
}

/// A word without quotes, by the rules of the YAML reader that Kubernetes' tools share (YAML 1.1: `yes` is a truth value).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        ".inf" | "-.inf" | "+.inf" | ".nan" | ".NaN" | ".NAN" => return Value::Float,
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return text_value(text);
    }
    let bare = digits.replace('_', "");
    let number = match bare.get(..2) {
        Some("0x") => i64::from_str_radix(&bare[2..], 16).ok(),
        Some("0b") => i64::from_str_radix(&bare[2..], 2).ok(),
        Some("0o") => i64::from_str_radix(&bare[2..], 8).ok(),
        _ if bare.len() > 1 && bare.starts_with('0') => i64::from_str_radix(&bare, 8).ok(),
        _ => bare.parse().ok(),
    };
    match number {
        Some(number) => Value::Int(if text.starts_with('-') { -number } else { number }),
        None if bare.parse::<f64>().is_ok() => Value::Float,
        None => text_value(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    #[test]
    fn words_become_what_the_api_servers_tools_make_of_them() {
        for (text, expected) in [
            ("80", "Int(80)"),
            ("-1", "Int(-1)"),
            ("010", "Int(8)"),
            ("0x50", "Int(80)"),
            ("yes", "Bool(true)"),
            ("off", "Bool(false)"),
            ("~", "Null"),
            ("1.5", "Float"),
            ("1e3", "Float"),
            ("10.0.0.0/8", r#"Text("10.0.0.0/8")"#),
            ("1.2.3", r#"Text("1.2.3")"#),
            ("web", r#"Text("web")"#),
            ("\"80\"", r#"Text("80")"#),
        ] {
            let documents = read(&format!("x: {text}\n")).unwrap();
            let Value::Map(entries) = &documents[0].value else { panic!("no map") };
            assert_eq!(format!("{:?}", entries[0].1.value), expected, "{text}");
        }
    }

    #[test]
    fn json_with_tabs_is_read_and_places_are_told() {
        let documents = read("{\n\t\"a\": [\n\t\t1,\n\t\t{\"b\": \"c\"}\n\t]\n}\n").unwrap();
        let Value::Map(entries) = &documents[0].value else { panic!("no map") };
        let Value::List(items) = &entries[0].1.value else { panic!("no list") };
        assert_eq!((items[1].line, items[1].column), (4, 3));
    }

    /// Bombs are refused by what they would make, so this counts that and no time.
    #[test]
    fn bombs_long_lines_and_deep_nesting_are_refused_before_they_grow() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            writeln!(bomb, "a{n}: &a{n} [{aliases}]").unwrap();
        }
        let anchors = format!("{}x{}", "&a [".repeat(30), "]".repeat(30));
        let long = format!("spec: {}", "x".repeat(10 << 20));
        let deep = "[".repeat(100_000);
        let blocks = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<Vec<_>>().concat();
        for (text, word) in [(bomb, "aliases"), (long, "bytes"), (deep, "nest"), (blocks, "nest")] {
            let fault = read(&text).unwrap_err();
            assert!(fault.problem.contains(word), "{}", fault.problem);
        }
        // Thirty anchors around each other copy at most the square of that.
        let _ = read(&anchors);

        let mut builder = Builder::default();
        let mut bomb = String::from("- &a [x, x, x, x, x, x, x, x, x, x]\n");
        bomb.push_str(&"- [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n".repeat(10_000));
        let mut parser = Parser::new_from_str(&bomb);
        let refused = parser.try_for_each(|event| {
            let (event, at) = event.map_err(|_| ())?;
            builder.event(event, at).map_err(|_| ())
        });
        assert!(refused.is_err() && builder.nodes < 2 * MAX_COPIED, "{} nodes were made", builder.nodes);
    }

    #[test]
    fn a_key_stands_once_and_aliases_within_bounds_work() {
        assert!(read("a: 1\na: 2\n").unwrap_err().problem.contains("twice"));
        let documents = read("a: &x {b: 1}\nc: *x\n---\nd: 2\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert!(read("a: &x {b: 1}\n---\nc: *x\n").is_err());
        assert!(read("base: &x {b: 1}\nc:\n  <<: *x\n").unwrap_err().problem.contains("merge"));
    }
}
