//! What a server's error looks like.

use tonic::{Code, Status};

/// Hubble's form: `Unknown` carries a text for the user, all else is named.
pub(crate) fn text(status: &Status) -> String {
    let code = match status.code() {
        Code::Unknown => return status.message().to_owned(),
        // gRPC's own spelling in Go.
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}
