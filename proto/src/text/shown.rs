//! What Hubble's layouts print of a flow, borrowed: from a message, or from its encoding, so that no message is made for
//! a line of text.

use super::{Options, foreign::Foreign, parts::End};
use crate::{
    flow::{Flow, Layer7, Policy, layer4::Protocol, layer7::Record},
    json::{
        WriteError,
        wire::{self, END, Reader, Value, bytes_key, varints},
    },
};
use prost_types::Timestamp;

/// Of the fields that are read, in a flow and in an endpoint.
mod key {
    use crate::json::wire::{bytes_key, varint_key};

    pub(super) const TIME: u32 = bytes_key(1);
    pub(super) const VERDICT: u32 = varint_key(2);
    pub(super) const IP: u32 = bytes_key(5);
    pub(super) const L4: u32 = bytes_key(6);
    pub(super) const SOURCE: u32 = bytes_key(8);
    pub(super) const DESTINATION: u32 = bytes_key(9);
    pub(super) const NODE_NAME: u32 = bytes_key(11);
    pub(super) const SOURCE_NAMES: u32 = bytes_key(13);
    pub(super) const DESTINATION_NAMES: u32 = bytes_key(14);
    pub(super) const L7: u32 = bytes_key(15);
    pub(super) const EVENT_TYPE: u32 = bytes_key(19);
    pub(super) const SOURCE_SERVICE: u32 = bytes_key(20);
    pub(super) const DESTINATION_SERVICE: u32 = bytes_key(21);
    pub(super) const TRAFFIC_DIRECTION: u32 = varint_key(22);
    pub(super) const POLICY_MATCH_TYPE: u32 = varint_key(23);
    pub(super) const IS_REPLY: u32 = bytes_key(26);
    pub(super) const DEBUG_CAPTURE_POINT: u32 = varint_key(27);
    pub(super) const SOCK_XLATE_POINT: u32 = varint_key(31);
    pub(super) const AUTH_TYPE: u32 = varint_key(35);
    pub(super) const IP_TRACE_ID: u32 = bytes_key(40);
    pub(super) const EGRESS_ALLOWED_BY: u32 = bytes_key(21_001);
    pub(super) const INGRESS_ALLOWED_BY: u32 = bytes_key(21_002);
    pub(super) const EGRESS_DENIED_BY: u32 = bytes_key(21_004);
    pub(super) const INGRESS_DENIED_BY: u32 = bytes_key(21_005);
    pub(super) const SUMMARY: u32 = bytes_key(100_000);

    pub(super) const IDENTITY: u32 = varint_key(2);
    pub(super) const NAMESPACE: u32 = bytes_key(3);
    pub(super) const POD_NAME: u32 = bytes_key(5);
}

/// A flow, as far as compact, dict and table print it. What a message may lack is there by its default where that prints
/// the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown<'a> {
    pub(super) time: Option<Timestamp>,
    pub(super) node_name: Foreign<'a>,
    pub(super) verdict: i32,
    pub(super) auth_type: i32,
    /// Of the source and of the destination, as all pairs here.
    pub(super) ips: Option<[Foreign<'a>; 2]>,
    /// Where there are no addresses.
    pub(super) macs: Option<[Foreign<'a>; 2]>,
    pub(super) ports: [u32; 2],
    /// The field of `Layer4` that has the ports.
    transport: u32,
    pub(super) endpoints: [Endpoint<'a>; 2],
    pub(super) services: [Option<Service<'a>>; 2],
    pub(super) dns_names: [Vec<Foreign<'a>>; 2],
    pub(super) is_reply: Option<bool>,
    pub(super) event_type: i32,
    pub(super) sub_type: i32,
    pub(super) l7: Option<L7<'a>>,
    pub(super) policy_match_type: u32,
    pub(super) traffic_direction: i32,
    pub(super) sock_xlate_point: i32,
    pub(super) debug_capture_point: i32,
    pub(super) trace_id: u64,
    pub(super) summary: Foreign<'a>,
    pub(super) ingress: Policies<'a>,
    pub(super) egress: Policies<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Endpoint<'a> {
    pub(super) identity: u32,
    pub(super) namespace: Foreign<'a>,
    pub(super) pod_name: Foreign<'a>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Service<'a> {
    pub(super) name: Foreign<'a>,
    pub(super) namespace: Foreign<'a>,
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
    Dns(Foreign<'a>),
    Http,
    Kafka,
}

/// Names and kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Policies<'a> {
    pub(super) allowed: Vec<(Foreign<'a>, Foreign<'a>)>,
    pub(super) denied: Vec<(Foreign<'a>, Foreign<'a>)>,
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
                namespace: endpoint.namespace.as_str().into(),
                pod_name: endpoint.pod_name.as_str().into(),
            })
        };
        let service = |end: End| {
            end.service(flow).map(|service| Service {
                name: service.name.as_str().into(),
                namespace: service.namespace.as_str().into(),
            })
        };
        let pair = |source: &'a str, destination: &'a str| [source.into(), destination.into()];
        let texts = |texts: &'a [String]| texts.iter().map(|text| text.as_str().into()).collect();
        let policies = |list: &'a [Policy]| {
            list.iter().map(|policy| (policy.name.as_str().into(), policy.kind.as_str().into())).collect()
        };
        let event = flow.event_type.unwrap_or_default();
        Self {
            time: flow.time,
            node_name: flow.node_name.as_str().into(),
            verdict: flow.verdict,
            auth_type: flow.auth_type,
            ips: flow.ip.as_ref().map(|ip| pair(&ip.source, &ip.destination)),
            macs: flow
                .ethernet
                .as_ref()
                .filter(|_| flow.ip.is_none())
                .map(|link| pair(&link.source, &link.destination)),
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
            summary: flow.summary.as_str().into(),
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

    /// From the encoding of a message; parts that stand there twice are put together as by the decoder. What the options leave
    /// out is not looked at. It is shown where it was read: to move it would take as long as to read a part of it.
    pub fn read(options: Options, flow: &[u8], show: &mut dyn FnMut(&Shown<'_>)) -> Result<(), WriteError> {
        let mut shown = Shown::default();
        shown.fill(options, flow)?;
        show(&shown);
        Ok(())
    }

    fn fill(&mut self, options: Options, flow: &'a [u8]) -> Result<(), WriteError> {
        let mut reader = Reader::new(flow);
        loop {
            match reader.next_key()? {
                END => break,
                key::VERDICT => self.verdict = reader.varint()? as i32,
                key::TRAFFIC_DIRECTION => self.traffic_direction = reader.varint()? as i32,
                key::POLICY_MATCH_TYPE => self.policy_match_type = reader.varint()? as u32,
                key::DEBUG_CAPTURE_POINT => self.debug_capture_point = reader.varint()? as i32,
                key::SOCK_XLATE_POINT => self.sock_xlate_point = reader.varint()? as i32,
                key::AUTH_TYPE => self.auth_type = reader.varint()? as i32,
                key::TIME => {
                    wire::timestamp(reader.delimited()?, self.time.get_or_insert_default())?;
                }
                key::IP => texts(reader.delimited()?, self.ips.get_or_insert_default())?,
                key::L4 => self.transport(reader.delimited()?)?,
                key::SOURCE => self.endpoints[0].read(reader.delimited()?)?,
                key::DESTINATION => self.endpoints[1].read(reader.delimited()?)?,
                key::NODE_NAME if options.node_names => self.node_name = Foreign::read(reader.delimited()?)?,
                key::SOURCE_NAMES => self.dns_names[0].push(Foreign::read(reader.delimited()?)?),
                key::DESTINATION_NAMES => self.dns_names[1].push(Foreign::read(reader.delimited()?)?),
                key::L7 => self.l7.get_or_insert_default().read(reader.delimited()?)?,
                key::EVENT_TYPE => varints(reader.delimited()?, |number, bits| match number {
                    1 => self.event_type = bits as i32,
                    2 => self.sub_type = bits as i32,
                    _ => {}
                })?,
                key::SOURCE_SERVICE => self.services[0].get_or_insert_default().read(reader.delimited()?)?,
                key::DESTINATION_SERVICE => {
                    self.services[1].get_or_insert_default().read(reader.delimited()?)?;
                }
                key::IS_REPLY => {
                    let is_reply = self.is_reply.get_or_insert_default();
                    first_number(reader.delimited()?, |bits| *is_reply = bits != 0)?;
                }
                key::IP_TRACE_ID => first_number(reader.delimited()?, |bits| self.trace_id = bits)?,
                key::SUMMARY => self.summary = Foreign::read(reader.delimited()?)?,
                key @ key::EGRESS_ALLOWED_BY..=key::INGRESS_DENIED_BY if options.policy_names => {
                    self.policy(key, &mut reader)?;
                }
                key => reader.pass(key)?,
            }
        }
        if self.ips.is_none() {
            self.read_macs(flow)?;
        }
        Ok(())
    }

    fn read_macs(&mut self, flow: &'a [u8]) -> Result<(), WriteError> {
        let macs = &mut self.macs;
        fields(flow, |number, value| match (number, value) {
            (4, Value::Bytes(bytes)) => texts(bytes, macs.get_or_insert_default()),
            _ => Ok(()),
        })
    }

    fn policy(&mut self, key: u32, reader: &mut Reader<'a>) -> Result<(), WriteError> {
        let list = match key {
            key::EGRESS_ALLOWED_BY => &mut self.egress.allowed,
            key::INGRESS_ALLOWED_BY => &mut self.ingress.allowed,
            key::EGRESS_DENIED_BY => &mut self.egress.denied,
            key::INGRESS_DENIED_BY => &mut self.ingress.denied,
            key => return reader.pass(key),
        };
        list.push(policy(reader.delimited()?)?);
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
            varints(bytes, |number, bits| {
                if let 1 | 2 = number {
                    self.ports[number as usize - 1] = bits as u32;
                }
            })
        })
    }
}

impl<'a> Endpoint<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), WriteError> {
        let mut reader = Reader::new(bytes);
        loop {
            match reader.next_key()? {
                END => return Ok(()),
                key::IDENTITY => self.identity = reader.varint()? as u32,
                key::NAMESPACE => self.namespace = Foreign::read(reader.delimited()?)?,
                key::POD_NAME => self.pod_name = Foreign::read(reader.delimited()?)?,
                key => reader.pass(key)?,
            }
        }
    }
}

impl<'a> Service<'a> {
    fn read(&mut self, bytes: &'a [u8]) -> Result<(), WriteError> {
        let mut both = [self.name, self.namespace];
        texts(bytes, &mut both)?;
        (self.name, self.namespace) = both.into();
        Ok(())
    }
}

impl<'a> L7<'a> {
    pub(super) fn of(l7: &'a Layer7) -> Self {
        let record = match &l7.record {
            Some(Record::Dns(dns)) => L7Record::Dns(dns.observation_source.as_str().into()),
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
                    let mut source =
                        if let L7Record::Dns(source) = self.record { source } else { Foreign::default() };
                    fields(dns, |number, value| {
                        if let (5, Value::Bytes(bytes)) = (number, value) {
                            source = Foreign::read(bytes)?;
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

/// The field 1, a number.
fn first_number(bytes: &[u8], mut take: impl FnMut(u64)) -> Result<(), WriteError> {
    varints(bytes, |number, bits| {
        if number == 1 {
            take(bits);
        }
    })
}

/// The fields 1 and 2, both texts.
fn texts<'a>(bytes: &'a [u8], both: &mut [Foreign<'a>; 2]) -> Result<(), WriteError> {
    const FIRST: u32 = bytes_key(1);
    const SECOND: u32 = bytes_key(2);
    let mut reader = Reader::new(bytes);
    loop {
        match reader.next_key()? {
            END => return Ok(()),
            FIRST => both[0] = Foreign::read(reader.delimited()?)?,
            SECOND => both[1] = Foreign::read(reader.delimited()?)?,
            key => reader.pass(key)?,
        }
    }
}

/// A policy's name and kind.
fn policy(bytes: &[u8]) -> Result<(Foreign<'_>, Foreign<'_>), WriteError> {
    let mut policy = (Foreign::default(), Foreign::default());
    fields(bytes, |number, value| {
        match (number, value) {
            (1, Value::Bytes(bytes)) => policy.0 = Foreign::read(bytes)?,
            (5, Value::Bytes(bytes)) => policy.1 = Foreign::read(bytes)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(policy)
}

/// With which nothing is left out.
#[cfg(any(test, fuzzing))]
pub(crate) const ALL: Options = Options {
    colors: false,
    translate: true,
    node_names: true,
    policy_names: true,
    debug: false,
    time: crate::time::TimeFormat::StampMilli,
};

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
            let mut read = |shown: &Shown<'_>| assert_eq!(*shown, Shown::of(&flow));
            Shown::read(ALL, encoded, &mut read).unwrap();
        };
        let mut encoded = pieces.concat();
        same(&encoded);
        for other in [&[0x32, 4, 0x12, 2, 0x10, 82][..], &[0x32, 2, 0x1a, 0], &[0x32, 4, 0x0a, 2, 0x10, 83]] {
            encoded.extend_from_slice(other);
            same(&encoded);
        }
        encoded.extend_from_slice(&[0x7a, 3, 0xaa, 0x06, 0]);
        same(&encoded);
        assert_eq!(Shown::read(ALL, &[0x5a, 1, 0xff], &mut |_| panic!()), Err(WriteError::Utf8));
        // Without addresses.
        same(&[0x22, 3, 0x0a, 1, b'a', 0x22, 3, 0x12, 1, b'b']);
    }
}
