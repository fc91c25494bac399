//! Paths of fields, as a client gives them to ask for a part of each flow.

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Label};

/// Whether a dotted path of proto names leads to a field of a flow. The error is that of Hubble's library.
pub fn check(path: &str) -> Result<(), String> {
    let set = FileDescriptorSet::decode(crate::DESCRIPTORS).map_err(|error| error.to_string())?;
    if leads_to_a_field(&set, path) {
        Ok(())
    } else {
        Err(format!("proto: invalid path {path:?} for message \"flow.Flow\""))
    }
}

fn leads_to_a_field(set: &FileDescriptorSet, path: &str) -> bool {
    let mut message = find(set, ".flow.Flow");
    path.split('.').all(|name| {
        let Some(field) = message.and_then(|message| message.field.iter().find(|field| field.name() == name))
        else {
            return false;
        };
        // Nothing may follow a list.
        message = find(set, field.type_name()).filter(|_| field.label() != Label::Repeated);
        true
    })
}

/// A message by its full name, with the dot before it; those of the API are not nested in others.
fn find<'a>(set: &'a FileDescriptorSet, name: &str) -> Option<&'a DescriptorProto> {
    let (package, name) = name.strip_prefix('.')?.rsplit_once('.')?;
    let files = set.file.iter().filter(|file| file.package() == package);
    files.flat_map(|file| &file.message_type).find(|message| message.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for path in
            ["verdict", "source.pod_name", "l4.TCP.flags", "IP", "source.labels", "time.seconds", "Summary"]
        {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        for path in ["", "a.b", "verdict.x", "source.", ".source", "sourcePod", "source.workloads.name", "ip"]
        {
            assert!(check(path).is_err(), "{path}");
        }
        for path in crate::text::FIELDS {
            assert_eq!(check(path), Ok(()), "{path}");
        }
    }
}
