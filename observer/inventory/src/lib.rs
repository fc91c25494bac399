//! The inventory file: nodes, namespaces, pods, services and CIDR groups in YAML; and what policies see of them.

#![forbid(unsafe_code)]

mod backends;
mod check;
mod format;
pub mod labels;
mod model;
pub mod policy;
pub mod shared;
pub mod workload;
pub mod yaml;

pub use backends::{Backend, BackendState, Slice, SlicePort};
pub use model::{
    CidrGroup, Node, Peer, Pod, PodPort, ServiceEntry, ServicePort, Snapshot, Surroundings, TargetPort,
    Workload,
};

use observer_proto::text::sanitize::clean;
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};
use yaml::Fault;

/// The largest file that is read; 100,000 pods are about 40 MB.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// The most characters of a path or a problem that an error shows: what is quoted may be as long as the file.
const LONGEST: usize = 1000;

/// What is wrong with an inventory, where, and what would be right; one line.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// It can't be read.
    #[error("{}: cannot read the inventory: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than [`MAX_FILE_BYTES`].
    #[error("{}: the inventory has more than {} MiB", file.display(), MAX_FILE_BYTES >> 20)]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// Its content is wrong.
    #[error("{}:{line}:{column}: {path}: {problem}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
        /// The field, such as `pods[2].ips[0]`; `.` is the whole file.
        path: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

/// A file's text, which may still be nonsense.
pub fn read(file: &Path) -> Result<String, InventoryError> {
    let mut text = String::new();
    // One byte more than allowed tells a file that grows, or a device without an end.
    let read = File::open(file)
        .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|source| InventoryError::Read { file: file.to_owned(), source })?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(InventoryError::TooLarge { file: file.to_owned() });
    }
    Ok(text)
}

/// Reads an inventory's text; `node` is the name of this node, which decides what is local.
pub fn parse(file: &Path, text: &str, node: &str) -> Result<Snapshot, InventoryError> {
    let raw = yaml::parse(text).and_then(|raw| check::check(&raw, node));
    raw.map_err(|Fault { line, column, path, problem }| InventoryError::Content {
        file: file.to_owned(),
        line,
        column,
        // A key may be empty, and so the path to it.
        path: if path.is_empty() { ".".to_owned() } else { one_line(&path) },
        problem: one_line(&problem),
    })
}

/// Names in the file may hold anything; the error goes to terminals and logs.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Writing to a String can't fail.
    let _ = clean(text, &mut out);
    if let Some((end, _)) = out.char_indices().nth(LONGEST) {
        out.truncate(end);
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests;
