//! The live dashboard. Its views come with the issue that builds it; the crate stands so that the arrows of the workspace are drawn.
#![forbid(unsafe_code)]
