//! Who opened the connections that are older than the programs.

use std::net::SocketAddr;

use observer_ebpf::policy::OpenerKey;

use super::error::CaptureError;
use super::object::Object;
use super::pod::Raw;
use super::tables::bytes;

/// A connection as its opener's packets show it somewhere on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Who opened it.
    pub opener: SocketAddr,
    /// Who was called.
    pub responder: SocketAddr,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Object {
    /// See [`super::Loaded::tell_openers`].
    pub(super) fn tell_openers(
        &mut self,
        openers: impl Iterator<Item = Opener>,
    ) -> Result<usize, CaptureError> {
        const NAME: &str = "OPENERS";
        if !self.is_judging() {
            return Ok(0);
        }
        let mut map = self.hash::<Raw<OpenerKey>, u32>(NAME)?;
        let mut left_out = 0;
        for Opener { opener, responder, protocol } in openers {
            let key = OpenerKey {
                opener: bytes(opener.ip()),
                responder: bytes(responder.ip()),
                opener_port: opener.port(),
                responder_port: responder.port(),
                protocol: protocol.into(),
            };
            // Full, or out of memory: what is left out is judged as what nobody knows of.
            left_out += usize::from(map.insert(Raw(key), 1, 0).is_err());
        }
        Ok(left_out)
    }
}
