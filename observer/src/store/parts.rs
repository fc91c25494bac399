//! What flows have in common. A segment's flows have numbers for it, so that to keep and to free a flow counts nothing.

use crate::{
    endpoint::{Endpoint, Service},
    flow::{DropSite, Link, Record, Translated, Tunnel},
    layer7::Layer7,
    policy_verdict::PolicyVerdict,
};
use std::sync::Arc;

/// Something that flows have in common.
#[derive(Clone, Debug)]
pub(super) enum Part {
    End(Arc<Endpoint>),
    Service(Arc<Service>),
    Link(Arc<Link>),
    Tunnel(Arc<Tunnel>),
    Drop(Arc<DropSite>),
    Policy(Arc<PolicyVerdict>),
    Translated(Arc<Translated>),
    L7(Arc<Layer7>),
    Several(Arc<Causes>),
}

/// The causes of a flow that has more of them than a drop and its policy verdict have places for. No stage makes such a
/// flow today.
#[derive(Clone, Debug)]
pub(super) struct Causes {
    pub(super) drop: Option<Arc<DropSite>>,
    pub(super) policy: Option<Arc<PolicyVerdict>>,
    pub(super) l7: Option<Arc<Layer7>>,
}

macro_rules! kinds {
    ($($name:ident: $kind:ident($part:ty)),+) => {
        impl Part {
            $(
                /// Where it is one.
                #[inline]
                pub(super) fn $name(&self) -> Option<&Arc<$part>> {
                    if let Self::$kind(part) = self { Some(part) } else { None }
                }
            )+
        }
    };
}

kinds!(
    end: End(Endpoint),
    service: Service(Service),
    link: Link(Link),
    tunnel: Tunnel(Tunnel),
    drop: Drop(DropSite),
    policy: Policy(PolicyVerdict),
    translated: Translated(Translated),
    l7: L7(Layer7),
    several: Several(Causes)
);

/// The place of a part in its segment: the block that brought it, and where in that block's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(u16);

impl Number {
    /// Of nothing.
    pub(super) const NONE: Self = Self(u16::MAX);
    const INDEX_BITS: u32 = 11;
    /// The most blocks of a segment that can be told apart.
    pub(super) const BLOCKS: usize = 1 << (u16::BITS - Self::INDEX_BITS);
    /// The most parts of a block.
    pub(super) const PARTS: usize = (1 << Self::INDEX_BITS) - 1;

    pub(super) fn new(block: usize, index: usize) -> Self {
        debug_assert!(block < Self::BLOCKS && index < Self::PARTS, "part {index} of block {block}");
        Self((block << Self::INDEX_BITS | index) as u16)
    }

    pub(super) fn block(self) -> usize {
        usize::from(self.0 >> Self::INDEX_BITS)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0) & Self::PARTS
    }
}

/// The parts of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    pub(super) source: Number,
    pub(super) destination: Number,
    pub(super) source_service: Number,
    pub(super) destination_service: Number,
    pub(super) link: Number,
    /// A tunnel, else of a drop the policy verdict.
    pub(super) around: Number,
    /// A place of a drop, else a policy verdict, else what was said inside a connection; or what has room nowhere else.
    pub(super) cause: Number,
    pub(super) translated: Number,
}

impl Numbers {
    /// How many there are of one flow.
    pub(super) const MOST: usize = 8;
}

/// A flow as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) record: Record,
    pub(super) numbers: Numbers,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store of a million flows is 144 MB with their glances; a field more is 8 MB more.
    #[test]
    fn a_kept_flow_is_small() {
        let bytes = size_of::<Kept>();
        assert!(bytes <= 120, "{bytes} bytes");
    }

    #[test]
    fn a_number_says_where_the_part_is() {
        for block in [0, 1, Number::BLOCKS - 1] {
            for index in [0, 1, Number::PARTS - 1] {
                let number = Number::new(block, index);
                assert_eq!((number.block(), number.index()), (block, index));
                assert_ne!(number, Number::NONE);
            }
        }
    }
}
