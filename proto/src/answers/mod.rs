//! Answers that are made of many flows: counts by any field, who talks most, the service map, and why one can't reach
//! another. Each has a state that takes in flows (or the server's own counts) and is plain data, a report of it, and views
//! of the report as text and JSON that only draw. And what is loaded in the kernel. Nothing here knows of terminals or flags.

pub mod about;
pub mod aggregate;
mod ends;
pub mod fields;
pub mod graph;
pub mod groups;
pub mod inspect;
pub mod refused;
pub mod rows;
pub mod signals;
mod table;
pub mod top;
pub mod volume;
pub mod why;

pub use table::scaled;
