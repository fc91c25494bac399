//! NetworkPolicy, CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, read into one model.
//!
//! [`source`] reads documents into the one [`model`], in which nothing can be wrong.

#![forbid(unsafe_code)]

pub mod l7;
pub mod label;
pub mod model;
mod parse;
pub mod source;

pub use parse::{Dialect, MODE_ANNOTATION};
