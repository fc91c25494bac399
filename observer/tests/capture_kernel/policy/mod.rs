//! Verdicts of policies in the kernel, by maps that the tests fill.

mod live;
