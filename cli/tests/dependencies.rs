//! Which crates may know of which: a front end never of the kernel, the messages never of a front end.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

use std::{collections::BTreeSet, path::Path, process::Command};

/// Every package that is linked into a member, itself included, whatever depends on it in between.
fn linked_into(member: &str) -> BTreeSet<String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(member).join("Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--offline", "--locked", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn front_ends_know_nothing_of_the_kernel_and_messages_nothing_of_front_ends() {
    let kernel = ["aya", "btf-rs", "netlink-sys", "observer", "observer-ebpf"];
    let front_end = ["clap", "clap_builder", "ratatui", "observe", "observe-tui"];
    for (member, needed, forbidden) in [
        ("cli", ["clap", "observer-proto"], &kernel[..]),
        ("tui", ["observe-tui", "observer-proto"], &kernel[..]),
        ("proto", ["prost", "tonic"], &[&kernel[..], &front_end[..]].concat()),
        ("observer/policy", ["observer-proto", "regex"], &[&kernel[..], &front_end[..]].concat()),
        (
            "observer/inventory",
            ["observer-policy", "observer-proto"],
            &[&kernel[..], &front_end[..]].concat(),
        ),
        ("observer/kubernetes", ["kube", "observer-inventory"], &[&kernel[..], &front_end[..]].concat()),
    ] {
        let found = linked_into(member);
        for name in needed {
            assert!(found.contains(name), "{member} lacks {name}: {found:?}");
        }
        for name in forbidden {
            assert!(!found.contains(*name), "{member} depends on {name}");
        }
    }
}
