//! How connections are handed to the daemon's transparent proxy: the marks on packets, and what the programs are told.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The mark of a packet that is to reach the proxy, under [`TO_PROXY_MASK`]; a routing rule delivers such packets to the
/// node itself. Cilium's is the same, and means the same.
pub const TO_PROXY: u32 = 0x0200;
/// Of a packet's mark, the part that says where it goes.
pub const TO_PROXY_MASK: u32 = 0x0f00;
/// The bit that stands in the mark of what the proxy's sockets send. A socket is given it by root only, so it also tells
/// the proxy's listener from somebody else's on its port.
pub const FROM_PROXY: u32 = 0x2000;

/// The bit that stands beside [`TO_PROXY`] while a packet goes through a bridge that is to be given the proxy's listener
/// behind it. The programs take it away there.
pub const FOR_LISTENER: u32 = 0x1000;

/// Where the proxy listens: on the loopback addresses, where nobody from outside finds it; for UDP at the same ports as for
/// TCP. One entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct ProxyState {
    /// The port on 127.0.0.1, in host order; 0 where there is none.
    pub ipv4: u16,
    /// The port on `::1`.
    pub ipv6: u16,
    /// 1 where connections are handed over at all.
    pub is_on: u16,
    /// 1 where they pass as they are while nobody listens, 0 where they are dropped then.
    pub lets_pass: u16,
}

/// How a packet comes from a link to the node's own sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct LinkWay {
    /// One of [`way`].
    pub way: u16,
    /// Of [`way::PORT`]: the bridge's own address.
    pub bridge_mac: [u8; 6],
}

/// The numbers of [`LinkWay::way`].
pub mod way {
    /// The node routes what comes in there.
    pub const ROUTED: u16 = 0;
    /// A bridge switches it. A socket that is assigned there is lost in the bridge, so it is assigned where the packet leaves
    /// the bridge upwards, which its address says.
    pub const PORT: u16 = 1;
    /// The bridge itself: what its ports sent upwards.
    pub const BRIDGE: u16 = 2;
}

const _: () = assert!(size_of::<LinkWay>() == 8 && size_of::<ProxyState>() == 8);
