//! Hubble's API and Observer's own, and everything that is defined by their messages alone.
#![forbid(unsafe_code)]

pub mod answers;
pub mod client;
pub mod encoded;
mod facts;
pub mod field_mask;
pub mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod generated;
pub mod json;
pub mod names;
pub mod summary;
pub mod text;
pub mod time;

pub use facts::Facts;
pub use generated::{control, flow, observer, peer, relay, stats};

/// The compiled `FileDescriptorSet` of every `.proto` file of this crate, for reflection and for JSON by descriptor.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
