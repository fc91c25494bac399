//! Requests that were refused, among drops: no packet was dropped, and the kernel has no reason for them.

use crate::flow::{Layer7, layer7::Record};

const HTTP: &str = "HTTP request denied";
const DNS: &str = "DNS query denied";
const OTHER: &str = "Request denied";

/// What stands in the place of a drop's reason.
pub fn reason(request: Option<&Layer7>) -> &'static str {
    match request.and_then(|l7| l7.record.as_ref()) {
        Some(Record::Http(_)) => HTTP,
        Some(Record::Dns(_)) => DNS,
        _ => OTHER,
    }
}

/// The filter's flag and its value that, with the verdict, ask for those of such a reason.
pub fn flag(reason: &str) -> Option<(&'static str, &'static str)> {
    match reason {
        HTTP => Some(("protocol", "http")),
        DNS => Some(("protocol", "dns")),
        OTHER => Some(("type", "l7")),
        _ => None,
    }
}
