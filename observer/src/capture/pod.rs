//! The one place where the daemon tells aya that a type may be copied to and from the kernel.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A value as it stands in a map or a global of the eBPF programs.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Raw<T>(pub(super) T);

// SAFETY: zerocopy has proven that T has no padding and that every bit pattern is a T; `repr(transparent)` keeps that.
#[expect(unsafe_code, reason = "aya's Pod is an unsafe trait; zerocopy's derives prove what it asks for")]
unsafe impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> aya::Pod for Raw<T> {}
