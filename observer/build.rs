//! Builds the eBPF programs of `observer-ebpf` and puts the objects into `OUT_DIR`.
//!
//! Debian's compiler ships the library source that `-Z build-std` needs, rustup's does so with `rust-src` on nightly.
//! `EBPF_CARGO`, `EBPF_RUSTC` and `EBPF_LINKER` name other tools, `EBPF_OBJECTS` a folder with the objects built before.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "bpfel-unknown-none";
/// The last two are for tests and benches.
const OBJECTS: [&str; 4] =
    ["observer-ebpf", "observer-ebpf-policy", "observer-ebpf-redirect", "observer-ebpf-bench"];

fn main() {
    for name in ["EBPF_CARGO", "EBPF_RUSTC", "EBPF_LINKER", "EBPF_OBJECTS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    for path in ["../observer-ebpf/src", "../observer-ebpf/Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(text) = build() {
        println!("cargo::error={text}");
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let folder = match env::var_os("EBPF_OBJECTS") {
        Some(folder) => PathBuf::from(folder),
        None => compile(&out)?,
    };
    for name in OBJECTS {
        let object = folder.join(name);
        fs::copy(&object, out.join(name)).map_err(|e| format!("{}: {e}", object.display()))?;
    }
    Ok(())
}

fn compile(out: &Path) -> Result<PathBuf, String> {
    let linker =
        linker().ok_or("bpf-linker is not installed: run `make setup`, or name it in EBPF_LINKER")?;
    let (cargo, rustc) = compiler().ok_or(
        "no Rust compiler with its library source for eBPF: run `make setup` (Debian's rustc), or `rustup toolchain \
         install nightly -c rust-src`",
    )?;
    // OUT_DIR is <target>/<profile>/build/<package>/out: debug, release and tests share one eBPF build.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not inside a target folder")?.join("ebpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let flags = [
        format!("-Clinker={}", linker.display()),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    let mut command = Command::new(cargo);
    // The outer cargo's variables speak of another compiler and another target.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let outer = ["CARGO", "RUST", "CLIPPY"].iter().any(|prefix| text.starts_with(prefix))
            || ["TARGET", "HOST", "PROFILE", "OUT_DIR", "OPT_LEVEL", "DEBUG", "NUM_JOBS"].contains(&&*text);
        if outer && !["CARGO_HOME", "RUSTUP_HOME"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    let status = command
        .current_dir("../observer-ebpf")
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--locked", "--release", "-Zbuild-std=core", "--target", TARGET])
        .args(OBJECTS.iter().flat_map(|name| ["--bin", name]))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .map_err(|e| format!("the eBPF compiler did not start: {e}"))?;
    if !status.success() {
        return Err(format!("the eBPF programs did not compile ({status}), see above"));
    }
    Ok(target.join(TARGET).join("release"))
}

fn linker() -> Option<PathBuf> {
    if let Some(path) = env::var_os("EBPF_LINKER") {
        return Some(path.into());
    }
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = home.map(|home| home.join("bin")).into_iter().chain(env::split_paths(&path));
    folders.map(|folder| folder.join("bpf-linker")).find(|file| file.is_file())
}

/// cargo and rustc of a toolchain that has the library source.
fn compiler() -> Option<(PathBuf, PathBuf)> {
    if let (Some(cargo), Some(rustc)) = (env::var_os("EBPF_CARGO"), env::var_os("EBPF_RUSTC")) {
        return Some((cargo.into(), rustc.into()));
    }
    let debian = PathBuf::from("/usr/bin/rustc");
    if debian.is_file() && Path::new("/usr/lib/rustlib/src/rust/library/core").is_dir() {
        return Some(("/usr/bin/cargo".into(), debian));
    }
    let found = Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]).output().ok()?;
    let rustc = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
    let bin = rustc.parent()?;
    let source = bin.parent()?.join("lib/rustlib/src/rust/library/core");
    source.is_dir().then(|| (bin.join("cargo"), rustc.clone()))
}
