//! The files that say what to export and what to measure.

use crate::{dynamic, export, metrics};
use observer_inventory::yaml::Fault;
use std::fmt::Debug;

/// The text of either file.
pub fn dynamic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    holds(text, export::fuzz);
    holds(text, metrics::fuzz);
}

/// It is read, always to the same, or its fault is one line with a place in the text.
fn holds<T: Debug + PartialEq>(text: &str, read: impl Fn(&str) -> dynamic::Checked<T>) {
    let found = read(text);
    if let Err(fault) = &found {
        let Fault { line, .. } = fault;
        let told = fault.to_string();
        assert!(!told.contains(char::is_control), "{told:?}");
        assert!(*line as usize <= text.split(['\n', '\r']).count(), "{told}");
    }
    assert_eq!(read(text), found);
}
