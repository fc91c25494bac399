//! Calls with a single answer, and what a server's error looks like.

use crate::settings::Settings;
use observer_proto::text::sanitize::clean;
use tonic::{Code, Request, Status};

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

/// With the limit for a single answer.
pub(crate) fn request<T>(settings: &Settings, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(settings.request_timeout);
    request
}
