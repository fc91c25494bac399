//! Standard output: when it is flushed, and what becomes of a reader that has gone.

use crate::Failure;
use rustix::termios::tcgetwinsize;
use std::{
    fs::File,
    future::pending,
    io::{self, BufWriter, IsTerminal as _, Write},
    os::fd::AsFd as _,
};
use tokio::{io::Interest, net::unix::pipe};

/// Enough for a few hundred lines a system call.
const BUFFER: usize = 64 * 1024;

/// Buffered standard output.
pub(crate) struct Output {
    /// Not `Stdout`, which would look for the last newline of what it gets, and hold back what is behind it.
    out: BufWriter<File>,
    /// Whether somebody watches, so that lines must show at once.
    pub(crate) live: bool,
    pub(crate) dirty: bool,
}

impl Output {
    /// Live on a terminal and when following.
    pub(crate) fn new(follow: bool) -> io::Result<Self> {
        let stdout = io::stdout();
        let live = follow || stdout.is_terminal();
        let file = File::from(stdout.as_fd().try_clone_to_owned()?);
        Ok(Self { out: BufWriter::with_capacity(BUFFER, file), live, dirty: false })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.dirty = true;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.dirty = false;
        self.out.flush()
    }
}

/// Ends when the reader of a pipe on standard output has gone: with no flow to write, nothing else would tell. Never
/// ends where standard output is something else.
pub(crate) async fn reader_gone() {
    // A copy that is only watched: it stays in the mode that standard output is in. Regular files can't be watched;
    // they have no reader either.
    let watched = io::stdout().as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd_unchecked);
    let Ok(watched) = watched else { return pending().await };
    if watched.ready(Interest::ERROR).await.is_err() {
        pending::<()>().await;
    }
}

/// Writes a whole text.
pub(crate) fn whole(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// How long a line on standard output may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LineWidth {
    Cells(usize),
    /// As the terminal has it, which its user may change.
    Terminal,
    /// A pipe or a file, whose reader wants the whole.
    Any,
}

impl LineWidth {
    /// `$COLUMNS` if it is set, also for a pipe; else the terminal decides.
    pub(crate) fn of_stdout() -> Self {
        let columns =
            std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|cells| *cells > 0);
        match columns {
            Some(cells) => Self::Cells(cells),
            None if io::stdout().is_terminal() => Self::Terminal,
            None => Self::Any,
        }
    }

    /// What it is now; `None` without a bound.
    pub(crate) fn cells(self) -> Option<usize> {
        match self {
            Self::Cells(cells) => Some(cells),
            // Some terminals, serial lines among them, don't know and say 0.
            Self::Terminal => {
                tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col.into()).filter(|cells| *cells > 0)
            }
            Self::Any => None,
        }
    }
}

/// `--color`: an unknown word acts as auto, as in Hubble.
pub(crate) fn color(when: &str) -> bool {
    match when {
        "always" => true,
        "never" => false,
        _ => automatic_color(|name| std::env::var(name).ok(), io::stdout().is_terminal()),
    }
}

/// The environment decides before the terminal: NO_COLOR, then CLICOLOR_FORCE, CLICOLOR and TERM.
fn automatic_color(variable: impl Fn(&str) -> Option<String>, is_terminal: bool) -> bool {
    let set = |name| variable(name).is_some_and(|value| !value.is_empty());
    if set("NO_COLOR") {
        return false;
    }
    if set("CLICOLOR_FORCE") && variable("CLICOLOR_FORCE").as_deref() != Some("0") {
        return true;
    }
    is_terminal && variable("CLICOLOR").as_deref() != Some("0") && variable("TERM").as_deref() != Some("dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_variable_decides_on_colors() {
        for (variables, on_terminal, elsewhere) in [
            (&[][..], true, false),
            (&[("NO_COLOR", "")], true, false),
            (&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], false, false),
            (&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")], true, true),
            (&[("CLICOLOR_FORCE", "0")], true, false),
            (&[("CLICOLOR", "0")], false, false),
            (&[("TERM", "dumb")], false, false),
            (&[("TERM", "xterm")], true, false),
        ] {
            let variable = |name: &str| {
                variables.iter().find(|row| row.0 == name).map(|row: &(&str, &str)| row.1.to_owned())
            };
            assert_eq!(automatic_color(variable, true), on_terminal, "{variables:?}");
            assert_eq!(automatic_color(variable, false), elsewhere, "{variables:?}");
        }
    }
}
