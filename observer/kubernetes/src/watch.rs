//! The watches: each resource is listed, then followed, and asked for again where that breaks.

use crate::{
    Config, Shown,
    api::{Api, Trouble},
    board::Board,
    known::{Known, Sink},
    object::{self, Event, Page, Resource},
    pace::{Pace, Timing},
};
use std::{
    convert::Infallible,
    fmt::Write as _,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet, time::Instant};

/// Objects of a page, where lists come in pages.
const PAGE: usize = 500;

/// Follows all resources, for ever; dropping it ends all watches.
pub async fn run(config: Config, shown: Shown, sink: Box<dyn Sink>) -> Infallible {
    let timing = config.timing.clone();
    let shared = Arc::new(Shared {
        api: Api::new(config.access.clone(), timing.clone()),
        board: Arc::clone(&shown.board),
        known: Mutex::new(Known::new(&config, shown, sink)),
        pace: Pace::new(timing.clone()),
        lists_stream: AtomicBool::new(true),
        changed: Notify::new(),
        timing,
    });
    let mut watches = JoinSet::new();
    for resource in shared.board.resources() {
        let watch = Watch {
            resource,
            shared: Arc::clone(&shared),
            version: None,
            wants_stream: false,
            is_there: false,
            is_new: true,
            complaint: None,
        };
        watches.spawn(watch.follow());
    }
    shared.tell().await
}

struct Shared {
    api: Api,
    known: Mutex<Known>,
    board: Arc<Board>,
    pace: Pace,
    timing: Timing,
    /// Whether the API server begins a watch with a list (Kubernetes 1.32; else a list is asked for in pages).
    lists_stream: AtomicBool,
    /// Something besides pods has changed.
    changed: Notify,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Known) -> R) -> R {
        let mut known = self.known();
        let result = change(&mut known);
        if known.is_dirty() {
            self.changed.notify_one();
        }
        result
    }

    /// Tells of what changed besides pods, many changes together; where that takes long, less often.
    async fn tell(&self) -> Infallible {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(self.timing.batch).await;
            let begun = Instant::now();
            self.known().flush();
            tokio::time::sleep(begun.elapsed() * 5).await;
        }
    }
}

struct Watch {
    resource: Resource,
    shared: Arc<Shared>,
    /// What was told last; nothing where all is to be told anew.
    version: Option<String>,
    /// Whether the request that goes on is for a watch that begins with a list.
    wants_stream: bool,
    /// Whether the API server knows the resource, as of its last word.
    is_there: bool,
    /// It was never asked for with an answer.
    is_new: bool,
    /// The last thing that was said about a failure, so that each is said once.
    complaint: Option<String>,
}

/// A time between these, by chance: not all nodes of a cluster are to ask at once.
fn between(range: &std::ops::Range<Duration>) -> Duration {
    let chance = RandomState::new().build_hasher().finish();
    range.start
        + range.end.saturating_sub(range.start).mul_f64(f64::from(chance as u32) / f64::from(u32::MAX))
}

impl Watch {
    async fn follow(mut self) -> Infallible {
        let shared = Arc::clone(&self.shared);
        shared.pace.turn(Duration::ZERO, true).await;
        let (mut failures, mut expired) = (0, false);
        loop {
            let begun = Instant::now();
            let mut has_told = false;
            let outcome = self.once(&mut has_told).await;
            expired &= !has_told;
            if begun.elapsed() >= shared.timing.longest_wait {
                failures = 0;
            }
            let trouble = match outcome {
                Ok(()) if begun.elapsed() >= shared.timing.first_wait => continue,
                Ok(()) => Trouble::Unreachable("the watch ended at once".to_owned()),
                Err(Trouble::Expired) if !std::mem::replace(&mut expired, true) => {
                    self.version = None;
                    continue;
                }
                // It can't begin a watch with a list, or does not know the words for it.
                Err(Trouble::Refused { code: 400 | 422, .. }) if self.wants_stream => {
                    shared.lists_stream.store(false, Ordering::Relaxed);
                    self.wants_stream = false;
                    continue;
                }
                Err(trouble) => trouble,
            };
            failures += 1;
            if self.resource.is_optional() && trouble.code() == 404 {
                self.is_absent(failures).await;
                continue;
            }
            // One that has just started may not know yet who may do what.
            self.complain(&trouble, failures > 1 && trouble.is_refusal());
            if trouble.is_refusal() {
                shared.pace.answered();
            }
            let of_all = match trouble {
                // Of a token that is no good any more there may be another by now.
                Trouble::Unreachable(_) | Trouble::Access(_) | Trouble::Refused { code: 401, .. } => {
                    shared.api.forget();
                    true
                }
                Trouble::Refused { code, .. } => code == 429 || code >= 500,
                Trouble::Expired | Trouble::Malformed(_) => {
                    // What was cut on its way is whole the next time; what is not is not asked for again.
                    if failures > 1 {
                        self.version = None;
                    }
                    false
                }
            };
            if of_all {
                shared.pace.failed();
            }
            // A server that wants to be left alone is, but not for so long that names get old for that alone.
            let longest = shared.timing.longest_wait * 2;
            let asked_for = trouble.retry_after().map_or(Duration::ZERO, |wait| wait.min(longest));
            shared.pace.turn(shared.timing.wait(failures).max(asked_for), of_all).await;
        }
    }

    /// The definition is not there. One that was is missed once only by an API server that has just started.
    async fn is_absent(&mut self, failures: u32) {
        let shared = &self.shared;
        shared.pace.answered();
        if self.is_there && failures < 2 {
            return shared.pace.turn(shared.timing.longest_wait, false).await;
        }
        if self.is_there {
            tracing::info!(resource = self.resource.name(), "not known to the Kubernetes API any more");
        }
        self.version = None;
        if std::mem::replace(&mut self.is_there, false) || std::mem::replace(&mut self.is_new, false) {
            shared.change(|known| known.none(self.resource));
        }
        shared.board.absent(self.resource);
        shared.pace.turn(shared.timing.absent, false).await;
    }

    /// Tells of a failure: those who ask always, the log each reason once.
    fn complain(&mut self, trouble: &Trouble, is_refused: bool) {
        let text = trouble.to_string();
        self.shared.board.failed(self.resource, text.clone(), is_refused);
        self.shared.change(|known| known.can_not_have(self.resource));
        if self.complaint.as_ref() != Some(&text) {
            let resource = self.resource.name();
            tracing::warn!(resource, "the Kubernetes API can't be followed: {text}; what is known stays");
            self.complaint = Some(text);
        }
    }

    fn is_answered(&mut self) {
        self.shared.pace.answered();
        self.is_there = true;
    }

    fn is_well(&mut self) {
        if self.complaint.take().is_some() {
            tracing::info!(resource = self.resource.name(), "the Kubernetes API is followed again");
        }
    }

    /// Lists, where that is due, and follows until that ends.
    async fn once(&mut self, has_told: &mut bool) -> Result<(), Trouble> {
        let lists_stream = self.shared.lists_stream.load(Ordering::Relaxed);
        self.wants_stream = self.version.is_none() && lists_stream;
        if self.version.is_none() && !lists_stream {
            self.list(has_told).await?;
        }
        let shared = Arc::clone(&self.shared);
        let time = between(&shared.timing.watch);
        let path = self.resource.path();
        let from = match &self.version {
            Some(version) => format!("resourceVersion={version}"),
            None => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=".to_owned(),
        };
        let seconds = time.as_secs().max(1);
        let path = format!("{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&{from}");
        let mut lines = shared.api.lines(&path).await?;
        self.is_answered();
        let mut is_list = self.version.is_none();
        shared.change(|known| {
            if is_list {
                known.begin(self.resource);
            } else {
                known.goes_on(self.resource);
            }
        });
        while let Some(line) = lines.next(time + shared.timing.answer).await? {
            let event = object::event(line).map_err(|error| Trouble::Malformed(error.to_string()))?;
            match &event {
                Event::Ended(_) => {}
                Event::Bookmark(version, ends_list) => {
                    if is_list && *ends_list {
                        is_list = false;
                        shared.change(|known| known.end(self.resource));
                    }
                    if !is_list {
                        self.version = Some(version.clone());
                    }
                }
                Event::Applied(_) | Event::Deleted(_) => {
                    match shared.change(|known| known.take(self.resource, &event, is_list)) {
                        Ok(version) if !is_list && !version.is_empty() => self.version = Some(version),
                        Ok(_) => {}
                        Err(error) => self.can_not_read(&error),
                    }
                }
            }
            if let Event::Ended(status) = event {
                return Err(Trouble::refused(status, None));
            }
            *has_told = true;
            shared.change(|known| known.heard(self.resource));
            self.is_well();
        }
        if is_list {
            // It said less than it was to.
            return Err(Trouble::Unreachable("the list ended before its end".to_owned()));
        }
        shared.change(|known| known.heard(self.resource));
        self.is_well();
        Ok(())
    }

    /// Asks for all objects, page by page.
    async fn list(&mut self, has_told: &mut bool) -> Result<(), Trouble> {
        let shared = Arc::clone(&self.shared);
        let path = self.resource.path();
        let mut goes_on = String::new();
        loop {
            let page = shared.api.page(&format!("{path}?limit={PAGE}{goes_on}")).await?;
            self.is_answered();
            let page: Page<'_> =
                serde_json::from_slice(&page).map_err(|error| Trouble::Malformed(error.to_string()))?;
            if goes_on.is_empty() {
                shared.change(|known| known.begin(self.resource));
            }
            for item in page.items {
                if let Err(error) =
                    shared.change(|known| known.take(self.resource, &Event::Applied(item), true))
                {
                    self.can_not_read(&error);
                }
            }
            *has_told = true;
            shared.change(|known| known.heard(self.resource));
            if page.metadata.goes_on.is_empty() {
                shared.change(|known| known.end(self.resource));
                self.version = Some(page.metadata.resource_version);
                return Ok(());
            }
            goes_on = format!("&continue={}", escaped(&page.metadata.goes_on));
        }
    }

    fn can_not_read(&self, error: &serde_json::Error) {
        let text = format!("an object can't be read: {error}").replace(char::is_control, " ");
        if self.shared.board.of(self.resource).is_some_and(|status| status.malformed == 0) {
            tracing::warn!(
                resource = self.resource.name(),
                "{text}; it is left out, and further ones are counted"
            );
        }
        self.shared.board.malformed(self.resource, text);
    }
}

/// As it stands in a query.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
