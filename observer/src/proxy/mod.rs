//! The transparent proxy's place in the node: how packets reach it, and its sockets.

pub mod routing;
pub mod sockets;
