//! Which part of a stream: the selectors' rules and the requests they become.

use crate::args::{MaskArgs, SelectArgs};
use observer_proto::{
    field_mask,
    filter::FilterLists,
    observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest},
    text, time,
};
use prost_types::{FieldMask, Timestamp};

/// What is shown if nothing is said.
const DEFAULT_LAST: u64 = 20;

/// What is asked for besides the filters.
struct Part {
    number: u64,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Part {
    /// The error is Hubble's text. `default` stands for a number that is not given.
    fn of(select: &SelectArgs, default: u64) -> Result<Self, String> {
        for (both, text) in [
            (select.first > 0 && select.last > 0, "cannot set both --first and --last"),
            (select.first > 0 && select.all, "cannot set both --first and --all"),
            (select.first > 0 && select.follow, "cannot set both --first and --follow"),
            (select.last > 0 && select.all, "cannot set both --last and --all"),
        ] {
            if both {
                return Err(text.to_owned());
            }
        }
        let now = jiff::Timestamp::now();
        let moment = |name: &str, text: Option<&str>| {
            text.filter(|text| !text.is_empty())
                .map(|text| time::parse(text, now).map(time::to_proto))
                .transpose()
                .map_err(|why| format!("failed to parse the {name} time: {why}"))
        };
        let since = moment("since", select.since.as_deref())?;
        // With --follow there is no end, and what was said of one is not read.
        let until = moment("until", select.until.as_deref().filter(|_| !select.follow))?;
        let number = match select.first.max(select.last) {
            0 if since.is_some() || until.is_some() => 0,
            0 if select.all => u64::MAX,
            0 => default,
            number => number,
        };
        Ok(Self { number, since, until })
    }
}

/// The request for flows. Filters are read where Hubble reads them, so that of two mistakes the same is told.
///
/// No field mask is sent where none is asked for, unlike Hubble's default one for text: a server that honours that mask
/// leaves out the direction, the policy match and the DNS names that the same text would show (cilium#46672).
pub(crate) fn flows(
    select: &SelectArgs,
    mask: &MaskArgs,
    reads_files: bool,
    filters: impl FnOnce() -> Result<FilterLists, String>,
) -> Result<GetFlowsRequest, String> {
    let part = Part::of(select, if select.follow || reads_files { 0 } else { DEFAULT_LAST })?;
    let filters = filters()?;
    let paths: Vec<String> = match &mask.field_mask[..] {
        [] if mask.use_default_field_masks => text::FIELDS.iter().map(|path| (*path).to_owned()).collect(),
        given => given.to_vec(),
    };
    for path in &paths {
        field_mask::check(path).map_err(|why| format!("failed to construct field mask: {why}"))?;
    }
    Ok(GetFlowsRequest {
        number: part.number,
        first: select.first > 0,
        follow: select.follow,
        whitelist: filters.whitelist,
        blacklist: filters.blacklist,
        since: part.since,
        until: part.until,
        field_mask: (!paths.is_empty()).then_some(FieldMask { paths }),
        ..GetFlowsRequest::default()
    })
}

/// The request for agent events. Hubble drops --first here in silence.
pub(crate) fn agent_events(select: &SelectArgs) -> Result<GetAgentEventsRequest, String> {
    let Part { number, since, until } = Part::of(select, DEFAULT_LAST)?;
    Ok(GetAgentEventsRequest { number, first: select.first > 0, follow: select.follow, since, until })
}

/// The request for debug events.
pub(crate) fn debug_events(select: &SelectArgs) -> Result<GetDebugEventsRequest, String> {
    let Part { number, since, until } = Part::of(select, DEFAULT_LAST)?;
    Ok(GetDebugEventsRequest { number, first: select.first > 0, follow: select.follow, since, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(select: &SelectArgs) -> Result<(u64, bool, bool), String> {
        flows(select, &MaskArgs::default(), false, || Ok(FilterLists::default()))
            .map(|r| (r.number, r.first, r.follow))
    }

    #[test]
    fn numbers_follow_hubble() {
        let none = SelectArgs::default();
        for (select, expected) in [
            (none.clone(), (20, false, false)),
            (SelectArgs { last: 5, ..none.clone() }, (5, false, false)),
            (SelectArgs { first: 5, ..none.clone() }, (5, true, false)),
            (SelectArgs { all: true, ..none.clone() }, (u64::MAX, false, false)),
            (SelectArgs { follow: true, ..none.clone() }, (0, false, true)),
            (SelectArgs { follow: true, last: 3, ..none.clone() }, (3, false, true)),
            (SelectArgs { since: Some("5m".into()), ..none.clone() }, (0, false, false)),
            (SelectArgs { since: Some("5m".into()), all: true, ..none.clone() }, (0, false, false)),
        ] {
            assert_eq!(selected(&select), Ok(expected), "{select:?}");
        }
        let followed = SelectArgs { follow: true, until: Some("no time".into()), ..none.clone() };
        assert_eq!(Part::of(&followed, 0).map(|part| part.until), Ok(None));
        // Events come with their last ones first, as in Hubble.
        let followed = SelectArgs { follow: true, ..none };
        assert_eq!(agent_events(&followed).map(|request| (request.number, request.follow)), Ok((20, true)));
    }

    #[test]
    fn masks_are_checked_before_anything_is_asked() {
        let mask = |field_mask: &[&str], use_default_field_masks| {
            let field_mask = field_mask.iter().map(|path| (*path).to_owned()).collect();
            let mask = MaskArgs { field_mask, use_default_field_masks };
            flows(&SelectArgs::default(), &mask, false, || Ok(FilterLists::default()))
                .map(|request| request.field_mask.map(|mask| mask.paths))
        };
        assert_eq!(mask(&[], false), Ok(None));
        assert_eq!(mask(&["verdict"], true), Ok(Some(vec!["verdict".to_owned()])));
        assert!(mask(&[], true).is_ok_and(|paths| paths.is_some_and(|paths| paths.len() > 20)));
        assert_eq!(
            mask(&["verdict", "a.b"], false),
            Err(r#"failed to construct field mask: proto: invalid path "a.b" for message "flow.Flow""#
                .to_owned())
        );
    }

    #[test]
    fn contradictions_are_refused_in_hubbles_words() {
        let none = SelectArgs::default();
        for (select, text) in [
            (SelectArgs { first: 1, last: 1, ..none.clone() }, "cannot set both --first and --last"),
            (SelectArgs { first: 1, all: true, ..none.clone() }, "cannot set both --first and --all"),
            (SelectArgs { first: 1, follow: true, ..none.clone() }, "cannot set both --first and --follow"),
            (SelectArgs { last: 1, all: true, ..none.clone() }, "cannot set both --last and --all"),
            (
                SelectArgs { since: Some("x".into()), ..none },
                "failed to parse the since time: failed to convert x to time",
            ),
        ] {
            assert_eq!(selected(&select), Err(text.to_owned()));
        }
    }
}
