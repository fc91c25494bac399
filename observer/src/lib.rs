//! The daemon `observer`, one module a stage of the pipeline. A stage imports nothing from a later one.

pub mod capture;
pub mod endpoint;
pub mod flow;
