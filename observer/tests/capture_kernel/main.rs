//! The eBPF programs in this machine's kernel, on links of namespaces that the tests make and remove. Needs root.
#![expect(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not the functions they share")]

mod clsact;
mod connections;
mod drops;
mod flows;
mod frames;
mod links;
mod odd_frames;
mod policy;
mod staying;
mod support;
mod tunnels;
