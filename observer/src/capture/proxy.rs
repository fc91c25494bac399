//! Telling the programs that judge where the proxy is.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use observer_ebpf::proxy::ProxyState;

use super::error::CaptureError;
use super::pod::Raw;

const NAME: &str = "PROXY";

/// The programs' word of the proxy. They begin without one: then whole connections pass whose requests are to be judged.
pub struct ProxySwitch(Array<MapData, Raw<ProxyState>>);

impl std::fmt::Debug for ProxySwitch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxySwitch")
    }
}

impl ProxySwitch {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, CaptureError> {
        let map = ebpf.take_map(NAME);
        let map = map.ok_or(CaptureError::Map { name: NAME, error: "not in the object".into() })?;
        Ok(Self(Array::try_from(map).map_err(CaptureError::map(NAME))?))
    }

    /// From now on connections go to these ports of the loopback addresses, 0 where a family has none; `lets_pass` says
    /// whether they pass by while nobody listens there.
    pub fn turn_on(&mut self, ipv4: u16, ipv6: u16, lets_pass: bool) -> Result<(), CaptureError> {
        let state = ProxyState { ipv4, ipv6, is_on: 1, lets_pass: u16::from(lets_pass) };
        self.0.set(0, Raw(state), 0).map_err(CaptureError::map(NAME))
    }
}
