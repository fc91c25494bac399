//! The program in a terminal of its own, whose screen is known cell by cell.
#![allow(dead_code, reason = "each program uses its own part of this")]

use rustix::termios::{Winsize, tcsetwinsize};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

/// How long a screen is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running program.
pub(crate) struct Screen {
    pub(crate) child: Child,
    keyboard: File,
    shown: Arc<(Mutex<vt100::Parser>, Condvar)>,
}

impl Screen {
    /// Starts it; cells across and down.
    pub(crate) fn start(mut command: Command, (across, down): (u16, u16)) -> Self {
        let terminal = crate::terminal::open();
        let size = Winsize { ws_row: down, ws_col: across, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal.ours, size).unwrap();
        let end = || terminal.for_child.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let shown = Arc::new((Mutex::new(vt100::Parser::new(down, across, 0)), Condvar::new()));
        let mut output = terminal.ours.try_clone().unwrap();
        let to = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 16_384];
            // Linux ends a terminal without writers with an error.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                to.0.lock().unwrap().process(&bytes[..count]);
                to.1.notify_all();
            }
        });
        Self { child, keyboard: terminal.ours, shown }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the text of the screen is as wanted; how long that took.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> Duration {
        let began = Instant::now();
        let (parser, changed) = &*self.shown;
        let mut parser = parser.lock().unwrap();
        loop {
            let text = parser.screen().contents();
            if is(&text) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{what} is not on the screen:\n{text}");
            parser = changed.wait_timeout(parser, PATIENCE).unwrap().0;
        }
    }

    pub(crate) fn shows(&self, text: &str) -> Duration {
        self.until(text, |screen| screen.contains(text))
    }

    /// Reads the screen as it is.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&vt100::Screen) -> T) -> T {
        read(self.shown.0.lock().unwrap().screen())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
