//! stub
#[derive(Debug, thiserror::Error)]
#[error("x")]
/// x
pub struct LocalError;
