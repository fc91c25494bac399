//! The ends of a packet and of its connection.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// An address and a port; for ICMP echo the port is the echo identifier, for what has no ports it is 0.
///
/// It is copied, compared and hashed for each record, so it is kept in whole words, and all of them are compared: which
/// of two ends differ, and where, nobody can predict, and a wrong guess takes longer than the words.
#[derive(Clone, Copy, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "Shown", into = "Shown")]
pub struct End {
    /// Of an IPv4 address 0.
    high: u64,
    low: u64,
    port: u16,
    /// Tells ::10.0.0.1 from 10.0.0.1.
    is_v6: bool,
}

impl End {
    /// From its parts.
    #[inline]
    pub fn new(ip: IpAddr, port: u16) -> Self {
        match ip {
            IpAddr::V4(ip) => Self { high: 0, low: ip.to_bits().into(), port, is_v6: false },
            IpAddr::V6(ip) => Self::of_octets(ip.octets(), true, port),
        }
    }

    /// An IPv4 address stands in the last four octets.
    #[inline]
    pub(super) fn of_octets(octets: [u8; 16], is_v6: bool, port: u16) -> Self {
        let bits = u128::from_be_bytes(octets);
        let (high, low) = ((bits >> 64) as u64, bits as u64);
        if is_v6 {
            Self { high, low, port, is_v6 }
        } else {
            Self { high: 0, low: low & 0xffff_ffff, port, is_v6 }
        }
    }

    /// As [`End::words`] gives them.
    #[inline]
    pub(crate) fn of_words(high: u64, low: u64, port: u16, is_v6: bool) -> Self {
        Self { high, low, port, is_v6 }
    }

    /// The address.
    #[inline]
    pub fn ip(&self) -> IpAddr {
        if self.is_v6 {
            Ipv6Addr::from_bits(u128::from(self.high) << 64 | u128::from(self.low)).into()
        } else {
            Ipv4Addr::from_bits(self.low as u32).into()
        }
    }

    /// The port.
    #[inline]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same address with another port.
    #[inline]
    #[must_use]
    pub fn with_port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Whether the other end has the same address.
    #[inline]
    pub fn is_at(&self, other: &Self) -> bool {
        self.with_port(other.port) == *other
    }

    /// All of it in three words.
    #[inline]
    pub fn words(&self) -> [u64; 3] {
        [self.high, self.low, u64::from(self.port) | u64::from(self.is_v6) << 16]
    }
}

impl PartialEq for End {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = (self.words(), other.words());
        (own[0] ^ others[0]) | (own[1] ^ others[1]) | (own[2] ^ others[2]) == 0
    }
}

impl Hash for End {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low, port] = self.words();
        state.write_u128(u128::from(high) << 64 | u128::from(low));
        state.write_u64(port);
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::from((self.ip(), self.port)).fmt(f)
    }
}

/// An [`End`] as a recording has it.
#[derive(Serialize, Deserialize)]
struct Shown {
    ip: IpAddr,
    port: u16,
}

impl From<Shown> for End {
    fn from(Shown { ip, port }: Shown) -> Self {
        Self::new(ip, port)
    }
}

impl From<End> for Shown {
    fn from(end: End) -> Self {
        Self { ip: end.ip(), port: end.port }
    }
}

/// Both ends of a packet, as they stand in its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// Where it comes from.
    pub source: End,
    /// Where it goes to.
    pub destination: End,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Tuple {
    /// Whether the other is of the same connection, seen in either direction.
    #[expect(clippy::needless_bitwise_bool, reason = "which way a packet goes no branch can predict")]
    #[inline]
    pub fn is_of(&self, other: &Self) -> bool {
        let (from, to) = (&other.source, &other.destination);
        let forth = (self.source == *from) & (self.destination == *to);
        let back = (self.source == *to) & (self.destination == *from);
        (forth | back) & (self.protocol == other.protocol)
    }

    /// The same connection, seen in the other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}
