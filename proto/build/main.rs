//! Compiles `proto/**/*.proto` with protox (a protoc in Rust), so that no machine needs a protobuf compiler.

mod tables;

use prost::Message as _;
use std::{env, fs, path::PathBuf};

const FILES: [&str; 8] = [
    "flow/flow.proto",
    "observer/observer.proto",
    "peer/peer.proto",
    "relay/relay.proto",
    "stats/stats.proto",
    "control/control.proto",
    "control/inspect.proto",
    "control/policy.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(FILES, ["proto"])?;
    // `extensions` holds a Struct by its type name only: no file imports it, but reading and printing need it. Descriptors
    // are printed, too, those that a server tells of itself.
    let others =
        protox::compile(["google/protobuf/struct.proto", "google/protobuf/descriptor.proto"], ["proto"])?;
    descriptors.file.extend(others.file);

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    fs::write(out.join("json_tables.rs"), tables::of(&descriptors)?)?;
    // Type names are how a message finds its table in the JSON writer.
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure().build_transport(true).compile_fds_with_config(descriptors, config)?;
    Ok(())
}
