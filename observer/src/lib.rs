//! The daemon `observer`, one module a stage of the pipeline. A stage imports nothing from a later one.
#![deny(unsafe_code)]

pub mod capture;
pub mod config;
pub mod daemon;
pub mod decode;
mod drop_events;
mod dynamic;
pub mod endpoint;
pub mod enrich;
pub mod events;
pub mod export;
pub mod flow;
mod followed;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod history;
mod inspect;
pub mod instance;
pub mod l7;
pub mod layer7;
mod logging;
pub mod metrics;
pub mod pipeline;
pub mod policy;
pub mod policy_verdict;
pub mod proxy;
pub mod recording;
pub mod serve;
pub mod stats;
mod status;
pub mod store;
pub mod track;
mod trouble;
