//! Who opened a connection, between whom it really is, and which of the records that tell of it is shown.

mod conntrack;
mod ctnetlink;
mod netlink;

pub use conntrack::{ConntrackTable, Entry, TableCounters, TableLimits, Translation};
pub use netlink::{ConntrackSource, SourceCounters, SourceOptions, Unavailable};
