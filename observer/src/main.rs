//! The daemon's binary: flags in, exit code out.
fn main() {}
