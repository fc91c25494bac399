//! Calls with a single answer, and what a server's error looks like.

use crate::settings::Settings;
use tonic::{Code, Request, Status};

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

/// With the limit for a single answer.
pub(crate) fn request<T>(settings: &Settings, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(settings.request_timeout);
    request
}
