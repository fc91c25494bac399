//! The server against clients that are slow, many, broken or hostile, over real sockets: it says no, counts it, serves
//! the others, loses nothing uncounted, and is afterwards as it was before.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

mod bed;
mod certificates;
mod followers;
mod hostile;
mod raw;
mod rotation;
mod tls;

#[path = "../support/mod.rs"]
mod support;
