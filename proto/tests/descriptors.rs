//! Holds the compiled descriptors to Hubble's API as testdata/hubble-api lists it, in both directions.

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

const PACKAGES: [&str; 4] = ["flow", "observer", "peer", "relay"];
const ADDITIONS: &str = include_str!("../../testdata/hubble-api/additions-v1.20.2.tsv");

fn files() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(observer_proto::DESCRIPTORS).expect("the API's own data");
    set.file.retain(|file| PACKAGES.contains(&file.package()));
    assert_eq!(set.file.len(), PACKAGES.len());
    set
}

fn yes_no(deprecated: bool) -> &'static str {
    if deprecated { "yes" } else { "no" }
}

/// The rows that v1.20.2 adds to one of the tables.
fn additions(table: &str) -> Vec<String> {
    let prefix = format!("{table}\t+ ");
    ADDITIONS.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// Compares rows; `ordered` rows in their order, the added ones anywhere.
fn compare(table: &str, expected: &str, actual: &[String]) {
    let listed: Vec<String> = expected.lines().skip(1).map(str::to_owned).collect();
    let added = additions(table);
    for row in &added {
        assert!(actual.contains(row), "{table}: missing (v1.20.2): {row}");
    }
    let mut listed_sorted = listed.clone();
    listed_sorted.extend(added.iter().cloned());
    let mut actual_sorted = actual.to_vec();
    listed_sorted.sort();
    actual_sorted.sort();
    for row in &listed_sorted {
        assert!(actual_sorted.binary_search(row).is_ok(), "{table}: missing: {row}");
    }
    for row in &actual_sorted {
        assert!(listed_sorted.binary_search(row).is_ok(), "{table}: not in the table: {row}");
    }
    assert_eq!(actual_sorted.len(), listed_sorted.len(), "{table}: a row twice");

    // Declaration order decides the order of the JSON: within one message or enum it is that of the table.
    let owner = |row: &str| row.split('\t').take(2).collect::<Vec<_>>().join("\t");
    let mut owners: Vec<String> = listed.iter().map(|row| owner(row)).collect();
    owners.dedup();
    for one in owners {
        let of = |rows: &[String]| -> Vec<String> {
            rows.iter().filter(|row| owner(row) == one && !added.contains(row)).cloned().collect()
        };
        assert_eq!(of(actual), of(&listed), "{table}: order of declaration in {one}");
    }
}

fn each_message<'a>(
    scope: &str,
    messages: &'a [DescriptorProto],
    visit: &mut impl FnMut(&str, &'a DescriptorProto),
) {
    for message in messages {
        let name =
            if scope.is_empty() { message.name().into() } else { format!("{scope}.{}", message.name()) };
        visit(&name, message);
        each_message(&name, &message.nested_type, visit);
    }
}

fn type_name(kind: Type, target: &str) -> String {
    match kind {
        Type::Message | Type::Enum => target.trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

#[test]
fn messages() {
    let mut rows = Vec::new();
    for file in files().file {
        each_message("", &file.message_type, &mut |name, message| {
            if message.field.is_empty() {
                rows.push(format!("{}\t{name}\t-\t-\t-\tempty\tno\t-", file.package()));
            }
            for field in &message.field {
                let label = match field.oneof_index {
                    Some(at) => {
                        format!(
                            "oneof:{}",
                            message.oneof_decl[usize::try_from(at).expect("the API's own data")].name()
                        )
                    }
                    None if field.label() == Label::Repeated => "repeated".to_owned(),
                    None => "singular".to_owned(),
                };
                assert!(!field.proto3_optional(), "{name}.{} is optional", field.name());
                let deprecated = field.options.as_ref().is_some_and(prost_types::FieldOptions::deprecated);
                rows.push(format!(
                    "{}\t{name}\t{}\t{}\t{}\t{label}\t{}\t{}",
                    file.package(),
                    field.name(),
                    field.number(),
                    type_name(field.r#type(), field.type_name()),
                    yes_no(deprecated),
                    field.json_name(),
                ));
            }
            assert!(message.extension.is_empty() && message.extension_range.is_empty());
        });
    }
    compare("messages", include_str!("../../testdata/hubble-api/messages.tsv"), &rows);
}

#[test]
fn enums() {
    let mut rows = Vec::new();
    for file in files().file {
        let mut add = |name: String, one: &EnumDescriptorProto| {
            for value in &one.value {
                let deprecated =
                    value.options.as_ref().is_some_and(prost_types::EnumValueOptions::deprecated);
                rows.push(format!(
                    "{}\t{name}\t{}\t{}\t{}",
                    file.package(),
                    value.name(),
                    value.number(),
                    yes_no(deprecated)
                ));
            }
        };
        for one in &file.enum_type {
            add(one.name().to_owned(), one);
        }
        each_message("", &file.message_type, &mut |name, message| {
            for one in &message.enum_type {
                add(format!("{name}.{}", one.name()), one);
            }
        });
    }
    compare("enums", include_str!("../../testdata/hubble-api/enums.tsv"), &rows);
}

#[test]
fn services() {
    let mut rows = Vec::new();
    for file in files().file {
        for service in &file.service {
            for method in &service.method {
                assert!(!method.client_streaming());
                rows.push(format!(
                    "{}\t{}\t{}\t{}\t{}\t{}",
                    file.package(),
                    service.name(),
                    method.name(),
                    method.input_type().trim_start_matches('.'),
                    method.output_type().trim_start_matches('.'),
                    if method.server_streaming() { "server" } else { "unary" },
                ));
            }
        }
    }
    compare("services", include_str!("../../testdata/hubble-api/services.tsv"), &rows);
}

#[test]
fn reserved_numbers() {
    // A range's end is exclusive in a message, inclusive in an enum.
    let text = |start: i32, last: i32| {
        if start == last { start.to_string() } else { format!("{start}-{last}") }
    };
    let mut rows = Vec::new();
    for file in files().file {
        let package = file.package();
        each_message("", &file.message_type, &mut |name, message| {
            for range in &message.reserved_range {
                rows.push(format!("{package}\t{name}\tmessage\t{}", text(range.start(), range.end() - 1)));
            }
            assert!(message.reserved_name.is_empty(), "{name}");
        });
        for one in &file.enum_type {
            for range in &one.reserved_range {
                rows.push(format!("{package}\t{}\tenum\t{}", one.name(), text(range.start(), range.end())));
            }
        }
    }
    compare("reserved", include_str!("../../testdata/hubble-api/reserved.tsv"), &rows);
}

#[test]
fn files_say_proto3_and_import_as_hubbles_do() {
    for file in files().file {
        assert_eq!(file.syntax(), "proto3", "{}", file.name());
        let public: Vec<&str> = file
            .public_dependency
            .iter()
            .map(|at| file.dependency[usize::try_from(*at).expect("the API's own data")].as_str())
            .collect();
        let expected: &[&str] = if file.package() == "observer" { &["flow/flow.proto"] } else { &[] };
        assert_eq!(public, expected, "{}", file.name());
    }
}
