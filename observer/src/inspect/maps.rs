//! Maps and rings, and how full they are.

use super::{Inspection, failed, give, policy::in_force};
use crate::serve::{Answer, InspectError};
use observer_proto::control::{InspectResponse, InspectedMap, InspectedRing};

/// Of linux/bpf.h, by their bit.
const FLAGS: [(u32, &str); 9] = [
    (0, "no_prealloc"),
    (1, "no_common_lru"),
    (2, "numa_node"),
    (3, "rdonly"),
    (4, "wronly"),
    (7, "rdonly_prog"),
    (8, "wronly_prog"),
    (10, "mmapable"),
    (12, "inner_map"),
];

impl Inspection {
    pub(super) fn maps(&self, answer: &Answer) -> Result<(), InspectError> {
        let (maps, hidden) = self.inspector.maps().map_err(|error| failed(&error))?;
        let shown = maps.into_iter().map(|map| InspectedMap {
            id: map.id,
            name: map.name,
            r#type: map.kind.to_owned(),
            key_bytes: map.key_bytes,
            value_bytes: map.value_bytes,
            max_entries: map.max_entries,
            entries: map.entries,
            entries_cut: map.cut,
            memlock_bytes: map.memlock,
            flags: map.flags,
            flag_names: flag_names(map.flags),
            btf: map.btf,
            slot: map.slot,
        });
        let mut notes = Vec::new();
        if let Some(policy) = self.inspector.policy().map_err(|error| failed(&error))? {
            notes.push(in_force(policy.generation, policy.slot()));
        }
        if hidden > 0 {
            notes.push(format!(
                "{hidden} maps that took the place of smaller ones are not shown: the kernel shows them to daemons with \
                 CAP_SYS_ADMIN alone"
            ));
        }
        if give(answer, shown.collect(), |maps| InspectResponse { maps, ..InspectResponse::default() }) {
            answer.give(InspectResponse { notes, ..InspectResponse::default() });
        }
        Ok(())
    }

    pub(super) fn rings(&self, answer: &Answer) -> Result<(), InspectError> {
        let status = self.status.status();
        let rings = self.inspector.rings().map_err(|error| failed(&error))?;
        let shown = rings.into_iter().map(|ring| {
            let writers: &[_] = match ring.name.as_str() {
                "FLOWS" => &[status.ingress, status.egress],
                "PRIORITY" => &[status.denied, status.drops],
                _ => &[],
            };
            let sum = |counter: fn(&observer_ebpf::Counters) -> u64| {
                writers.iter().map(|program| counter(&program.counters)).sum()
            };
            InspectedRing {
                id: ring.id,
                name: ring.name,
                bytes: ring.bytes,
                used_bytes: ring.used,
                made: sum(|counters| counters.made),
                submitted: sum(|counters| counters.submitted),
                lost: sum(|counters| counters.ring_full),
            }
        });
        give(answer, shown.collect(), |rings| InspectResponse { rings, ..InspectResponse::default() });
        Ok(())
    }
}

fn flag_names(flags: u32) -> Vec<String> {
    let set = |bit: u32| flags & (1 << bit) != 0;
    let mut names: Vec<String> =
        FLAGS.iter().filter(|(bit, _)| set(*bit)).map(|(_, name)| (*name).to_owned()).collect();
    let others = (0..32).filter(|bit| set(*bit) && !FLAGS.iter().any(|(known, _)| known == bit));
    names.extend(others.map(|bit| format!("bit {bit}")));
    names
}

#[cfg(test)]
mod tests {
    #[test]
    fn flags_have_their_names() {
        assert_eq!(super::flag_names(0), [""; 0]);
        assert_eq!(super::flag_names(1 | 1 << 7 | 1 << 31), ["no_prealloc", "rdonly_prog", "bit 31"]);
    }
}
