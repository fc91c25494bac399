//! The stages for a bench that makes the records itself. Built with the feature `bench` only.

use super::{Shared, Stages};
use crate::{
    enrich::ipcache::IpCache,
    recording::{Head, Input},
    store::Writer,
};
use std::sync::Arc;

/// All stages after capture.
pub struct Feed(Stages);

impl Feed {
    /// Ready for the first input. Every drop has the same place.
    pub fn new(head: &Head, cache: Arc<IpCache>, writer: Writer) -> Self {
        let symbols = Box::new(|_| Ok("nf_hook_slow+0xab".to_owned()));
        Self(Stages::new(head, symbols, cache, writer, Shared::default(), None))
    }

    /// Takes in what capture would give.
    pub fn take(&mut self, input: &Input<'_>) {
        self.0.take(input);
    }
}
