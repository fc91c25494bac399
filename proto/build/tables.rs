//! The tables that JSON is written and read by, as Rust: a program that reads one flow should not make them first.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use std::{collections::HashMap, error::Error, fmt::Write as _};

/// Numbers of fields below this are looked up without a search.
const LOW_NUMBERS: u32 = 64;

/// The value of `SCHEMA` in `src/json/schema.rs`, whose types say what the parts are.
pub(crate) fn of(files: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let names = Names::new(files);
    let mut out = String::from("Schema {\n    messages: &[\n");
    let mut places = 0;
    for (name, message, file) in &names.messages {
        write_message(&mut out, name, message, file.syntax() == "proto3", places, &names)?;
        places += message.field.len() + 1;
    }
    out += "    ],\n    enums: &[\n";
    for (name, one) in &names.enums {
        write_enum(&mut out, name, one)?;
    }
    let mut by_name: Vec<_> = names.message_places.iter().collect();
    by_name.sort_unstable();
    write!(out, "    ],\n    places: {places},\n    by_name: &{by_name:?},\n}}\n")?;
    Ok(out)
}

/// All messages and enums of the files by their full names, in the order of their places.
#[derive(Default)]
struct Names<'a> {
    messages: Vec<(String, &'a DescriptorProto, &'a FileDescriptorProto)>,
    enums: Vec<(String, &'a EnumDescriptorProto)>,
    message_places: HashMap<String, usize>,
    enum_places: HashMap<String, usize>,
}

impl<'a> Names<'a> {
    fn new(files: &'a FileDescriptorSet) -> Self {
        let mut names = Self::default();
        for file in &files.file {
            for message in &file.message_type {
                names.collect(file, file.package(), message);
            }
            names.enums.extend(file.enum_type.iter().map(|one| (join(file.package(), one.name()), one)));
        }
        let messages = names.messages.iter().enumerate();
        names.message_places = messages.map(|(at, (name, ..))| (name.clone(), at)).collect();
        names.enum_places =
            names.enums.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        names
    }

    fn collect(&mut self, file: &'a FileDescriptorProto, scope: &str, message: &'a DescriptorProto) {
        let name = join(scope, message.name());
        for nested in &message.nested_type {
            self.collect(file, &name, nested);
        }
        self.enums.extend(message.enum_type.iter().map(|one| (join(&name, one.name()), one)));
        self.messages.push((name, message, file));
    }

    fn kind(&self, field: &FieldDescriptorProto) -> Result<String, Box<dyn Error>> {
        let target = field.type_name().trim_start_matches('.');
        let place =
            |places: &HashMap<String, usize>| places.get(target).copied().ok_or("a type that is in no file");
        Ok(match field.r#type() {
            Type::Enum => format!("Enum({})", place(&self.enum_places)?),
            Type::Message => format!("Message({})", place(&self.message_places)?),
            Type::Group => return Err("proto3 has no groups".into()),
            scalar => format!("{scalar:?}"),
        })
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn write_message(
    out: &mut String,
    name: &str,
    message: &DescriptorProto,
    is_proto3: bool,
    start: usize,
    names: &Names<'_>,
) -> Result<(), Box<dyn Error>> {
    write!(out, "        Message {{ form: Form::{}, start: {start}, fields: &[", form(name))?;
    let mut by_number = Vec::new();
    let mut oneofs = vec![Vec::new(); message.oneof_decl.len()];
    for (place, field) in message.field.iter().enumerate() {
        let (number, place) = (u32::try_from(field.number())?, u16::try_from(place)?);
        by_number.push((number, place));
        if let Some(at) = field.oneof_index {
            oneofs[usize::try_from(at)?].push(place);
        }
        // Only descriptors are of proto2, and those are printed as Go's plain encoder does: whatever is set, and enums by
        // number.
        let kind = match names.kind(field)? {
            kind if kind.starts_with("Enum") && !is_proto3 => "Int32".to_owned(),
            kind => kind,
        };
        write!(
            out,
            "\n            Field {{ number: {number}, key: b\"\\\"{}\\\":\", json_name: b\"{}\", kind: Kind::{kind}, repeated: {}, \
             oneof: {:?}, explicit: {} }},",
            field.name(),
            field.json_name(),
            field.label() == Label::Repeated,
            field.oneof_index,
            field.oneof_index.is_some() || !is_proto3,
        )?;
    }
    by_number.sort_unstable();
    let low: Vec<Option<u16>> = (0..LOW_NUMBERS.min(by_number.last().map_or(0, |row| row.0 + 1)))
        .map(|number| by_number.iter().find(|row| row.0 == number).map(|row| row.1))
        .collect();
    let oneofs: Vec<String> = oneofs.iter().map(|members| format!("&{members:?}")).collect();
    writeln!(
        out,
        "], by_number: &{by_number:?}, low: &{low:?}, oneofs: &[{}], recurs: {} }},",
        oneofs.join(", "),
        name == "flow.Endpoint",
    )?;
    Ok(())
}

/// A name that is unlike others of its kind as JSON has it.
fn form(name: &str) -> &'static str {
    match name.strip_prefix("google.protobuf.") {
        Some("Timestamp") => "Timestamp",
        Some("Duration") => "Duration",
        Some("FieldMask") => "FieldMask",
        Some("Any") => "Any",
        Some("Struct") => "Struct",
        Some("Value") => "Value",
        Some("ListValue") => "ListValue",
        Some(wrapper) if wrapper.ends_with("Value") => "Wrapper",
        _ => "Object",
    }
}

fn write_enum(out: &mut String, name: &str, one: &EnumDescriptorProto) -> Result<(), Box<dyn Error>> {
    let mut values: Vec<(i32, &str)> = one.value.iter().map(|value| (value.number(), value.name())).collect();
    // Of two names of a number the first declared is written.
    values.sort_by_key(|row| row.0);
    values.dedup_by_key(|row| row.0);
    let mut by_name: Vec<_> = one.value.iter().map(|value| (value.name(), value.number())).collect();
    by_name.sort_unstable_by_key(|row| (row.0.len(), row.0));
    let longest = by_name.last().map_or(0, |row| row.0.len());
    let by_length: Vec<_> =
        (0..=longest + 1).map(|length| by_name.partition_point(|row| row.0.len() < length)).collect();
    write!(out, "        Enum {{ values: &{values:?}, by_length: &{by_length:?}, by_name: &[")?;
    for (name, number) in by_name {
        let spelling = if values.contains(&(number, name)) { "Written" } else { "Other" };
        write!(out, "({name:?}, {number}, Spelling::{spelling}), ")?;
    }
    writeln!(out, "], is_null: {} }},", name == "google.protobuf.NullValue")?;
    Ok(())
}
