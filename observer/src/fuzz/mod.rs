//! What must hold for anything that comes from outside; called by the fuzzer and by a test with its corpora. Each
//! function panics where something does not hold.
#![expect(clippy::missing_panics_doc, reason = "they do nothing else")]
#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

mod dynamic;
mod inventory;
mod record;
mod recording;

pub use crate::{history::fuzz::history, serve::fuzz::request, track::fuzz::conntrack};
pub use dynamic::dynamic;
pub use inventory::inventory;
pub use record::record;
pub use recording::recording;

use observer_proto::{
    json,
    observer::GetFlowsResponse,
    text::{self, Options, sanitize},
};
use prost::Message as _;

/// Reads one gRPC message as a client does; what is read must be all that was written, and printable.
pub(crate) fn read_message(framed: &[u8]) -> GetFlowsResponse {
    let (head, message) = framed.split_at(5);
    assert_eq!(head, [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
    let response = GetFlowsResponse::decode(message).unwrap();
    let line = json::line(&response).unwrap();
    assert!(!line.contains('\n'));
    let mut line = String::new();
    text::flows_response(Options::default(), &response, &mut line).unwrap();
    assert!(line.strip_suffix('\n').is_some_and(|line| !line.contains(sanitize::is_unsafe)), "{line:?}");
    response
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// A corpus and what holds for it.
    type Check = (&'static str, fn(&[u8]));

    #[test]
    fn the_corpora_hold() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let checks: [Check; 7] = [
            ("conntrack", super::conntrack),
            ("dynamic", super::dynamic),
            ("history", super::history),
            ("inventory", super::inventory),
            ("record", super::record),
            ("recording", super::recording),
            ("request", super::request),
        ];
        for (name, check) in checks {
            let files: Vec<_> =
                fs::read_dir(corpora.join(name)).unwrap().map(|f| f.unwrap().path()).collect();
            assert!(!files.is_empty(), "{name}");
            for file in files {
                println!("{}", file.display());
                check(&fs::read(file).unwrap());
            }
        }
    }
}
