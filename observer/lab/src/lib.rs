//! Plays lab scenarios: nodes and pods as network namespaces, services by nftables, real drops, real traffic, and a
//! ledger of every connection made.
//!
//! A [`Scenario`] is read from a TOML file and checked; [`Lab::up`] builds it, [`Lab::start_traffic`] plays its traffic,
//! [`Lab::ledger`] tells what was sent and what the other side saw, [`Lab::down`] (or `Drop`) removes it. What a killed
//! player left is removed by the next one, or by [`state::clean`].
//!
//! The player is one process. A thread that enters a pod's namespace opens its sockets there; sockets stay in the
//! namespace they were opened in.
#![forbid(unsafe_code)]

mod dns;
pub mod inventory;
mod lab;
pub mod ledger;
pub mod links;
pub mod netns;
mod plan;
mod rules;
pub mod scenario;
mod server;
pub mod state;
mod traffic;
mod validate;

pub use inventory::Inventory;
pub use lab::{Lab, unique_prefix};
pub use ledger::{Entry, Ledger, Outcome};
pub use scenario::{Cause, Kind, Scenario};
pub use state::Namespaces;

/// Why a lab could not be read, built or taken down.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The scenario file could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The scenario is no valid TOML, or has an unknown or ill-typed key.
    #[error("{path}:{line}: {message}")]
    Parse {
        /// The file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The scenario contradicts itself.
    #[error("scenario {scenario}: {message}")]
    Invalid {
        /// Its name.
        scenario: String,
        /// Which field is wrong, and what would be right.
        message: String,
    },
    /// The player has not the rights it needs.
    #[error("the lab needs root: it makes network namespaces (run it with sudo)")]
    NotRoot,
    /// A lab of the same prefix is up.
    #[error("a lab with prefix '{0}' is already up in another process; stop it or choose another --prefix")]
    Busy(String),
    /// A tool (`ip`, `nft`, `ethtool`) refused what it was given.
    #[error("{tool} in {place} failed: {message}")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// The namespace it ran in.
        place: String,
        /// Its standard error, first line.
        message: String,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl LabError {
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// The result of most functions of this crate.
pub type Result<T, E = LabError> = std::result::Result<T, E>;
