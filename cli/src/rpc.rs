//! What a server's error looks like.

use observer_proto::text::sanitize::clean;
use tonic::{Code, Status};

/// Hubble's form: `Unknown` carries a text for the user, all else is named. It is for a terminal.
pub(crate) fn text(status: &Status) -> String {
    let mut message = String::new();
    // Writing to a string can't fail.
    let _ = clean(status.message(), &mut message);
    let code = match status.code() {
        Code::Unknown => return message,
        // gRPC's own spelling in Go.
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    };
    format!("rpc error: code = {code} desc = {message}")
}
