//! The user's terminal is given back after a panic.

#[path = "../../../cli/tests/tmux/mod.rs"]
mod tmux;

use crate::terminal::Screen;
use crossterm::event::{Event, KeyCode, read};
use tmux::Tmux;

/// Set where a dashboard is to panic.
const PANICS: &str = "OBSERVE_TEST_PANICS";

/// What the next one runs in a terminal of its own; nothing elsewhere.
#[test]
fn a_dashboard_that_panics() {
    if std::env::var_os(PANICS).is_none() {
        return;
    }
    let _screen = Screen::enter(true).unwrap();
    // That key alone: of an answer of the terminal that comes in two parts the first looks like Escape.
    while !matches!(read(), Ok(Event::Key(key)) if key.code == KeyCode::Char('x')) {}
    panic!("as it was meant to");
}

#[test]
fn a_panic_gives_the_terminal_back_and_can_be_read() {
    let own = std::env::current_exe().unwrap();
    let tmux = Tmux(format!("observe-panic-{}", std::process::id()));
    let test = "tests::terminal::a_dashboard_that_panics";
    let line = format!(
        "RUST_BACKTRACE=0 {PANICS}=1 {} --exact {test} --nocapture; stty -a; echo ended",
        own.display()
    );
    tmux.start("panic", (100, 40), &line);
    tmux.until("panic", "the other screen", |_| tmux.is_full_screen("panic"));
    tmux.keys("panic", &["x"]);
    let screen = tmux.shows("panic", &["ended"]);
    // Nothing has written over it: each of its lines is whole.
    for said in ["as it was meant to", "note: run with `RUST_BACKTRACE=1`"] {
        assert!(screen.lines().any(|line| line.starts_with(said)), "{said}:\n{screen}");
    }
    assert!(!tmux.is_full_screen("panic"));
    // Not raw any more: it shows what is typed, and lines end with Enter.
    let words: Vec<&str> = screen.split_whitespace().collect();
    assert!(words.contains(&"echo") && words.contains(&"icanon"), "{screen}");
}
