//! The transparent proxy in the node: how packets reach it, its sockets, and what it does with connections.

mod datagrams;
mod dns;
pub mod routing;
mod service;
mod session;
pub mod sockets;
mod told;
mod workers;

pub use service::Proxy;
pub use told::{Listener, Teller, Told, channel};
