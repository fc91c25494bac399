//! What benches share with a program of theirs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How the packets of one test run vary: each has the source port of the one before and a step, and the address of any of
/// some pods, the last four bytes of which are a number.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Varied {
    /// Of the random numbers; not 0.
    pub state: u64,
    /// The address of the first pod.
    pub first: u32,
    /// So many there are; with 0 it is always the first one.
    pub pods: u32,
    /// Where the number stands in the frame.
    pub address_at: u32,
    /// Where the source port stands.
    pub port_at: u32,
    /// The last one that was used.
    pub port: u16,
    /// From one packet's port to that of the next.
    pub step: u16,
    /// Always 0.
    pub pad: [u16; 2],
}
