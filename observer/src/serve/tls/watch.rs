//! Looks at the files again and again: they may be replaced by a rename, over a symlink as Kubernetes does, or in
//! place, and reading them costs less than following all that.

use super::{Certificate, load::Contents};
use std::{sync::Arc, time::Duration};

/// A change is in use after two to three of these.
const INTERVAL: Duration = Duration::from_secs(1);

/// Follows the files of what was loaded with `first` in them, for ever.
pub(super) async fn follow(certificate: Arc<Certificate>, first: Contents) {
    let mut changes = Changes { taken: first.clone(), seen: first };
    loop {
        tokio::time::sleep(INTERVAL).await;
        let read = {
            let certificate = Arc::clone(&certificate);
            move || Contents::read(&certificate.files)
        };
        // An error means that the runtime ends.
        let Ok(contents) = tokio::task::spawn_blocking(read).await else { return };
        if changes.look(contents) {
            certificate.take(&changes.taken);
        }
    }
}

/// What was in the files.
#[derive(Debug)]
struct Changes {
    /// When they were last taken, with success or without.
    taken: Contents,
    /// At the last look.
    seen: Contents,
}

impl Changes {
    /// Whether what is in them now is to be taken: it is new, and stayed for two looks, as certificate and key change one
    /// after the other.
    fn look(&mut self, contents: Contents) -> bool {
        let settled = contents == self.seen;
        if !settled {
            self.seen = contents;
            return false;
        }
        if self.seen == self.taken {
            return false;
        }
        self.taken = contents;
        true
    }
}
