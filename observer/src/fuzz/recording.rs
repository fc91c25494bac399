use crate::{pipeline::replay_bytes, recording::read_all, store::StoreConfig};

/// A recording file: what can be read of it is played, and a refusal is one line.
pub fn recording(data: &[u8]) {
    let store = StoreConfig { flows: 1024, bytes: usize::MAX };
    match (read_all(data), replay_bytes(data, store)) {
        (Ok(totals), Ok((store, _, played))) => {
            assert_eq!(totals.cut, played.cut);
            assert_eq!(store.seen(), played.flows);
        }
        (Err(refused), Err(again)) => {
            assert_eq!(refused.to_string(), again.to_string());
            assert!(!refused.to_string().contains('\n'), "{refused}");
        }
        (read, _) => panic!("read and played differ: {read:?}"),
    }
}
