//! The server over a real socket, and what it encodes.
mod any_flow;
mod calls;
mod encoding;
mod events;
mod history;
mod inspect;
mod peers;
mod policies;
mod stats;
