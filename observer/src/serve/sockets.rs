//! Unix sockets: taken or stale, owner and mode, removed at the end.

use super::ServeError;
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
};

/// Who may connect.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access<'a> {
    /// The owner only: 0600.
    Owner,
    /// Also this group: 0660; if the machine doesn't have it, the owner only.
    Group(&'a str),
}

/// A socket file that is removed when this is dropped, if it is still the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // A file that stays is found stale at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path`. A socket that nobody listens on is replaced; one in use is refused.
pub(super) fn bind(path: &Path, access: Access<'_>) -> Result<(UnixListener, SocketFile), ServeError> {
    let fail = |what: &'static str| {
        let path = path.to_owned();
        move |error: io::Error| ServeError::Socket { path, what, error }
    };
    refuse_taken(path)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.exists() {
        fs::create_dir(parent).map_err(fail("make the directory of"))?;
    }
    let directory = fs::metadata(parent).map_err(fail("look at the directory of"))?.mode();
    // In a sticky directory (/tmp) others can't put their own socket in the place of ours.
    if directory & 0o1002 == 0o002 {
        return Err(ServeError::OpenDirectory { path: path.to_owned() });
    }
    // Made under another name, so that nobody can connect before owner and mode are right.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let _ = fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(fail("bind"))?;
    let ready = set_access(&temporary, path, access)
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| fs::symlink_metadata(&temporary))
        .and_then(|made| fs::rename(&temporary, path).map(|()| made.ino()));
    match ready {
        Ok(inode) => Ok((listener, SocketFile { path: path.to_owned(), inode })),
        Err(error) => {
            let _ = fs::remove_file(&temporary);
            Err(fail("set owner and mode of")(error))
        }
    }
}

fn refuse_taken(path: &Path) -> Result<(), ServeError> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(ServeError::NoSocket { path: path.to_owned() }),
        Ok(_) => match UnixStream::connect(path) {
            // Nobody listens any more.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            // Connected, or alive but too busy to answer.
            _ => Err(ServeError::Taken { path: path.to_owned() }),
        },
        Err(_) => Ok(()),
    }
}

fn set_access(file: &Path, path: &Path, access: Access<'_>) -> io::Result<()> {
    let mode = match access {
        Access::Owner => 0o600,
        Access::Group(name) => match group_id(name) {
            None => {
                tracing::warn!(
                    "{}: no group {name:?} on this machine; only root can connect",
                    path.display()
                );
                0o600
            }
            Some(group) => match chown(file, None, Some(group)) {
                Ok(()) => 0o660,
                Err(error) => {
                    tracing::warn!(
                        "{}: can't give it to group {name:?}: {error}; only its owner can connect",
                        path.display()
                    );
                    0o600
                }
            },
        },
    };
    fs::set_permissions(file, fs::Permissions::from_mode(mode))
}

/// From /etc/group: a static binary has no name service to ask.
fn group_id(name: &str) -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hubble.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = bind(&path, Access::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);

        let error = bind(&path, Access::Owner).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("another process is listening on {}; stop it, or choose another path", path.display())
        );
        drop(listener);
        drop(file);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn another_files_path_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hubble.sock");
        fs::write(&path, "text").unwrap();
        let error = bind(&path, Access::Owner).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("{} exists and is no socket; move it away or choose another path", path.display())
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn a_world_writable_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = bind(&directory.path().join("hubble.sock"), Access::Owner).unwrap_err();
        assert!(matches!(error, ServeError::OpenDirectory { .. }), "{error}");
    }

    #[test]
    fn the_group_decides_over_the_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hubble.sock");
        let no_group = bind(&path, Access::Group("observer-no-such-group")).unwrap();
        assert_eq!(mode(&path), 0o600);
        drop(no_group);
        let with_group = bind(&path, Access::Group("root")).unwrap();
        let expected = if rustix::process::geteuid().is_root() { 0o660 } else { 0o600 };
        assert_eq!(mode(&path), expected);
        drop(with_group);
    }

    #[test]
    fn a_socket_of_a_successor_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hubble.sock");
        let first = bind(&path, Access::Owner).unwrap();
        drop(first.0);
        let second = bind(&path, Access::Owner).unwrap();
        drop(first.1);
        assert!(path.exists());
        drop(second);
    }
}
