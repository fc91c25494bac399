//! What most filters ask of a flow, apart from it: a walk through all flows reads 16 bytes of each.

use crate::flow::Flow;
use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU64,
};

/// Of the source and of the destination; 0 where only the flow itself can tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    serials: [u32; 2],
    v4: [u32; 2],
}

/// Which of a flow's ends.
const SOURCE: usize = 0;
const DESTINATION: usize = 1;

impl Glance {
    #[inline]
    pub(super) fn of(flow: &Flow) -> Self {
        let serial = |serial: NonZeroU64| u32::try_from(serial.get()).unwrap_or(0);
        let v4 = |ip: Option<IpAddr>| match ip {
            Some(IpAddr::V4(ip)) => ip.to_bits(),
            _ => 0,
        };
        Self {
            serials: [serial(flow.source.serial()), serial(flow.destination.serial())],
            v4: [v4(flow.source_ip), v4(flow.destination_ip)],
        }
    }
}

/// A flow in the store.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its sequence number.
    pub sequence: u64,
    /// The record.
    pub flow: &'a Flow,
    glance: Glance,
}

impl<'a> Stored<'a> {
    #[inline]
    pub(super) fn new(sequence: u64, flow: &'a Flow, glance: Glance) -> Self {
        Self { sequence, flow, glance }
    }

    /// The number of the source's endpoint, [`crate::endpoint::Endpoint::serial`].
    #[inline]
    pub fn source_serial(&self) -> NonZeroU64 {
        NonZeroU64::new(self.glance.serials[SOURCE].into()).unwrap_or_else(|| self.flow.source.serial())
    }

    /// The number of the destination's endpoint.
    #[inline]
    pub fn destination_serial(&self) -> NonZeroU64 {
        NonZeroU64::new(self.glance.serials[DESTINATION].into())
            .unwrap_or_else(|| self.flow.destination.serial())
    }

    /// The source's address.
    #[inline]
    pub fn source_ip(&self) -> Option<IpAddr> {
        self.ip(SOURCE, |flow| flow.source_ip)
    }

    /// The destination's address.
    #[inline]
    pub fn destination_ip(&self) -> Option<IpAddr> {
        self.ip(DESTINATION, |flow| flow.destination_ip)
    }

    #[inline]
    fn ip(&self, side: usize, of: impl Fn(&Flow) -> Option<IpAddr>) -> Option<IpAddr> {
        match self.glance.v4[side] {
            0 => of(self.flow),
            bits => Some(Ipv4Addr::from_bits(bits).into()),
        }
    }
}
