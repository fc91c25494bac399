//! JSON to message, strictly: an unknown field, a wrong type or text after the message is an error that names it.

use prost_reflect::{DescriptorPool, DynamicMessage};
use std::sync::LazyLock;

/// Why a line is not the wanted message; the text names the field and the column.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No JSON, or not of this message.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The message could not be taken over from its dynamic form.
    #[error("{0}")]
    Message(#[from] prost::DecodeError),
    /// The type is not one of this crate's API.
    #[error("{0} is no message of this API")]
    UnknownType(String),
}

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    // The descriptors are made by the build of this crate; an empty pool would fail every test that reads.
    DescriptorPool::decode(crate::DESCRIPTORS).unwrap_or_default()
});

/// Reads one message from its JSON, such as one line of an export.
pub fn read<M: prost::Message + prost::Name + Default>(json: &str) -> Result<M, ReadError> {
    let name = M::full_name();
    let descriptor = POOL.get_message_by_name(&name).ok_or(ReadError::UnknownType(name))?;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let message = DynamicMessage::deserialize(descriptor, &mut deserializer)?;
    deserializer.end()?;
    Ok(message.transcode_to()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Flow;

    #[test]
    fn takes_both_spellings() {
        for json in
            [r#"{"node_name":"n1","IP":{"source":"::1"}}"#, r#"{"nodeName":"n1","IP":{"source":"::1"}}"#]
        {
            let flow: Flow = read(json).unwrap();
            assert_eq!(flow.node_name, "n1");
            assert_eq!(flow.ip.unwrap().source, "::1");
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (json, expected) in [
            (r#"{"pod":"x"}"#, "'pod'"),
            (r#"{"verdict":"MAYBE"}"#, "MAYBE"),
            (r#"{"time":"yesterday"}"#, "timestamp"),
            (r#"{"uuid":"a"} x"#, "trailing"),
            ("", "EOF"),
        ] {
            let error = read::<Flow>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
