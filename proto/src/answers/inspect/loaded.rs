//! Programs, their places, maps and rings.

use super::{Table, bytes, interface, moment, number_or_dash, share, text_or_dash};
use crate::{
    answers::table::Column,
    control::{InspectResponse, InspectedLink, InspectedProgram},
    text::status::grouped,
};

pub(super) fn programs(answer: &InspectResponse) -> Table {
    let columns = [
        Column::name("PROGRAM"),
        Column::number("ID"),
        Column::word("OWNER").rank(2),
        Column::word("TYPE").rank(3),
        Column::word("TAG").rank(8),
        Column::word("LOADED").rank(7),
        Column::number("XLATED").rank(5),
        Column::number("JITED").rank(4),
        Column::number("MEMORY").rank(6),
        Column::number("RUNS").rank(1),
        Column::number("NS/RUN"),
        Column::name("ATTACHED"),
    ];
    let row = |program: &InspectedProgram| {
        let (runs, ns) = counted(program);
        vec![
            text_or_dash(&program.name),
            program.id.to_string(),
            owner(program.ours),
            program.r#type.clone(),
            program.tag.clone(),
            moment(program.loaded.as_ref()),
            bytes(program.xlated_bytes.into()),
            bytes(program.jited_bytes.into()),
            bytes(program.memlock_bytes),
            grouped(runs),
            if runs == 0 { "-".to_owned() } else { format!("{:.0}", ns as f64 / runs as f64) },
            places(&program.attached),
        ]
    };
    Table::new(&columns, answer.programs.iter().map(row))
}

/// In the time that was asked for, else in all.
fn counted(program: &InspectedProgram) -> (u64, u64) {
    match (program.window_runs, program.window_run_ns) {
        (Some(runs), Some(ns)) => (runs, ns),
        _ => (program.runs, program.run_ns),
    }
}

fn places(attached: &[String]) -> String {
    match attached {
        [] => "nowhere".to_owned(),
        [first] => first.clone(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}

fn owner(ours: bool) -> String {
    if ours { "observer" } else { "other" }.to_owned()
}

/// What the counts of runs are of.
pub(super) fn about_statistics(answer: &InspectResponse) -> Vec<String> {
    let note = match (answer.statistics_ms, answer.statistics_on) {
        (1.., _) => format!("runs of the last {} ms", grouped(answer.statistics_ms.into())),
        (0, true) => {
            "runs since the kernel's statistics were turned on, or the program was loaded".to_owned()
        }
        (0, false) => {
            let counted = answer.programs.iter().any(|program| program.runs > 0);
            let earlier = if counted { ", those shown are of when it did" } else { "" };
            format!(
                "the kernel does not count runs now{earlier}: `observe inspect programs --stats` has it count for a second, \
                 `sysctl kernel.bpf_stats_enabled=1` until it is set to 0 again"
            )
        }
    };
    vec![note]
}

pub(super) fn links(answer: &InspectResponse) -> Table {
    let columns = [
        Column::name("INTERFACE"),
        Column::word("KIND").rank(5),
        Column::name("ENDPOINT").rank(3),
        Column::word("HOOK"),
        Column::word("BY").rank(6),
        Column::word("PLACE").rank(4),
        Column::name("PROGRAM"),
        Column::number("ID").rank(7),
        Column::word("OWNER").rank(2),
        Column::number("LINK").rank(9),
        Column::word("PINNED").rank(8),
        Column::number("PACKETS"),
        Column::number("BYTES").rank(1),
    ];
    let row = |link: &InspectedLink| {
        let number = |number: u32| if number == 0 { "-".to_owned() } else { number.to_string() };
        vec![
            interface(link.index, &link.interface),
            link.kind.clone(),
            text_or_dash(&link.endpoint),
            link.hook.clone(),
            text_or_dash(&link.by),
            if link.of == 0 { "-".to_owned() } else { format!("{} of {}", link.position, link.of) },
            if link.problem.is_empty() { text_or_dash(&link.program) } else { "NOT ATTACHED".to_owned() },
            number(link.program_id),
            owner(link.ours),
            number(link.link_id),
            if link.pinned { "yes" } else { "no" }.to_owned(),
            number_or_dash(link.packets),
            link.bytes.map_or_else(|| "-".to_owned(), bytes),
        ]
    };
    Table::new(&columns, answer.links.iter().map(row))
}

pub(super) fn problems(answer: &InspectResponse) -> Vec<String> {
    let problems = answer.links.iter().filter(|link| !link.problem.is_empty());
    problems
        .map(|link| format!("{} of {}: {}", link.hook, interface(link.index, &link.interface), link.problem))
        .collect()
}

pub(super) fn maps(answer: &InspectResponse) -> Table {
    let columns = [
        Column::name("MAP"),
        Column::number("ID"),
        Column::word("TYPE").rank(3),
        Column::number("KEY").rank(6),
        Column::number("VALUE").rank(5),
        Column::number("ENTRIES"),
        Column::number("ROOM").rank(1),
        Column::number("FULL"),
        Column::number("MEMORY").rank(2),
        Column::word("BTF").rank(4),
        Column::word("FLAGS").rank(7),
    ];
    let rows = answer.maps.iter().map(|map| {
        let least = if map.entries_cut { ">=" } else { "" };
        let slot = map.slot.map_or_else(String::new, |slot| format!("[{slot}]"));
        vec![
            format!("{}{slot}", map.name),
            map.id.to_string(),
            map.r#type.clone(),
            map.key_bytes.to_string(),
            map.value_bytes.to_string(),
            map.entries.map_or_else(|| "-".to_owned(), |count| format!("{least}{}", grouped(count))),
            // A ring's room is bytes.
            if map.r#type == "ringbuf" {
                bytes(map.max_entries.into())
            } else {
                grouped(map.max_entries.into())
            },
            map.entries.map_or_else(|| "-".to_owned(), |count| share(count, map.max_entries.into())),
            bytes(map.memlock_bytes),
            if map.btf { "yes" } else { "no" }.to_owned(),
            text_or_dash(&map.flag_names.join(",")),
        ]
    });
    Table::new(&columns, rows)
}

pub(super) fn rings(answer: &InspectResponse) -> Table {
    let columns = [
        Column::name("RING"),
        Column::number("ID").rank(2),
        Column::number("SIZE"),
        Column::number("USED"),
        Column::number("FULL").rank(1),
        Column::number("MADE"),
        Column::number("SUBMITTED"),
        Column::number("LOST"),
    ];
    let rows = answer.rings.iter().map(|ring| {
        vec![
            ring.name.clone(),
            ring.id.to_string(),
            bytes(ring.bytes.into()),
            bytes(ring.used_bytes),
            share(ring.used_bytes, ring.bytes.into()),
            grouped(ring.made),
            grouped(ring.submitted),
            grouped(ring.lost),
        ]
    });
    Table::new(&columns, rows)
}
