//! Tables for writer and reader, made from the descriptors when this crate is built.

use super::words::is_same;

/// A message type of this crate's API, or a well-known one; the place of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(pub(super) usize);

impl MessageType {
    /// By full name, such as `flow.Flow`.
    pub fn named(full_name: &str) -> Option<Self> {
        let at = SCHEMA.by_name.binary_search_by_key(&full_name, |row| row.0).ok()?;
        Some(Self(SCHEMA.by_name[at].1))
    }
}

/// Made by `build/tables.rs`.
#[allow(clippy::unreadable_literal, reason = "nobody reads them")]
pub(super) static SCHEMA: Schema = include!(concat!(env!("OUT_DIR"), "/json_tables.rs"));

pub(super) struct Schema {
    pub(super) messages: &'static [Message],
    pub(super) enums: &'static [Enum],
    /// All of them, see [`Message::start`].
    pub(super) places: usize,
    /// Full names of messages and their places, by name.
    by_name: &'static [(&'static str, usize)],
}

pub(super) struct Message {
    pub(super) form: Form,
    /// The places of its fields, and one more, among those of all messages.
    pub(super) start: usize,
    /// In the order of declaration, which is the order of the JSON.
    pub(super) fields: &'static [Field],
    /// Field number and place in `fields`, by number.
    by_number: &'static [(u32, u16)],
    /// The places of low numbers, which nearly all fields have, by number.
    low: &'static [Option<u16>],
    /// For each oneof the places of its members.
    pub(super) oneofs: &'static [&'static [u16]],
    /// The same few come again and again: what was made of one is worth keeping.
    pub(super) recurs: bool,
}

impl Message {
    pub(super) fn place_of(&self, number: u32) -> Option<usize> {
        if let Some(place) = self.low.get(number as usize) {
            return place.map(usize::from);
        }
        let at = self.by_number.binary_search_by_key(&number, |row| row.0).ok()?;
        Some(usize::from(self.by_number[at].1))
    }

    /// By the name that is written, which is looked for from the place `next` on first; else by the other one.
    pub(super) fn place_by_name(&self, name: &[u8], next: usize) -> Option<(usize, Spelling)> {
        let is_named = |field: &Field| is_same(field.name(), name);
        let (before, from) = self.fields.split_at_checked(next)?;
        let place = from.iter().position(is_named).map(|at| next + at);
        let place = place.or_else(|| before.iter().position(is_named));
        place.map(|place| (place, Spelling::Written)).or_else(|| {
            let place = self.fields.iter().position(|field| field.json_name == name);
            place.map(|place| (place, Spelling::Other))
        })
    }
}

/// Names of fields and enums may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    Written,
    Other,
}

/// How a message looks in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Object,
    Timestamp,
    Duration,
    Wrapper,
    FieldMask,
    Any,
    Struct,
    Value,
    ListValue,
}

pub(super) struct Field {
    pub(super) number: u32,
    /// `"name":`, ready to copy. Names are identifiers, nothing in them needs escaping.
    pub(super) key: &'static [u8],
    /// The name in camelCase.
    json_name: &'static [u8],
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// The oneof it belongs to.
    pub(super) oneof: Option<u16>,
    /// Whether it is written even when it holds the default: members of oneofs, and all of proto2.
    pub(super) explicit: bool,
}

impl Field {
    #[inline]
    pub(super) fn name(&self) -> &[u8] {
        &self.key[1..self.key.len() - 2]
    }

    /// Whether JSON's null is a value of it.
    pub(super) fn takes_null(&self) -> bool {
        match self.kind {
            Kind::Message(at) => SCHEMA.messages[at].form == Form::Value,
            Kind::Enum(at) => SCHEMA.enums[at].is_null,
            _ => false,
        }
    }
}

/// What a field holds; the kinds that no message of this API has are left out, which its build would tell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
}

pub(super) struct Enum {
    /// Number and name, by number; of two names the first declared.
    values: &'static [(i32, &'static str)],
    /// All names, the short ones first.
    by_name: &'static [(&'static str, i32, Spelling)],
    /// For each length from 0 where the names begin in `by_name` that have it, and where the longest end.
    by_length: &'static [u16],
    /// `google.protobuf.NullValue` is JSON's null.
    pub(super) is_null: bool,
}

impl Enum {
    pub(super) fn name(&self, number: i32) -> Option<&str> {
        let at = self.values.binary_search_by_key(&number, |row| row.0).ok()?;
        Some(self.values[at].1)
    }

    pub(super) fn number(&self, name: &[u8]) -> Option<(i32, Spelling)> {
        let [from, to] = *self.by_length.get(name.len()..)?.first_chunk()?;
        let names = self.by_name.get(from.into()..to.into())?;
        let found = names.iter().find(|row| is_same(row.0.as_bytes(), name))?;
        Some((found.1, found.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    fn collect<'a>(
        scope: &str,
        message: &'a DescriptorProto,
        found: &mut Vec<(String, &'a DescriptorProto)>,
    ) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| collect(&name, nested, found));
        found.push((name, message));
    }

    #[test]
    fn every_field_of_every_message_has_a_row_and_no_map_but_a_struct_exists() {
        let files = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let mut messages = Vec::new();
        for file in &files.file {
            for message in &file.message_type {
                collect(file.package(), message, &mut messages);
            }
        }
        assert!(messages.len() > 70);
        for (name, message) in messages {
            let table = &SCHEMA.messages[MessageType::named(&name).unwrap().0];
            assert_eq!(table.fields.len(), message.field.len(), "{name}");
            let is_map = message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
            assert_eq!(is_map, name == "google.protobuf.Struct.FieldsEntry", "{name}");
        }
    }
}
