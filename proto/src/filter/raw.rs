//! FlowFilter messages as JSON, as `--allowlist` and configuration files hold them.

use crate::{flow::FlowFilter, json};

/// Reads JSON objects, one after another; field names in either spelling. The error says what is wrong and where.
pub fn parse_raw(text: &str) -> Result<Vec<FlowFilter>, String> {
    json::read_many(text).map_err(|error| error.to_string())
}

/// The JSON form of a filter, with the field names of the `.proto` file.
#[cfg(test)]
pub(super) fn to_json(filter: &FlowFilter) -> serde_json::Value {
    serde_json::from_str(&json::line(filter).unwrap()).unwrap()
}
