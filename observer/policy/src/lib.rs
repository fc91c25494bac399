//! NetworkPolicy, CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy: read, compiled, evaluated and explained.
//!
//! [`source`] reads documents into the one [`model`], in which nothing can be wrong; [`engine`] compiles the model for
//! the endpoints there are, into tables by peer, protocol and port. [`wire`] says it all in the control service's messages.

#![forbid(unsafe_code)]

pub mod engine;
pub mod explain;
pub mod fuzz;
pub mod l7;
pub mod label;
pub mod model;
mod parse;
pub mod source;
pub mod warn;
pub mod wire;
pub mod world;

pub use parse::{Dialect, MODE_ANNOTATION};
