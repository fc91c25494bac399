//! Where a server is.
