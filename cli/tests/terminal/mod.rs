//! A terminal for the program under test.
#![allow(dead_code, reason = "each program uses its own part of this")]

use rustix::{
    fs::{Mode, OFlags, open as open_file},
    io::Errno,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use std::{fs::File, io::Read as _, os::fd::OwnedFd};

/// Both ends of a new pseudo-terminal.
pub(crate) struct Terminal {
    pub(crate) ours: File,
    pub(crate) for_child: OwnedFd,
}

pub(crate) fn open() -> Terminal {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let for_child = open_file(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    Terminal { ours: ours.into(), for_child }
}

/// One whose lines have this many cells.
pub(crate) fn of_width(cells: u16) -> Terminal {
    let terminal = open();
    let size = Winsize { ws_row: 24, ws_col: cells, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal.ours, size).unwrap();
    terminal
}

/// All that was written, after the last writer has closed its end.
pub(crate) fn read(mut terminal: File) -> String {
    let mut text = Vec::new();
    // Linux ends a terminal without writers with EIO, after what was written.
    if let Err(error) = terminal.read_to_end(&mut text) {
        assert_eq!(Errno::from_io_error(&error), Some(Errno::IO));
    }
    String::from_utf8(text).unwrap()
}
