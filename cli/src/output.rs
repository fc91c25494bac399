//! Standard output: when it is flushed, and what becomes of a reader that has gone.

use crate::Failure;
use rustix::termios::tcgetwinsize;
use std::{
    future::pending,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write},
    os::fd::AsFd as _,
};
use tokio::{io::Interest, net::unix::pipe};

/// Enough for a few hundred lines a system call.
const BUFFER: usize = 64 * 1024;

/// Buffered standard output.
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    /// Whether somebody watches, so that lines must show at once.
    pub(crate) live: bool,
    pub(crate) dirty: bool,
}

impl Output {
    /// Live on a terminal and when following.
    pub(crate) fn new(follow: bool) -> Self {
        let stdout = io::stdout();
        let live = follow || stdout.is_terminal();
        Self { out: BufWriter::with_capacity(BUFFER, stdout), live, dirty: false }
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
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    match when {
        "always" => true,
        "never" => false,
        _ => {
            !set("NO_COLOR")
                && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
                && io::stdout().is_terminal()
        }
    }
}
