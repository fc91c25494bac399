//! The live dashboard `observe tui`: flows as they happen, what is dropped and why, who talks to whom, what policies say.
//!
//! Its `state` is plain data, changed by one function alone; `views` make plain lines of it; `run` draws them and
//! reads the keys. Who connects, reads and reconnects is told by [`link`], and is not here.
#![forbid(unsafe_code)]

pub mod config;
mod copy;
mod draw;
mod effects;
mod filter;
mod grid;
pub mod keys;
mod line;
pub mod link;
mod prompt;
mod rows;
mod run;
mod state;
mod terminal;
mod theme;
mod views;

pub use filter::Filter;
pub use rows::MOST_ROWS;
pub use run::{Options, run};
pub use terminal::check;
pub use theme::Theme;

#[cfg(test)]
mod tests;
