//! What the API server says, handed in line by line: for tests, benches and fuzzing, which have no API server.

use crate::{
    Config, Shown,
    known::{Known, Sink},
    object::{self, Event, Resource},
};

/// All that is known, told by hand.
pub struct ByHand {
    known: Known,
    lists: [bool; Resource::ALL.len()],
}

impl ByHand {
    /// Nothing is known yet, and all is going to be listed.
    pub fn new(config: &Config, shown: Shown, sink: Box<dyn Sink>) -> Self {
        let mut by_hand =
            Self { known: Known::new(config, shown, sink), lists: [false; Resource::ALL.len()] };
        for resource in Resource::ALL {
            by_hand.begin(resource);
        }
        by_hand
    }

    /// All objects of a resource are listed anew, up to a bookmark that says so.
    pub fn begin(&mut self, resource: Resource) {
        self.known.begin(resource);
        self.lists[resource as usize] = true;
    }

    /// Ends the list, where one goes on.
    pub fn end(&mut self, resource: Resource) {
        if std::mem::take(&mut self.lists[resource as usize]) {
            self.known.end(resource);
        }
    }

    /// Takes a line of a watch. What can't be read is left out.
    pub fn line(&mut self, resource: Resource, line: &[u8]) -> Result<(), serde_json::Error> {
        match object::event(line)? {
            Event::Bookmark(_, true) => self.end(resource),
            Event::Bookmark(..) | Event::Ended(_) => {}
            event => _ = self.known.take(resource, &event, self.lists[resource as usize])?,
        }
        self.known.heard(resource);
        Ok(())
    }

    /// Tells what changed besides pods.
    pub fn flush(&mut self) {
        self.known.flush();
    }
}
