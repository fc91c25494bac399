//! The user's terminal: taken, given back whatever happens, and what is typed in it.

use crate::{
    keys::{Code, Key},
    state::reduce::Event,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use crossterm::{
    cursor, event,
    event::{KeyCode, KeyEventKind, KeyModifiers, MouseEventKind},
    execute, terminal,
};
use ratatui::{Terminal, backend::CrosstermBackend};
use std::{
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

/// Terminals take no more of a copied text.
const MOST_COPIED: usize = 74_994;
/// A screen is written in few system calls.
const BUFFER: usize = 64 * 1024;

/// Whether the dashboard has the terminal. Leaving the other screen twice would put the cursor back to where it
/// was (xterm's mode 1049), and the shell would write over what was said of a panic.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

type Backend = CrosstermBackend<BufWriter<Stdout>>;

/// The terminal while the dashboard has it. Dropping it gives it back.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<Backend>,
    has_mouse: bool,
}

impl Screen {
    /// Takes the terminal, and with it the mouse if that is wanted.
    pub(crate) fn enter(has_mouse: bool) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // What is said of a panic must be readable.
                let _ = leave();
                before(info);
            }));
        });
        take(has_mouse)?;
        let out = BufWriter::with_capacity(BUFFER, io::stdout());
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(out))?, has_mouse })
    }

    /// Back to the shell, and here again when it says so.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        leave()?;
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)?;
        take(self.has_mouse)?;
        self.terminal.clear()
    }

    /// Puts a text into the clipboard of the user's terminal (OSC 52), which may be on another machine.
    pub(crate) fn copy(&mut self, text: &str) -> io::Result<()> {
        let encoded = BASE64_STANDARD.encode(text);
        if encoded.len() > MOST_COPIED {
            return Err(io::Error::other("it is too long for a terminal's clipboard; e writes a file"));
        }
        let out = self.terminal.backend_mut();
        write!(out, "\x1b]52;c;{encoded}\x07")?;
        io::Write::flush(out)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody to tell that it can't be written to any more.
        let _ = leave();
    }
}

fn take(has_mouse: bool) -> io::Result<()> {
    IS_TAKEN.store(true, Ordering::Relaxed);
    terminal::enable_raw_mode()?;
    if has_mouse {
        execute!(io::stdout(), event::EnableMouseCapture)?;
    }
    execute!(io::stdout(), terminal::EnterAlternateScreen, event::EnableBracketedPaste, cursor::Hide)
}

/// Once after each taking.
fn leave() -> io::Result<()> {
    if !IS_TAKEN.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    // Of a mouse that was not taken this changes nothing.
    let shown = execute!(
        io::stdout(),
        event::DisableMouseCapture,
        event::DisableBracketedPaste,
        terminal::LeaveAlternateScreen,
        cursor::Show
    );
    terminal::disable_raw_mode()?;
    shown
}

/// Whether there is a terminal to read from and to write to; if not, why that is no use.
pub fn check() -> Result<(), String> {
    for (name, is_terminal) in [("input", io::stdin().is_terminal()), ("output", io::stdout().is_terminal())]
    {
        if !is_terminal {
            return Err(format!(
                "observe tui needs a terminal, and standard {name} is none: for pipes and files there is `observe -f -o json`"
            ));
        }
    }
    Ok(())
}

/// What was typed, without the terminal's types; none for what says nothing here.
pub(crate) fn event(event: event::Event) -> Option<Event> {
    match event {
        event::Event::Key(key) if key.kind != KeyEventKind::Release => {
            let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
            Some(Event::Key(Key { code: code(key.code)?, ctrl }))
        }
        event::Event::Mouse(mouse) => {
            let code = match mouse.kind {
                MouseEventKind::ScrollUp => Code::Up,
                MouseEventKind::ScrollDown => Code::Down,
                _ => return None,
            };
            Some(Event::Key(Key { code, ctrl: false }))
        }
        event::Event::Paste(text) => Some(Event::Paste(text)),
        event::Event::Resize(across, down) => Some(Event::Resize(across.into(), down.into())),
        _ => None,
    }
}

fn code(code: KeyCode) -> Option<Code> {
    Some(match code {
        KeyCode::Char(letter) => Code::Char(letter),
        KeyCode::F(number) => Code::F(number),
        KeyCode::Enter => Code::Enter,
        KeyCode::Esc => Code::Esc,
        KeyCode::Tab => Code::Tab,
        KeyCode::BackTab => Code::BackTab,
        KeyCode::Backspace => Code::Backspace,
        KeyCode::Delete => Code::Delete,
        KeyCode::Up => Code::Up,
        KeyCode::Down => Code::Down,
        KeyCode::Left => Code::Left,
        KeyCode::Right => Code::Right,
        KeyCode::PageUp => Code::PageUp,
        KeyCode::PageDown => Code::PageDown,
        KeyCode::Home => Code::Home,
        KeyCode::End => Code::End,
        _ => return None,
    })
}
