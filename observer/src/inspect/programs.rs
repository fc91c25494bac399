//! Programs, how often they ran, and how long that took.

use super::{Chosen, Inspection, give};
use crate::{
    capture::{self, ProgramUse},
    serve::{Answer, InspectError},
};
use observer_proto::control::{InspectResponse, InspectedProgram};
use std::{collections::HashMap, time::Duration};

impl Inspection {
    pub(super) fn programs(
        &self,
        chosen: &Chosen,
        statistics_ms: u32,
        answer: &Answer,
    ) -> Result<(), InspectError> {
        let (hooks, mut notes) = self.inspector.hooks(&chosen.links());
        let mut others: Vec<u32> = hooks.iter().filter(|on| !on.ours).map(|on| on.program).collect();
        others.sort_unstable();
        others.dedup();
        let (before, programs) = if statistics_ms == 0 {
            (HashMap::new(), self.inspector.programs(&others))
        } else {
            self.counted(Duration::from_millis(statistics_ms.into()), &others, answer)?
        };
        let places = |program: &ProgramUse| -> Vec<String> {
            let on = hooks.iter().filter(|on| on.program == program.id).filter_map(|on| {
                let link = chosen.table.get(on.ifindex)?;
                Some(format!("{} of {}: {}", super::links::hook(on.hook), link.ifindex, link.name))
            });
            program.tracepoint.iter().cloned().chain(on).collect()
        };
        let shown = programs.iter().filter_map(|program| {
            let attached = places(program);
            let wanted = chosen.globs.is_empty() || (program.tracepoint.is_none() && !attached.is_empty());
            let then = before.get(&program.id);
            wanted.then(|| InspectedProgram {
                id: program.id,
                name: program.name.clone(),
                r#type: program.kind.clone(),
                tag: format!("{:016x}", program.tag),
                ours: program.ours,
                loaded: program.loaded.map(Into::into),
                xlated_bytes: program.xlated,
                jited_bytes: program.jited,
                memlock_bytes: program.memlock,
                runs: program.runs,
                run_ns: program.run_ns,
                window_runs: then.map(|then| program.runs.saturating_sub(then.runs)),
                window_run_ns: then.map(|then| program.run_ns.saturating_sub(then.run_ns)),
                recursion_misses: program.recursion_misses,
                attached,
            })
        });
        let hidden = others.iter().filter(|id| !programs.iter().any(|program| program.id == **id)).count();
        if hidden > 0 {
            notes.push(format!(
                "{hidden} programs of others are not shown: the kernel shows them to daemons with CAP_SYS_ADMIN alone"
            ));
        }
        let given = give(answer, shown.collect(), |programs| InspectResponse {
            programs,
            ..InspectResponse::default()
        });
        if given {
            answer.give(InspectResponse {
                notes,
                statistics_on: capture::statistics_on(),
                statistics_ms,
                ..InspectResponse::default()
            });
        }
        Ok(())
    }

    /// The programs before and after a time in which the kernel counted.
    fn counted(
        &self,
        time: Duration,
        others: &[u32],
        answer: &Answer,
    ) -> Result<(HashMap<u32, ProgramUse>, Vec<ProgramUse>), InspectError> {
        let _counting = capture::count_runs().map_err(|error| {
            InspectError::Kernel(format!(
                "the daemon cannot turn statistics on ({error}), which needs CAP_SYS_ADMIN; root can, for all programs: \
                 sysctl kernel.bpf_stats_enabled=1"
            ))
        })?;
        let before = self.inspector.programs(others);
        answer.wait(time);
        let before = before.into_iter().map(|program| (program.id, program)).collect();
        Ok((before, self.inspector.programs(others)))
    }
}
