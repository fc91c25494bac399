//! Files that are followed: looked at again and again, since they may be replaced by a rename, over a symlink as Kubernetes
//! does, or in place, and a look costs less than following all that.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often to look.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// What users are promised for a change.
const IN_USE_WITHIN: Duration = Duration::from_secs(5);
// The next look sees the change, the one behind it takes it; half of the time is left for reading, on a slow machine.
const _: () = assert!(2 * 2 * INTERVAL.as_secs() <= IN_USE_WITHIN.as_secs());

/// Folders in folders; a link to a folder above ends here.
const MAX_FOLDERS: usize = 16;
/// Files of a folder that are looked at.
const MAX_FILES: usize = 100_000;

/// What tells one content of a file from another without reading it; nothing where it can't be looked at.
type Stamp = (PathBuf, Option<[i64; 5]>);

/// Files that belong together; of a folder all that are in it.
#[derive(Debug)]
pub(crate) struct Followed {
    paths: Vec<PathBuf>,
    /// As they were when they were last taken, with success or without.
    taken: Vec<Stamp>,
    /// At the last look.
    seen: Vec<Stamp>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// What was taken last.
    Same,
    /// Something new since the last look: there may be more to come.
    Changing,
    /// Something new, which stayed for two looks: to be taken now.
    Changed,
}

impl Followed {
    /// These files as they are; to be read after this.
    pub(crate) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let seen = stamps(&paths);
        Self { paths, taken: seen.clone(), seen }
    }

    /// Looks at them. What is new waits for the look behind: it may be written in pieces, and one file after another.
    pub(crate) fn look(&mut self) -> Look {
        let now = stamps(&self.paths);
        if now != self.seen {
            self.seen = now;
            return Look::Changing;
        }
        if now == self.taken {
            return Look::Same;
        }
        self.taken = now;
        Look::Changed
    }

    /// Whether they are what the last look found. What was read in between may else be of two versions; it is no loss, as
    /// the next look finds something new.
    pub(crate) fn are_whole(&self) -> bool {
        stamps(&self.paths) == self.seen
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let mut stamps = Vec::with_capacity(paths.len());
    for path in paths {
        stamp(path, 0, &mut stamps);
    }
    stamps
}

fn stamp(path: &Path, depth: usize, stamps: &mut Vec<Stamp>) {
    let meta = fs::metadata(path).ok();
    stamps.push((path.to_owned(), meta.as_ref().map(content)));
    if depth < MAX_FOLDERS && meta.is_some_and(|meta| meta.is_dir()) {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort_unstable();
        paths.truncate(MAX_FILES.saturating_sub(stamps.len()));
        for path in &paths {
            stamp(path, depth + 1, stamps);
        }
    }
}

fn content(meta: &fs::Metadata) -> [i64; 5] {
    // Not the time of modification, which can be set, and which new rights do not change.
    let changed = [meta.ctime(), meta.ctime_nsec()];
    [meta.dev().cast_signed(), meta.ino().cast_signed(), meta.size().cast_signed(), changed[0], changed[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_taken_at_the_second_look_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["certificate", "key"].map(|name| folder.path().join(name));
        let write = |index: usize, text: &str| fs::write(&paths[index], text).unwrap();
        write(0, "one");
        let mut files = Followed::new(paths.clone());
        let mut looks = |count| (0..count).map(|_| files.look()).collect::<Vec<_>>();
        assert_eq!(looks(2), [Look::Same; 2]);

        write(0, "two!");
        assert_eq!(looks(3), [Look::Changing, Look::Changed, Look::Same]);
        // One after the other, each between two looks.
        write(0, "three");
        assert_eq!(looks(1), [Look::Changing]);
        write(1, "three");
        assert_eq!(looks(3), [Look::Changing, Look::Changed, Look::Same]);
        // As bad as a file that can't be read is one that is gone, and its return is a change.
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&paths[1], &elsewhere).unwrap();
        assert_eq!(looks(3), [Look::Changing, Look::Changed, Look::Same]);
        fs::rename(&elsewhere, &paths[1]).unwrap();
        assert_eq!(looks(3), [Look::Changing, Look::Changed, Look::Same]);
        assert!(files.are_whole());
        write(1, "fourth");
        assert!(!files.are_whole());
    }
    #[test]
    fn a_folder_is_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "one").unwrap();
        let mut files = Followed::new([folder.path().to_owned()]);
        let mut three = || [files.look(), files.look(), files.look()];
        assert_eq!(three(), [Look::Same; 3]);
        let changed = [Look::Changing, Look::Changed, Look::Same];
        fs::write(path("b"), "new").unwrap();
        assert_eq!(three(), changed);
        fs::create_dir(path("c")).unwrap();
        fs::write(path("c/d"), "deeper").unwrap();
        assert_eq!(three(), changed);
        fs::write(path("c/d"), "in place").unwrap();
        assert_eq!(three(), changed);
        fs::remove_file(path("a")).unwrap();
        assert_eq!(three(), changed);
    }
}
