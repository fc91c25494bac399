//! The loop: keys first, then what the reader tells in bounded portions, then drawing, only if something changed.

use crate::{
    config::Config,
    draw::draw,
    effects::{Next, Outside},
    filter::Filter,
    link::{Ask, Message},
    prompt::History,
    state::{
        State,
        reduce::{Effect, Event},
    },
    terminal::{self, Screen},
    theme::Theme,
};
use crossterm::event::EventStream;
use std::{
    collections::VecDeque,
    fs, io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::StreamExt as _;

/// Between two drawings while flows come.
const FRAME: Duration = Duration::from_millis(100);
/// Between two drawings while somebody types.
const TYPED_FRAME: Duration = Duration::from_millis(33);
/// The clock on the screen moves.
const CLOCK: Duration = Duration::from_secs(1);
/// Of what the reader tells at once.
const MOST_MESSAGES: usize = 2000;
const MOST_TIME: Duration = Duration::from_millis(5);
/// Of a slice of work that nobody waits for.
const SLICE_TIME: Duration = Duration::from_millis(2);
/// The clock is looked at once in so many messages.
const CHECKED: usize = 64;

/// What the dashboard is to be.
#[derive(Debug)]
pub struct Options {
    /// The server or the files, as their user calls them.
    pub name: String,
    /// Files in place of a server.
    pub is_file: bool,
    /// The filter at the start.
    pub filter: Filter,
    /// Colours.
    pub theme: Theme,
    /// ASCII only.
    pub is_ascii: bool,
    /// The wheel moves through rows; text is then selected with Shift.
    pub has_mouse: bool,
    /// What the configuration file says.
    pub config: Config,
    /// Where filters of before are kept.
    pub history: Option<PathBuf>,
}

/// Shows it until the user ends it.
pub async fn run(
    options: Options,
    messages: mpsc::Receiver<Message>,
    asks: mpsc::Sender<Ask>,
) -> Result<(), String> {
    terminal::check()?;
    let theme = options.theme;
    let look = options.config.look(options.is_ascii)?;
    let mut state = State::new(look, options.name, options.is_file, options.filter, now());
    if let Some(text) = options.history.as_ref().and_then(|path| fs::read_to_string(path).ok()) {
        state.history = History::read(&text);
    }
    let failed = |error: io::Error| format!("cannot use the terminal: {error}");
    let screen = Screen::enter(options.has_mouse).map_err(failed)?;
    let outside = Outside::new(asks, options.history);
    let mut looped = Loop { state, theme, screen, outside, messages, dirty: true, drawn: None, typed: true };
    looped.run().await.map_err(failed)
}

struct Loop {
    state: State,
    theme: Theme,
    screen: Screen,
    outside: Outside,
    messages: mpsc::Receiver<Message>,
    /// Something to see changed since it was drawn.
    dirty: bool,
    drawn: Option<Instant>,
    /// It was the user who changed it.
    typed: bool,
}

impl Loop {
    async fn run(&mut self) -> io::Result<()> {
        let mut events = EventStream::new();
        let mut ends = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()]
            .map(signal)
            .into_iter()
            .collect::<io::Result<Vec<_>>>()?;
        let mut stop = signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?;
        let size = self.screen.terminal.size()?;
        let first = self.state.begin();
        let resized = Event::Resize(size.width.into(), size.height.into());
        if self.apply(first).await? || self.event(resized).await? {
            return Ok(());
        }
        let mut told = VecDeque::new();
        let mut buffer = Vec::new();
        let mut is_open = true;
        loop {
            self.draw_if_due()?;
            let due = self.due();
            let [terminate, hangup, interrupt] = &mut ends[..] else { return Ok(()) };
            let is_over = tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => match terminal::event(event) {
                        Some(event) => {
                            self.typed = true;
                            self.event(event).await?
                        }
                        None => false,
                    },
                    // The terminal has gone.
                    Some(Err(_)) | None => true,
                },
                _ = terminate.recv() => true,
                _ = hangup.recv() => true,
                _ = interrupt.recv() => true,
                _ = stop.recv() => self.apply(vec![Effect::Suspend]).await?,
                count = self.messages.recv_many(&mut buffer, MOST_MESSAGES), if is_open && told.is_empty() => {
                    is_open = count > 0;
                    told.extend(buffer.drain(..));
                    self.take(&mut told).await?
                }
                () = std::future::ready(()), if !told.is_empty() => self.take(&mut told).await?,
                () = std::future::ready(()), if self.state.has_work() => {
                    self.work();
                    // Who else has something to do comes first.
                    tokio::task::yield_now().await;
                    false
                }
                () = sleep_until(due) => {
                    self.outside.flush()?;
                    // The clock on the screen.
                    self.event(Event::Tick).await?
                }
            };
            if is_over {
                return self.outside.flush();
            }
        }
    }

    /// When to look again, if nothing happens.
    fn due(&self) -> Instant {
        let drawn = self.drawn.unwrap_or_else(Instant::now);
        match (self.dirty, self.typed) {
            (true, true) => drawn + TYPED_FRAME,
            (true, false) => drawn + FRAME,
            (false, _) => drawn + CLOCK,
        }
    }

    fn draw_if_due(&mut self) -> io::Result<()> {
        let now = Instant::now();
        if !self.dirty || self.drawn.is_some() && now < self.due() {
            return Ok(());
        }
        let (state, theme) = (&self.state, self.theme);
        self.screen.terminal.draw(|frame| draw(state, theme, frame))?;
        (self.dirty, self.typed, self.drawn) = (false, false, Some(now));
        Ok(())
    }

    /// Takes in a portion of what was told; whether it is over.
    async fn take(&mut self, told: &mut VecDeque<Message>) -> io::Result<bool> {
        let began = Instant::now();
        for count in 1.. {
            let Some(message) = told.pop_front() else { break };
            if self.event(Event::Told(message)).await? {
                return Ok(true);
            }
            if count % CHECKED == 0 && began.elapsed() > MOST_TIME {
                break;
            }
        }
        // The reader is a task on this thread.
        tokio::task::yield_now().await;
        Ok(false)
    }

    fn work(&mut self) {
        let began = Instant::now();
        while self.state.has_work() && began.elapsed() < SLICE_TIME {
            self.dirty |= self.state.work();
        }
    }

    /// Takes in an event; whether it is over.
    async fn event(&mut self, event: Event) -> io::Result<bool> {
        let mut effects = Vec::new();
        self.dirty |= self.state.reduce(event, now(), &mut effects);
        self.apply(effects).await
    }

    async fn apply(&mut self, effects: Vec<Effect>) -> io::Result<bool> {
        for effect in effects {
            match self.outside.apply(effect, &mut self.screen).await? {
                Next::On => {}
                Next::Quit => return Ok(true),
                Next::Tell(event) => {
                    // A word of what was done leads to nothing else.
                    self.dirty |= self.state.reduce(event, now(), &mut Vec::new());
                }
            }
            self.dirty = true;
        }
        Ok(false)
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(0))
}
