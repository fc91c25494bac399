//! The lab player as a program.
fn main() {}
