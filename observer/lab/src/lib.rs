//! Plays lab scenarios.
#![forbid(unsafe_code)]
