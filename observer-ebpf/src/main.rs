//! The eBPF programs. Built for `bpfel-unknown-none` by observer's build script; on the host there is nothing to run.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}
