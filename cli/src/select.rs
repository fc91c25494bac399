//! Which part of the stream: the selectors' rules and their request.

use crate::args::SelectArgs;
use observer_proto::{filter::FilterLists, observer::GetFlowsRequest, time};

/// What is shown if nothing is said.
const DEFAULT_LAST: u64 = 20;

/// Builds the request. The error is Hubble's text.
///
/// No field mask is sent, unlike Hubble's default one for text: a server that honours that mask leaves out the
/// direction, the policy match and the DNS names that the same text would show (cilium#46672).
pub(crate) fn request(select: &SelectArgs, filters: FilterLists) -> Result<GetFlowsRequest, String> {
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
        text.map(|text| time::parse(text, now).map(time::to_proto))
            .transpose()
            .map_err(|why| format!("failed to parse the {name} time: {why}"))
    };
    let since = moment("since", select.since.as_deref())?;
    // With --follow there is no end.
    let until = moment("until", select.until.as_deref())?.filter(|_| !select.follow);
    let number = if select.all {
        u64::MAX
    } else if select.first > 0 {
        select.first
    } else if select.last > 0 {
        select.last
    } else if select.follow || since.is_some() || until.is_some() || !select.input_file.is_empty() {
        0
    } else {
        DEFAULT_LAST
    };
    Ok(GetFlowsRequest {
        number,
        first: select.first > 0,
        follow: select.follow,
        whitelist: filters.whitelist,
        blacklist: filters.blacklist,
        since,
        until,
        ..GetFlowsRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(select: &SelectArgs) -> Result<(u64, bool, bool), String> {
        request(select, FilterLists::default()).map(|r| (r.number, r.first, r.follow))
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
        ] {
            assert_eq!(selected(&select), Ok(expected), "{select:?}");
        }
        let until =
            request(&SelectArgs { follow: true, until: Some("1m".into()), ..none }, FilterLists::default());
        assert_eq!(until.unwrap().until, None);
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
