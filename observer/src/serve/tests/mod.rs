//! The server over a real socket, and what it encodes.
mod calls;
mod encoding;
mod events;
mod peers;
mod stats;
