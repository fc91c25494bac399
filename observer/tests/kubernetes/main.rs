//! The daemon and a real Kubernetes API, and what `deploy/` has for one. `make test-kubernetes` builds the API server
//! (testdata/kubernetes) and runs this.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod api;
mod away;
mod cluster;
mod container;
mod deploy;
mod deployed;
mod events;
mod names;
mod relay;
mod scale;
mod staying;
#[path = "../support/mod.rs"]
mod support;
mod world;
