//! The command line `observe`.
#![forbid(unsafe_code)]
fn main() {}
