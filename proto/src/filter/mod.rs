//! Flow filters: from flags to Hubble's `FlowFilter` messages, and from those to something that only has to be asked.
//!
//! - [`flags`]: the table of the filter flags; [`parse`]: a list of flags in command-line order to filters.
//! - [`Filters`]: compiled once, checked once; asking it cannot fail.
//! - [`Matcher`]: asks them of many flows, one by one or many at once by [`Columns`].
//! - [`FlowView`]: what a filter reads, so that one compiled filter serves wire messages and the daemon's own record.

mod address;
mod columns;
mod compile;
mod condition;
mod endpoint;
mod expression;
mod flag_values;
pub mod flags;
mod go;
mod http;
mod labels;
mod marks;
mod matcher;
mod names;
mod parse;
mod patterns;
mod raw;
mod reasons;
mod tracker;
mod view;
mod wire;

pub use columns::{Column, Columns, LOT, traits};
pub use compile::{Filters, InvalidFilter, LIMIT_BYTES, LIMIT_EXPRESSIONS, LIMIT_FILTERS};
pub use marks::mark;
pub use matcher::Matcher;
pub use parse::{FilterLists, FlagError, parse};
pub use raw::parse_raw;
pub use reasons::{drop_reason_number, drop_reasons};
pub use view::{EndpointView, FlowView, HttpView, L4, L7, NoEndpoint, Side};

#[cfg(test)]
mod tests;
