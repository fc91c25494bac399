//! Policies: who answers about them, the daemon or their files, and what the answers look like.

mod cases;
mod explained;
mod listed;
mod recorded;
mod replay;
mod report;
mod source;
mod words;

pub(crate) use cases::{Cases, Run};
pub(crate) use explained::explained;
pub(crate) use listed::{in_mode, listed, shown};
pub(crate) use replay::Replay;
pub(crate) use report::{Layout, report};
pub(crate) use source::{ControlArgs, FileArgs, Judge, Judgement, LayoutArgs, Source, SourceArgs};
pub(crate) use words::{end, port, request};
