//! The daemon `observer`, one module a stage of the pipeline. A stage imports nothing from a later one.

pub mod decode;
pub mod endpoint;
pub mod flow;
pub mod track;
