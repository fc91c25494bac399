//! FlowFilter messages as JSON, as `--allowlist` and configuration files hold them.

use crate::{DESCRIPTORS, flow::FlowFilter};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use std::sync::OnceLock;

/// Reads JSON objects, one after another; field names in either spelling. The error says what is wrong and where.
pub fn parse_raw(text: &str) -> Result<Vec<FlowFilter>, String> {
    let descriptor = descriptor()?;
    let mut objects = serde_json::Deserializer::from_str(text);
    let mut filters = Vec::new();
    // `end` skips blanks and fails where something is left.
    while objects.end().is_err() {
        let message =
            DynamicMessage::deserialize(descriptor.clone(), &mut objects).map_err(|e| e.to_string())?;
        filters.push(message.transcode_to().map_err(|e| e.to_string())?);
    }
    Ok(filters)
}

fn descriptor() -> Result<MessageDescriptor, String> {
    static DESCRIPTOR: OnceLock<Option<MessageDescriptor>> = OnceLock::new();
    DESCRIPTOR
        .get_or_init(|| DescriptorPool::decode(DESCRIPTORS).ok()?.get_message_by_name("flow.FlowFilter"))
        .clone()
        .ok_or_else(|| "the descriptors of this build lack flow.FlowFilter".to_owned())
}

/// The JSON form of a filter, with the field names of the `.proto` file.
#[cfg(test)]
pub(super) fn to_json(filter: &FlowFilter) -> serde_json::Value {
    use prost::Message as _;
    let message = DynamicMessage::decode(descriptor().unwrap(), filter.encode_to_vec().as_slice()).unwrap();
    let options = prost_reflect::SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}
