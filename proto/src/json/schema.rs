//! Tables for writer and reader, made once from the compiled descriptors.

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::{cmp::Ordering, collections::HashMap, sync::LazyLock};

/// A message type of this crate's API, or a well-known one; the place of its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType(pub(super) usize);

impl MessageType {
    /// By full name, such as `flow.Flow`.
    pub fn named(full_name: &str) -> Option<Self> {
        SCHEMA.by_name.get(full_name).map(|at| Self(*at))
    }
}

pub(super) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    // The descriptors are made by the build of this crate; a test holds that they decode.
    Schema::new(&FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap_or_default())
});

#[derive(Default)]
pub(super) struct Schema {
    pub(super) messages: Vec<Message>,
    pub(super) enums: Vec<Enum>,
    /// All of them, see [`Message::start`].
    pub(super) places: usize,
    by_name: HashMap<String, usize>,
}

pub(super) struct Message {
    pub(super) form: Form,
    /// The places of its fields, and one more, among those of all messages.
    pub(super) start: usize,
    /// In the order of declaration, which is the order of the JSON.
    pub(super) fields: Vec<Field>,
    /// Field number and place in `fields`, by number.
    by_number: Vec<(u32, u16)>,
    /// The places of low numbers, which nearly all fields have, by number.
    low: Vec<Option<u16>>,
    /// For each oneof the places of its members.
    pub(super) oneofs: Vec<Vec<u16>>,
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
        let is_named = |field: &Field| field.name() == name;
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

/// Numbers of fields below this are looked up without a search.
const LOW_NUMBERS: usize = 64;

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
    pub(super) key: Vec<u8>,
    /// The name in camelCase.
    json_name: Vec<u8>,
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

    /// Only descriptors are of proto2, and those are printed as Go's plain encoder does: whatever is set, and enums by number.
    fn as_in_proto2(&mut self) {
        self.explicit = true;
        if matches!(self.kind, Kind::Enum(_)) {
            self.kind = Kind::Int32;
        }
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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
}

pub(super) struct Enum {
    /// Number and name, by number; of two names the first declared.
    values: Vec<(i32, String)>,
    /// All names, in the order of their lengths first: to compare these is quicker.
    by_name: Vec<(String, i32, Spelling)>,
    /// `google.protobuf.NullValue` is JSON's null.
    pub(super) is_null: bool,
}

impl Enum {
    pub(super) fn name(&self, number: i32) -> Option<&str> {
        let at = self.values.binary_search_by_key(&number, |row| row.0).ok()?;
        Some(&self.values[at].1)
    }

    pub(super) fn number(&self, name: &[u8]) -> Option<(i32, Spelling)> {
        let at = self.by_name.binary_search_by(|row| by_length(row.0.as_bytes(), name)).ok()?;
        Some((self.by_name[at].1, self.by_name[at].2))
    }
}

impl Schema {
    fn new(files: &FileDescriptorSet) -> Self {
        let mut messages = Vec::new();
        let mut enums = Vec::new();
        for file in &files.file {
            for message in &file.message_type {
                collect(file, file.package(), message, &mut messages, &mut enums);
            }
            enums.extend(file.enum_type.iter().map(|one| (join(file.package(), one.name()), one)));
        }
        let by_name: HashMap<String, usize> =
            messages.iter().enumerate().map(|(at, (name, ..))| (name.clone(), at)).collect();
        let enum_places: HashMap<&str, usize> =
            enums.iter().enumerate().map(|(at, (name, _))| (name.as_str(), at)).collect();
        let mut places = 0;
        let messages = messages.iter().map(|(name, message, file)| {
            let mut message = Message::new(name, message, places, &by_name, &enum_places);
            if file.syntax() != "proto3" {
                message.fields.iter_mut().for_each(Field::as_in_proto2);
            }
            places += message.fields.len() + 1;
            message
        });
        Self {
            messages: messages.collect(),
            enums: enums.iter().map(|(name, one)| Enum::new(name, one)).collect(),
            places,
            by_name,
        }
    }
}

fn collect<'a>(
    file: &'a FileDescriptorProto,
    scope: &str,
    message: &'a DescriptorProto,
    messages: &mut Vec<(String, &'a DescriptorProto, &'a FileDescriptorProto)>,
    enums: &mut Vec<(String, &'a EnumDescriptorProto)>,
) {
    let name = join(scope, message.name());
    for nested in &message.nested_type {
        collect(file, &name, nested, messages, enums);
    }
    enums.extend(message.enum_type.iter().map(|one| (join(&name, one.name()), one)));
    messages.push((name, message, file));
}

fn by_length(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

impl Enum {
    fn new(name: &str, descriptor: &EnumDescriptorProto) -> Self {
        let mut values: Vec<(i32, String)> =
            descriptor.value.iter().map(|value| (value.number(), value.name().to_owned())).collect();
        let names = values.clone();
        values.sort_by_key(|row| row.0);
        values.dedup_by_key(|row| row.0);
        let mut found = Self { values, by_name: Vec::new(), is_null: name == "google.protobuf.NullValue" };
        let by_name = names.into_iter().map(|(number, name)| {
            let is_written = found.name(number) == Some(&name);
            (name, number, if is_written { Spelling::Written } else { Spelling::Other })
        });
        let mut by_name: Vec<_> = by_name.collect();
        by_name.sort_unstable_by(|one, other| by_length(one.0.as_bytes(), other.0.as_bytes()));
        found.by_name = by_name;
        found
    }
}

impl Message {
    fn new(
        name: &str,
        descriptor: &DescriptorProto,
        start: usize,
        messages: &HashMap<String, usize>,
        enums: &HashMap<&str, usize>,
    ) -> Self {
        let mut fields = Vec::new();
        let mut by_number = Vec::new();
        let mut oneofs = vec![Vec::new(); descriptor.oneof_decl.len()];
        for descriptor in &descriptor.field {
            let Some(kind) = Kind::of(descriptor, messages, enums) else { continue };
            let (Ok(number), Ok(place)) = (u32::try_from(descriptor.number()), u16::try_from(fields.len()))
            else {
                continue;
            };
            let oneof = descriptor.oneof_index.and_then(|at| u16::try_from(at).ok());
            if let Some(members) = oneof.and_then(|at| oneofs.get_mut(usize::from(at))) {
                members.push(place);
            }
            by_number.push((number, place));
            fields.push(Field {
                number,
                key: format!("\"{}\":", descriptor.name()).into_bytes(),
                json_name: descriptor.json_name().as_bytes().to_vec(),
                kind,
                repeated: descriptor.label() == Label::Repeated,
                oneof,
                explicit: oneof.is_some(),
            });
        }
        by_number.sort_unstable();
        let mut low = vec![None; LOW_NUMBERS];
        for (number, place) in &by_number {
            if let Some(slot) = low.get_mut(*number as usize) {
                *slot = Some(*place);
            }
        }
        Self { form: Form::of(name), start, fields, by_number, low, oneofs, recurs: name == "flow.Endpoint" }
    }
}

impl Form {
    fn of(name: &str) -> Self {
        match name.strip_prefix("google.protobuf.") {
            Some("Timestamp") => Self::Timestamp,
            Some("Duration") => Self::Duration,
            Some("FieldMask") => Self::FieldMask,
            Some("Any") => Self::Any,
            Some("Struct") => Self::Struct,
            Some("Value") => Self::Value,
            Some("ListValue") => Self::ListValue,
            Some(wrapper) if wrapper.ends_with("Value") => Self::Wrapper,
            _ => Self::Object,
        }
    }
}

impl Kind {
    fn of(
        descriptor: &FieldDescriptorProto,
        messages: &HashMap<String, usize>,
        enums: &HashMap<&str, usize>,
    ) -> Option<Self> {
        let target = descriptor.type_name().trim_start_matches('.');
        Some(match descriptor.r#type() {
            Type::Double => Self::Double,
            Type::Float => Self::Float,
            Type::Int32 => Self::Int32,
            Type::Int64 => Self::Int64,
            Type::Uint32 => Self::Uint32,
            Type::Uint64 => Self::Uint64,
            Type::Sint32 => Self::Sint32,
            Type::Sint64 => Self::Sint64,
            Type::Fixed32 => Self::Fixed32,
            Type::Fixed64 => Self::Fixed64,
            Type::Sfixed32 => Self::Sfixed32,
            Type::Sfixed64 => Self::Sfixed64,
            Type::Bool => Self::Bool,
            Type::String => Self::String,
            Type::Bytes => Self::Bytes,
            Type::Enum => Self::Enum(*enums.get(target)?),
            Type::Message => Self::Message(*messages.get(target)?),
            // proto3 has no groups.
            Type::Group => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_every_message_has_a_row_and_no_map_but_a_struct_exists() {
        let files = FileDescriptorSet::decode(crate::DESCRIPTORS).unwrap();
        let mut messages = Vec::new();
        for file in &files.file {
            for message in &file.message_type {
                collect(file, file.package(), message, &mut messages, &mut Vec::new());
            }
        }
        assert!(messages.len() > 70);
        for (name, message, _) in messages {
            let table = &SCHEMA.messages[MessageType::named(&name).unwrap().0];
            assert_eq!(table.fields.len(), message.field.len(), "{name}");
            let is_map = message.options.as_ref().is_some_and(prost_types::MessageOptions::map_entry);
            assert_eq!(is_map, name == "google.protobuf.Struct.FieldsEntry", "{name}");
        }
    }
}
