//! Which crates may know of which: a front end never of the kernel, the messages never of a front end.
#![expect(clippy::unwrap_used, reason = "a test says what it expects by unwrapping, in its helpers too")]

use std::{fs, path::Path};

/// Names under `[dependencies]` of a member's manifest.
fn dependencies(member: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(member).join("Cargo.toml");
    let text = fs::read_to_string(path).unwrap();
    let section = text.split_once("\n[dependencies]\n").unwrap().1;
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split(['.', ' ', '=']).next().unwrap().to_owned())
        .collect()
}

#[test]
fn front_ends_know_nothing_of_the_kernel_and_messages_nothing_of_front_ends() {
    for (member, forbidden) in [
        ("cli", &["aya", "observer", "observer-ebpf"][..]),
        ("tui", &["aya", "observer", "observer-ebpf", "clap"]),
        ("proto", &["clap", "ratatui", "tokio", "observer", "observer-ebpf", "observe-tui"]),
    ] {
        let found = dependencies(member);
        assert!(
            found.contains(&"observer-proto".to_owned())
                || member == "proto" && found.contains(&"prost".to_owned())
        );
        for name in forbidden {
            assert!(!found.iter().any(|d| d == name), "{member} depends on {name}");
        }
    }
}
