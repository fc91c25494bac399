//! The eBPF programs in this machine's kernel, on links of namespaces that the tests make and remove. Needs root.

mod drops;
mod flows;
mod frames;
mod links;
mod support;
