//! OpenTelemetry's logs: a flow is a record of them, and batches of records go to a Collector by gRPC (OTLP).
//! docs/export.md says which field becomes what.

mod client;
pub(super) mod records;
pub(super) mod target;

pub(super) use client::{Client, Sent};
pub(super) use target::OtlpTarget;

use bytes::{BufMut as _, Bytes, BytesMut};
use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

/// `ScopeLogs.log_records`, `ResourceLogs.scope_logs` and `ExportLogsServiceRequest.resource_logs`.
const LOG_RECORDS: u32 = 2;
const SCOPE_LOGS: u32 = 2;
const RESOURCE_LOGS: u32 = 1;

/// Appends a record as a field of `ScopeLogs`; any number of these are a batch.
pub(super) fn append(out: &mut Vec<u8>, record: &LogRecord) {
    encode_key(LOG_RECORDS, WireType::LengthDelimited, out);
    // A vector takes what it is given.
    let _ = record.encode_length_delimited(out);
}

/// What stands around the records of every batch.
#[derive(Debug)]
struct Frame {
    /// `ResourceLogs` and `ScopeLogs` without what is in them.
    resource: Vec<u8>,
    scope: Vec<u8>,
}

impl Frame {
    fn new(resource: Resource, version: &str) -> Self {
        let scope = InstrumentationScope {
            name: "observer".to_owned(),
            version: version.to_owned(),
            ..InstrumentationScope::default()
        };
        Self {
            resource: ResourceLogs { resource: Some(resource), ..ResourceLogs::default() }.encode_to_vec(),
            scope: ScopeLogs { scope: Some(scope), ..ScopeLogs::default() }.encode_to_vec(),
        }
    }

    /// The request that has these records.
    fn request(&self, records: &[u8]) -> Bytes {
        let head = |field, length: usize| {
            let mut head = Vec::new();
            encode_key(field, WireType::LengthDelimited, &mut head);
            encode_varint(length as u64, &mut head);
            head
        };
        let scope_head = head(SCOPE_LOGS, self.scope.len() + records.len());
        let resource_bytes = self.resource.len() + scope_head.len() + self.scope.len() + records.len();
        let resource_head = head(RESOURCE_LOGS, resource_bytes);
        let mut request = BytesMut::with_capacity(resource_head.len() + resource_bytes);
        for part in [&resource_head, &self.resource, &scope_head, &self.scope] {
            request.put_slice(part);
        }
        request.put_slice(records);
        request.freeze()
    }
}
