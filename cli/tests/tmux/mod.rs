//! A terminal multiplexer, in which programs have a whole terminal and a test reads their screens.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

/// How long a screen is waited for: far longer than it takes. Only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A server of tmux by a name of its own, ended with the test.
pub(crate) struct Tmux(pub(crate) String);

impl Tmux {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.0, "-f", "/dev/null"]).args(arguments);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A terminal of this size that runs a line of shell, and stays after it.
    pub(crate) fn start(&self, session: &str, (across, down): (u16, u16), line: &str) {
        let [across, down] = [across, down].map(|cells| cells.to_string());
        let line = format!("{line}; exec sleep 1000");
        self.run(&["new-session", "-d", "-s", session, "-x", &across, "-y", &down, &line]);
    }

    /// Keys by tmux's names.
    pub(crate) fn keys(&self, session: &str, keys: &[&str]) {
        self.run(&[&["send-keys", "-t", session], keys].concat());
    }

    /// Text as it is.
    pub(crate) fn types(&self, session: &str, text: &str) {
        self.run(&["send-keys", "-t", session, "-l", "--", text]);
    }

    pub(crate) fn screen(&self, session: &str) -> String {
        self.run(&["capture-pane", "-p", "-t", session])
    }

    /// Whether the program has the other screen, which goes with it.
    pub(crate) fn is_full_screen(&self, session: &str) -> bool {
        self.run(&["display-message", "-p", "-t", session, "#{alternate_on}"]).trim() == "1"
    }

    /// The screen, once it is as wanted.
    pub(crate) fn until(&self, session: &str, wanted: &str, is: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen(session);
            if is(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{wanted} is not on the screen:\n{screen}");
            // A screen has no event for its changes.
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The screen, once all of these are on it.
    pub(crate) fn shows(&self, session: &str, texts: &[&str]) -> String {
        self.until(session, &format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contains(text)))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        // It may have ended with its last session.
        let _ = self.command(&["kill-server"]).output();
    }
}
