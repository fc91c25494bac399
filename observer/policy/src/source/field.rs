//! A cursor on the tree that knows its path, so that every fault names field and line.

use super::{
    Fault,
    tree::{Key, Node, Value},
};
use std::fmt::Display;

/// A result of reading a field.
pub(crate) type Read<T> = Result<T, Fault>;

/// A value in a document, and its path there.
#[derive(Clone, Debug)]
pub(crate) struct Field<'a> {
    node: &'a Node,
    path: String,
}

/// A mapping whose fields are all known.
#[derive(Clone, Debug)]
pub(crate) struct Map<'a> {
    entries: &'a [(Key, Node)],
    pub(crate) whole: Field<'a>,
}

impl<'a> Field<'a> {
    pub(crate) fn document(node: &'a Node) -> Self {
        Self { node, path: String::new() }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn line(&self) -> u64 {
        self.node.line
    }

    pub(crate) fn fault(&self, problem: impl Display) -> Fault {
        let (line, column) = (self.node.line, self.node.column);
        Fault { line, column, path: self.path.clone(), problem: problem.to_string() }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.node.value, Value::Null)
    }

    /// The mapping here; a field that is not `known` is a fault, one of `refused` with its own reason.
    pub(crate) fn map(&self, known: &[&str], refused: &[(&str, &str)]) -> Read<Map<'a>> {
        let map = self.any_map()?;
        for (key, _) in map.entries {
            if known.contains(&&*key.name) {
                continue;
            }
            let path = self.join(&key.name);
            let reason = refused.iter().find(|(name, _)| *name == &*key.name);
            let problem = match reason {
                Some((_, reason)) => (*reason).to_owned(),
                None => format!("no such field; known here: {}", known.join(", ")),
            };
            return Err(Fault { line: key.line, column: key.column, path, problem });
        }
        Ok(map)
    }

    /// The mapping here, whatever its keys are.
    pub(crate) fn any_map(&self) -> Read<Map<'a>> {
        match &self.node.value {
            Value::Map(entries) => Ok(Map { entries, whole: self.clone() }),
            _ => Err(self.fault(format!("{} where a mapping such as {{name: x}} belongs", self.kind()))),
        }
    }

    pub(crate) fn list(&self) -> Read<Vec<Field<'a>>> {
        let Value::List(items) = &self.node.value else {
            return Err(self.fault(format!("{} where a list such as [x, y] belongs", self.kind())));
        };
        let field = |(n, node)| Field { node, path: format!("{}[{n}]", self.path) };
        Ok(items.iter().enumerate().map(field).collect())
    }

    pub(crate) fn text(&self) -> Read<&'a str> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            Value::Null | Value::List(_) | Value::Map(_) => {
                Err(self.fault(format!("{} where a text belongs", self.kind())))
            }
            _ => Err(self.fault(format!("{} where a text belongs; put it in quotes", self.kind()))),
        }
    }

    pub(crate) fn boolean(&self) -> Read<bool> {
        match self.node.value {
            Value::Bool(value) => Ok(value),
            _ => Err(self.fault(format!("{} where true or false belongs", self.kind()))),
        }
    }

    pub(crate) fn int(&self) -> Read<i64> {
        self.as_int().ok_or_else(|| self.fault(format!("{} where a whole number belongs", self.kind())))
    }

    pub(crate) fn as_int(&self) -> Option<i64> {
        match self.node.value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self.node.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a truth value",
            Value::Int(_) | Value::Float => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl<'a> Map<'a> {
    /// The field of that name; one that is null counts as absent, as the API server has it.
    pub(crate) fn get(&self, name: &str) -> Option<Field<'a>> {
        let (_, node) = self.entries.iter().find(|(key, _)| &*key.name == name)?;
        let field = Field { node, path: self.whole.join(name) };
        (!field.is_null()).then_some(field)
    }

    pub(crate) fn need(&self, name: &str, what: &str) -> Read<Field<'a>> {
        self.get(name).ok_or_else(|| {
            let (line, column) = (self.whole.node.line, self.whole.node.column);
            Fault { line, column, path: self.whole.join(name), problem: format!("missing; write {what}") }
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.iter().all(|(_, node)| matches!(node.value, Value::Null))
    }

    /// Keys and values of a mapping from any text.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + '_ {
        self.entries.iter().map(|(key, node)| (&*key.name, Field { node, path: self.whole.join(&key.name) }))
    }
}
