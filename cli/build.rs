//! Links the program smaller and quicker to start.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    let is_static = target("FEATURE").split(',').any(|feature| feature == "crt-static");
    if target("OS") != "linux" || target("ENV") != "gnu" || is_static {
        return;
    }
    // At a fixed address, as Hubble: nothing is to be relocated when it starts. Libraries, heap and stack stay where chance
    // puts them.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    // Many a generic function is the same code for several types. rustc brings LLVM's linker here; others can't fold.
    if target("ARCH") == "x86_64" {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
