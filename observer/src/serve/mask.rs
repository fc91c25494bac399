//! Field masks: which fields of a flow a client wants, applied to the encoded message.

use super::wire;
use observer_proto::DESCRIPTORS;
use prost::Message as _;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto as fd};
use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

/// The most paths in one mask; `flow.Flow` has far fewer fields.
pub const LIMIT_PATHS: usize = 256;

/// A checked mask over `flow.Flow`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    fields: BTreeMap<u32, Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// Nothing: the whole field.
    inside: Option<Mask>,
    /// Of a oneof only the active member is shown, so an absent one stays absent.
    in_oneof: bool,
}

impl Mask {
    /// From dotted proto names; no path is no mask. The error names the path.
    pub fn parse(paths: &[String]) -> Result<Option<Self>, String> {
        if paths.len() > LIMIT_PATHS {
            return Err(format!("invalid fieldmask: {} paths, at most {LIMIT_PATHS}", paths.len()));
        }
        let mut mask = Self::default();
        for path in paths {
            let root = MESSAGES.get(".flow.Flow").ok_or("flow.Flow has no descriptor")?;
            mask.add(root, path, path)?;
        }
        Ok((!paths.is_empty()).then_some(mask))
    }

    fn add(&mut self, message: &DescriptorProto, rest: &str, path: &str) -> Result<(), String> {
        let (name, rest) = rest.split_once('.').map_or((rest, None), |(name, rest)| (name, Some(rest)));
        let field = message.field.iter().find(|field| field.name() == name).ok_or_else(|| {
            format!("invalid fieldmask: {path:?}: {} has no field {name:?}", message.name())
        })?;
        let in_oneof = field.oneof_index.is_some();
        let number = field.number() as u32;
        let Some(rest) = rest else {
            self.fields.insert(number, Part { inside: None, in_oneof });
            return Ok(());
        };
        let inner = inner_message(field)
            .ok_or_else(|| format!("invalid fieldmask: {path:?}: {name:?} has no fields of its own"))?;
        let part =
            self.fields.entry(number).or_insert_with(|| Part { inside: Some(Self::default()), in_oneof });
        match &mut part.inside {
            Some(inside) => inside.add(inner, rest, path),
            // The whole field is asked for as well; the path is still checked.
            None => Self::default().add(inner, rest, path),
        }
    }

    /// Appends the fields of `message` that the mask names to `out`. A field of which only parts are named is there
    /// even if the message lacks it, as in Hubble.
    pub fn apply(&self, message: &[u8], out: &mut Vec<u8>) {
        for field in wire::fields(message) {
            match self.fields.get(&field.number) {
                None => {}
                Some(Part { inside: None, .. }) => out.extend_from_slice(field.raw),
                Some(Part { inside: Some(inside), .. }) => {
                    wire::nested(out, field.number, |out| {
                        inside.apply(field.content.unwrap_or_default(), out);
                    });
                }
            }
        }
        for (number, part) in &self.fields {
            let parent = part.inside.is_some() && !part.in_oneof;
            if parent && !wire::fields(message).any(|field| field.number == *number) {
                wire::bytes(out, *number, &[]);
            }
        }
    }
}

fn inner_message(field: &FieldDescriptorProto) -> Option<&'static DescriptorProto> {
    let single = field.label() != fd::Label::Repeated && field.r#type() == fd::Type::Message;
    single.then(|| MESSAGES.get(field.type_name())).flatten()
}

/// The top-level messages by full name; none that `flow.Flow` holds is nested in another.
static MESSAGES: LazyLock<HashMap<String, DescriptorProto>> = LazyLock::new(|| {
    // What the build made can be read; a test holds that.
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let mut messages = HashMap::new();
    for file in set.file {
        let package = file.package().to_owned();
        for message in file.message_type {
            messages.insert(format!(".{package}.{}", message.name()), message);
        }
    }
    messages
});
