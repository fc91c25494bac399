//! The daemon `observer`, one module a stage of the pipeline. A stage imports nothing from a later one.

pub mod config;
pub mod decode;
pub mod endpoint;
pub mod enrich;
pub mod flow;
pub mod instance;
pub mod serve;
pub mod store;
pub mod track;
