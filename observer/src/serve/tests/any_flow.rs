//! Whatever a flow has, what is encoded of it is that.

use super::encoding::{encode, node, wire_flow};
use crate::{flow::any::any_flow, serve::encode::Encoder};
use observer_proto::flow as proto;
use proptest::prelude::*;
use prost::Message as _;
use std::net::IpAddr;

proptest! {
    #[test]
    fn any_flow_is_read_back_as_it_is(sequence: u64, flow in any_flow()) {
        let wire = wire_flow(encode(sequence, &flow, &[]));
        let flow = flow.flow();
        prop_assert_eq!(wire.verdict, i32::from(flow.verdict));
        prop_assert_eq!(wire.is_reply, flow.is_reply.as_option());
        prop_assert_eq!(wire.traffic_direction, i32::from(flow.direction));
        prop_assert_eq!(wire.source.unwrap(), proto::Endpoint::decode(flow.source.encoded()).unwrap());
        let time = wire.time.unwrap();
        prop_assert_eq!(i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos), i128::from(flow.time_ns));
        prop_assert_eq!(wire.interface.is_some(), flow.link.is_some());
        prop_assert_eq!(wire.l7.as_ref(), flow.l7.map(|l7| l7.message()));
        let same = |wire: &[String], names: &[Box<str>]| wire.iter().map(String::as_str).eq(names.iter().map(|n| &**n));
        prop_assert!(same(&wire.source_names, flow.source_names()));
        prop_assert!(same(&wire.destination_names, flow.destination_names()));
        let trace_id = wire.trace_context.and_then(|trace| trace.parent).map(|parent| parent.trace_id);
        prop_assert_eq!(trace_id.as_deref(), flow.l7.and_then(|l7| l7.trace_id()));
        if let Some(ip) = wire.ip {
            let text = |ip: Option<IpAddr>| ip.map_or(String::new(), |ip| ip.to_string());
            prop_assert_eq!(ip.source, text(flow.source_ip));
            prop_assert_eq!(ip.destination, text(flow.destination_ip));
            prop_assert_eq!(ip.source_xlated, text(flow.source_xlated()));
        } else {
            prop_assert_eq!(flow.ip_version, 0);
        }
        let told = flow.policy.map(|policy| policy.told().clone()).unwrap_or_default();
        let match_type = if flow.is_drop() { 0 } else { told.match_type };
        prop_assert_eq!(wire.policy_match_type, u32::from(match_type));
        let lists =
            [&wire.egress_allowed_by, &wire.ingress_allowed_by, &wire.egress_denied_by, &wire.ingress_denied_by];
        for (place, list) in lists.into_iter().enumerate() {
            let is_it = place == usize::from(!told.is_egress) + 2 * usize::from(told.denies);
            prop_assert_eq!(list.len(), if is_it { told.policies.len() } else { 0 });
            for (wire, policy) in list.iter().zip(&told.policies) {
                prop_assert_eq!((&*wire.kind, &*wire.namespace, &*wire.name), (policy.kind, &*policy.namespace, &*policy.name));
                prop_assert_eq!(wire.revision, told.revision);
            }
        }
        prop_assert_eq!(wire.policy_log.len(), told.log.len());
        if let Some(any) = wire.extensions {
            let fields = prost_types::Struct::decode(any.value.as_slice()).unwrap();
            prop_assert_eq!(fields.encode_to_vec(), any.value);
        }
    }

    #[test]
    fn the_json_line_is_that_of_the_message(sequence: u64, flows in prop::collection::vec(any_flow(), 1..4)) {
        // One encoder for several flows: what it keeps must not leak from one to the next.
        let mut encoder = Encoder::new(&node());
        for flow in &flows {
            let mut line = Vec::new();
            encoder.json_line(&mut line, sequence, &flow.flow());
            let expected = observer_proto::json::line(&encode(sequence, flow, &[])).unwrap();
            prop_assert_eq!(String::from_utf8(line).unwrap(), expected);
        }
    }
}
