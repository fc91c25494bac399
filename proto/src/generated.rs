//! What `build.rs` made of the `.proto` files; the documentation of a message is its `.proto` file.
#![allow(
    missing_docs,
    unreachable_pub,
    deprecated,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

/// Flows, endpoints, events and filters.
pub mod flow {
    tonic::include_proto!("flow");
}
/// The observer service: streams of flows and events.
pub mod observer {
    tonic::include_proto!("observer");
}
/// Which other servers a server knows of.
pub mod peer {
    tonic::include_proto!("peer");
}
/// What a relay says of the nodes behind it.
pub mod relay {
    tonic::include_proto!("relay");
}
/// Observer's own statistics.
pub mod stats {
    tonic::include_proto!("stats");
}
/// Observer's control service, on the root-only socket.
pub mod control {
    tonic::include_proto!("control");
}
