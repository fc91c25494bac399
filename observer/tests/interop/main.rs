//! The real `hubble` and `hubble-relay` against the daemon, the calls of Hubble's UI, and the real OpenTelemetry Collector.
//! `make interop` builds the programs (testdata/interop, testdata/otlp-collector) and runs this.
//!
//! A case is a command or a call and what must hold of its answer. Wherever Hubble's own code can say what is right, it
//! does: `hubble --input-file` filters and prints with the same packages as Hubble's server, so what it makes of all flows
//! of the daemon is what the daemon's answer must be, byte for byte.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod calls;
mod cases;
mod collector;
mod differential;
mod flows;
mod formats;
mod live;
mod programs;
mod relay;
#[path = "../support/mod.rs"]
mod support;
mod tally;
#[path = "../../../cli/tests/tmux/mod.rs"]
mod tmux;
mod ui;
