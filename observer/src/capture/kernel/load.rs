//! Loading programs that a signal may interrupt.

use aya::programs::ProgramError;
use std::io::ErrorKind;

/// How often a program is tried.
const TIMES: usize = 20;

/// Loads a program. The kernel's verifier gives up with EAGAIN where the thread has a signal to take, be it one that is
/// ignored; then it is tried again, as libbpf does.
pub fn patiently(load: impl FnMut() -> Result<(), ProgramError>) -> Result<(), ProgramError> {
    again(
        load,
        |error| matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == ErrorKind::WouldBlock),
    )
}

fn again<E>(mut load: impl FnMut() -> Result<(), E>, is_interrupted: impl Fn(&E) -> bool) -> Result<(), E> {
    for _ in 1..TIMES {
        match load() {
            Err(error) if is_interrupted(&error) => {}
            result => return result,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_interrupted_is_tried_again_and_nothing_else_is() {
        let failing = |kind: ErrorKind, times: usize| {
            let mut tried = 0;
            let load = || {
                tried += 1;
                if tried > times { Ok(()) } else { Err(kind) }
            };
            let result = again(load, |kind| *kind == ErrorKind::WouldBlock);
            (result.is_ok(), tried)
        };
        assert_eq!(failing(ErrorKind::WouldBlock, 3), (true, 4));
        assert_eq!(failing(ErrorKind::WouldBlock, usize::MAX), (false, TIMES));
        assert_eq!(failing(ErrorKind::PermissionDenied, 1), (false, 1));
    }
}
