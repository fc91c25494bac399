//! What Hubble's layouts print of a flow, borrowed: from a message, or from its encoding, so that no message is made for
//! a line of text.

use super::parts::End;
use crate::{
    flow::{Flow, Layer7, Policy, layer4::Protocol, layer7::Record},
    json::{
        WriteError,
        wire::{Reader, Value},
    },
};
use prost_types::Timestamp;

/// A flow, as far as compact, dict and table print it. What a message may lack is there by its default where that prints
/// the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown<'a> {
    pub(super) time: Option<Timestamp>,
    pub(super) node_name: &'a str,
    pub(super) verdict: i32,
    pub(super) auth_type: i32,
    /// Of the source and of the destination, as all pairs here.
    pub(super) ips: Option<[&'a str; 2]>,
    pub(super) macs: Option<[&'a str; 2]>,
    pub(super) ports: [u32; 2],
    /// The field of `Layer4` that has the ports.
    transport: u32,
    pub(super) endpoints: [Endpoint<'a>; 2],
    pub(super) services: [Option<Service<'a>>; 2],
    pub(super) dns_names: [Vec<&'a str>; 2],
    pub(super) is_reply: Option<bool>,
    pub(super) event_type: i32,
    pub(super) sub_type: i32,
    pub(super) l7: Option<L7<'a>>,
    pub(super) policy_match_type: u32,
    pub(super) traffic_direction: i32,
    pub(super) sock_xlate_point: i32,
    pub(super) debug_capture_point: i32,
    pub(super) trace_id: u64,
    pub(super) summary: &'a str,
    pub(super) ingress: Policies<'a>,
    pub(super) egress: Policies<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Endpoint<'a> {
    pub(super) identity: u32,
    pub(super) namespace: &'a str,
    pub(super) pod_name: &'a str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Service<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct L7<'a> {
    pub(super) kind: i32,
    pub(super) record: L7Record<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum L7Record<'a> {
    #[default]
    None,
    /// With where it was observed.
    Dns(&'a str),
    Http,
    Kafka,
}

/// Names and kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Policies<'a> {
    pub(super) allowed: Vec<(&'a str, &'a str)>,
    pub(super) denied: Vec<(&'a str, &'a str)>,
}

impl<'a> Shown<'a> {
    /// From a message.
    pub fn of(flow: &'a Flow) -> Self {
        let (transport, ports) = match flow.l4.as_ref().and_then(|l4| l4.protocol.as_ref()) {
            Some(Protocol::Tcp(_)) => (1, true),
            Some(Protocol::Udp(_)) => (2, true),
            Some(Protocol::Sctp(_)) => (5, true),
            _ => (0, false),
        };
        let port = |end: End| if ports { end.port(flow) } else { 0 };
        let endpoint = |end: End| {
            end.endpoint(flow).map_or_else(Endpoint::default, |endpoint| Endpoint {
                identity: endpoint.identity,
                namespace: &endpoint.namespace,
                pod_name: &endpoint.pod_name,
            })
        };
        let service = |end: End| {
            end.service(flow).map(|service| Service { name: &service.name, namespace: &service.namespace })
        };
        let texts = |texts: &'a [String]| texts.iter().map(String::as_str).collect();
        let policies = |list: &'a [Policy]| {
            list.iter().map(|policy| (policy.name.as_str(), policy.kind.as_str())).collect()
        };
        let event = flow.event_type.unwrap_or_default();
        Self {
            time: flow.time,
            node_name: &flow.node_name,
            verdict: flow.verdict,
            auth_type: flow.auth_type,
            ips: flow.ip.as_ref().map(|ip| [ip.source.as_str(), ip.destination.as_str()]),
            macs: flow.ethernet.as_ref().map(|link| [link.source.as_str(), link.destination.as_str()]),
            ports: [port(End::Source), port(End::Destination)],
            transport,
            endpoints: [endpoint(End::Source), endpoint(End::Destination)],
            services: [service(End::Source), service(End::Destination)],
            dns_names: [texts(&flow.source_names), texts(&flow.destination_names)],
            is_reply: flow.is_reply,
            event_type: event.r#type,
            sub_type: event.sub_type,
            l7: flow.l7.as_ref().map(L7::of),
            policy_match_type: flow.policy_match_type,
            traffic_direction: flow.traffic_direction,
            sock_xlate_point: flow.sock_xlate_point,
            debug_capture_point: flow.debug_capture_point,
            trace_id: flow.ip_trace_id.map_or(0, |trace| trace.trace_id),
            #[expect(deprecated, reason = "it is the field that every Hubble fills and prints")]
            summary: &flow.summary,
            ingress: Policies {
                allowed: policies(&flow.ingress_allowed_by),
                denied: policies(&flow.ingress_denied_by),
            },
            egress: Policies {
                allowed: policies(&flow.egress_allowed_by),
                denied: policies(&flow.egress_denied_by),
            },
        }
    }

    /// From the encoding of a message; parts that stand there twice are put together as by the decoder.
    pub fn read(flow: &'a [u8]) -> Result<Self, WriteError> {
        let mut shown = Self::default();
        let mut reader = Reader::new(flow);
        while let Some((number, value)) = reader.field()? {
            match value {
                Value::Varint(bits) => shown.number(number, bits),
                Value::Bytes(bytes) => shown.bytes(number, bytes)?,
                Value::Fixed64(_) | Value::Fixed32(_) | Value::Group => {}
            }
        }
        Ok(shown)
    }

    fn number(&mut self, number: u32, bits: u64) {
        let signed = bits as i32;
        match number {
            2 => self.verdict = signed,
            22 => self.traffic_direction = signed,
            23 => self.policy_match_type = bits as u32,
            27 => self.debug_capture_point = signed,
            31 => self.sock_xlate_point = signed,
            35 => self.auth_type = signed,
            _ => {}
        }
    }

    fn bytes(&mut self, number: u32, bytes: &'a [u8]) -> Result<(), WriteError> {
        match number {
            1 => {
                let time = self.time.get_or_insert_default();
                fields(bytes, |number, value| {
                    match (number, value) {
                        (1, Value::Varint(bits)) => time.seconds = bits as i64,
                        (2, Value::Varint(bits)) => time.nanos = bits as i32,
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            4 => texts(bytes, self.macs.get_or_insert_default())?,
            5 => texts(bytes, self.ips.get_or_insert_default())?,
            6 => self.transport(bytes)?,
            8 | 9 => self.endpoints[number as usize - 8].read(bytes)?,
            11 => self.node_name = text(bytes)?,
            13 | 14 => self.dns_names[number as usize - 13].push(text(bytes)?),
            15 => self.l7.get_or_insert_default().read(bytes)?,
            19 => fields(bytes, |number, value| {
                match (number, value) {
                    (1, Value::Varint(bits)) => self.event_type = bits as i32,
                    (2, Value::Varint(bits)) => self.sub_type = bits as i32,
                    _ => {}
                }
                Ok(())
            })?,
            20 | 21 => {
                let service = self.services[number as usize - 20].get_or_insert_default();
                let mut both = [service.name, service.namespace];
                texts(bytes, &mut both)?;
                *service = Service { name: both[0], namespace: both[1] };
            }
            26 => {
                let is_reply = self.is_reply.get_or_insert_default();
                fields(bytes, |number, value| {
                    if let (1, Value::Varint(bits)) = (number, value) {
                        *is_reply = bits != 0;
                    }
                    Ok(())
                })?;
            }
            40 => fields(bytes, |number, value| {
                if let (1, Value::Varint(bits)) = (number, value) {
                    self.trace_id = bits;
                }
                Ok(())
            })?,
            100_000 => self.summary = text(bytes)?,
            21_001 => self.egress.allowed.push(policy(bytes)?),
            21_002 => self.ingress.allowed.push(policy(bytes)?),
            21_004 => self.egress.denied.push(policy(bytes)?),
            21_005 => self.ingress.denied.push(policy(bytes)?),
            _ => {}
        }
        Ok(())
    }

    /// A `Layer4`, of which the last protocol counts.
    fn transport(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        fields(bytes, |protocol, value| {
            let (1..=7, Value::Bytes(bytes)) = (protocol, value) else { return Ok(()) };
            let transport = if matches!(protocol, 1 | 2 | 5) { protocol } else { 0 };
            if transport != self.transport || transport == 0 {
                (self.transport, self.ports) = (transport, [0; 2]);
            }
            if transport == 0 {
                return Ok(());
            }
            fields(bytes, |number, value| {
                if let (1 | 2, Value::Varint(bits)) = (number, value) {
                    self.ports[number as usize - 1] = bits as u32;
                }
                Ok(())
            })
        })
    }
}

impl<'a> Endpoint<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), WriteError> {
        fields(bytes, |number, value| {
            match (number, value) {
                (2, Value::Varint(bits)) => self.identity = bits as u32,
                (3, Value::Bytes(bytes)) => self.namespace = text(bytes)?,
                (5, Value::Bytes(bytes)) => self.pod_name = text(bytes)?,
                _ => {}
            }
            Ok(())
        })
    }
}

impl<'a> L7<'a> {
    pub(super) fn of(l7: &'a Layer7) -> Self {
        let record = match &l7.record {
            Some(Record::Dns(dns)) => L7Record::Dns(&dns.observation_source),
            Some(Record::Http(_)) => L7Record::Http,
            #[expect(deprecated, reason = "servers before v1.20 send it")]
            Some(Record::Kafka(_)) => L7Record::Kafka,
            None => L7Record::None,
        };
        Self { kind: l7.r#type, record }
    }

    fn read(&mut self, bytes: &'a [u8]) -> Result<(), WriteError> {
        fields(bytes, |number, value| {
            match (number, value) {
                (1, Value::Varint(bits)) => self.kind = bits as i32,
                (100, Value::Bytes(dns)) => {
                    let mut source = if let L7Record::Dns(source) = self.record { source } else { "" };
                    fields(dns, |number, value| {
                        if let (5, Value::Bytes(bytes)) = (number, value) {
                            source = text(bytes)?;
                        }
                        Ok(())
                    })?;
                    self.record = L7Record::Dns(source);
                }
                (101, Value::Bytes(_)) => self.record = L7Record::Http,
                (102, Value::Bytes(_)) => self.record = L7Record::Kafka,
                _ => {}
            }
            Ok(())
        })
    }
}

/// Calls `each` with every field of a message.
#[inline]
fn fields<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, value)) = reader.field()? {
        each(number, value)?;
    }
    Ok(())
}

/// The fields 1 and 2, both texts.
fn texts<'a>(bytes: &'a [u8], both: &mut [&'a str; 2]) -> Result<(), WriteError> {
    fields(bytes, |number, value| {
        if let (1 | 2, Value::Bytes(bytes)) = (number, value) {
            both[number as usize - 1] = text(bytes)?;
        }
        Ok(())
    })
}

/// A policy's name and kind.
fn policy(bytes: &[u8]) -> Result<(&str, &str), WriteError> {
    let mut policy = ("", "");
    fields(bytes, |number, value| {
        match (number, value) {
            (1, Value::Bytes(bytes)) => policy.0 = text(bytes)?,
            (5, Value::Bytes(bytes)) => policy.1 = text(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(policy)
}

fn text(bytes: &[u8]) -> Result<&str, WriteError> {
    std::str::from_utf8(bytes).map_err(|_| WriteError::Utf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    /// A message given in pieces, and oneofs that change their mind.
    #[test]
    fn pieces_are_put_together_as_by_the_decoder() {
        let pieces: [&[u8]; 9] = [
            &[0x0a, 2, 0x08, 5],                      // time.seconds
            &[0x0a, 2, 0x10, 6],                      // time.nanos
            &[0x2a, 3, 0x0a, 1, b'a'],                // IP.source
            &[0x2a, 3, 0x12, 1, b'b'],                // IP.destination
            &[0x32, 4, 0x0a, 2, 0x08, 80],            // l4.TCP.source_port
            &[0x32, 4, 0x0a, 2, 0x10, 81],            // l4.TCP.destination_port
            &[0x7a, 6, 0xa2, 0x06, 3, 0x2a, 1, b'p'], // l7.dns.observation_source
            &[0x7a, 3, 0xa2, 0x06, 0],                // l7.dns
            &[0xa2, 0x01, 3, 0x0a, 1, b's'],          // source_service.name
        ];
        let same = |encoded: &[u8]| {
            let flow = Flow::decode(encoded).unwrap();
            assert_eq!(Shown::read(encoded), Ok(Shown::of(&flow)));
        };
        let mut encoded = pieces.concat();
        same(&encoded);
        for other in [&[0x32, 4, 0x12, 2, 0x10, 82][..], &[0x32, 2, 0x1a, 0], &[0x32, 4, 0x0a, 2, 0x10, 83]] {
            encoded.extend_from_slice(other);
            same(&encoded);
        }
        encoded.extend_from_slice(&[0x7a, 3, 0xaa, 0x06, 0]);
        same(&encoded);
        assert_eq!(Shown::read(&[0x5a, 1, 0xff]), Err(WriteError::Utf8));
    }
}
