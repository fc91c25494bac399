//! What the Kubernetes API tells: pods, namespaces, nodes, services, policies and CIDR groups, followed by watches.
//!
//! ```text
//! API server ─> watch (one a resource) ─> objects ─> Known ─> Sink: pods, surroundings, policies
//! ```
//!
//! What was told goes on being told while the API server is away: [`Board`] says how old it is. Of each pod a compact
//! record is kept; an event that changes nothing of it is passed over.

#![forbid(unsafe_code)]

mod api;
mod backends;
mod board;
pub mod by_hand;
mod events;
pub mod fuzz;
mod known;
mod lines;
#[cfg(test)]
mod mock;
mod object;
mod pace;
mod peers;
mod pods;
mod policies;
mod surroundings;
mod watch;

pub use api::Access;
pub use backends::Backends;
pub use board::{Board, ResourceStatus, State};
pub use events::{Event, EventPoster};
pub use known::{Since, Sink};
pub use object::Resource;
pub use pace::Timing;
pub use peers::{PeerError, PeerPods};
pub use pods::Batch;
pub use policies::ApiPolicies;
pub use watch::run;

use observer_policy::source::Options;
use std::sync::Arc;

/// What is followed, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the API server is reached.
    pub access: Access,
    /// The own node's name: its pods are local.
    pub node: String,
    /// The own cluster's name, in pods' labels.
    pub cluster: String,
    /// Which pods are daemons that serve Hubble's API, for relays.
    pub peers: Option<PeerPods>,
    /// How policies are read; without, none are asked for.
    pub policies: Option<Options>,
    /// How long things take.
    pub timing: Timing,
}

/// What others see of what is told, beside the [`Sink`].
#[derive(Clone, Debug)]
pub struct Shown {
    /// How the watches do.
    pub board: Arc<Board>,
    /// The policies, where they are followed.
    pub policies: Option<Arc<ApiPolicies>>,
    /// Who stands behind services.
    pub backends: Arc<Backends>,
}

impl Shown {
    /// Nothing is known yet.
    pub fn new(config: &Config) -> Self {
        Self {
            board: Arc::new(Board::new(config.policies.is_some(), &config.timing)),
            policies: config.policies.clone().map(|options| Arc::new(ApiPolicies::new(options))),
            backends: Arc::default(),
        }
    }
}
