//! The one place where a request's filters become something that only has to be asked.

use super::view::View;
use observer_proto::flow::FlowFilter as Wire;

/// A compiled filter; it cannot fail.
pub trait FlowFilter: Send + Sync {
    /// Whether the flow is wanted.
    fn matches(&self, view: &View<'_>) -> bool;
}

impl<F: Fn(&View<'_>) -> bool + Send + Sync> FlowFilter for F {
    fn matches(&self, view: &View<'_>) -> bool {
        self(view)
    }
}

/// White- and blacklist: any filter of the first if there is one, and none of the second. The error is Hubble's text.
pub(super) fn compile(whitelist: &[Wire], blacklist: &[Wire]) -> Result<Box<dyn FlowFilter>, String> {
    let (white, black) = (verdicts(whitelist)?, verdicts(blacklist)?);
    let any =
        |lists: &[Vec<i32>], verdict| lists.iter().any(|list| list.is_empty() || list.contains(&verdict));
    Ok(Box::new(move |view: &View<'_>| {
        let verdict = view.verdict();
        (white.is_empty() || any(&white, verdict)) && !any(&black, verdict)
    }))
}

fn verdicts(filters: &[Wire]) -> Result<Vec<Vec<i32>>, String> {
    let only_verdict = |filter: &Wire| *filter == Wire { verdict: filter.verdict.clone(), ..Wire::default() };
    if filters.iter().all(only_verdict) {
        Ok(filters.iter().map(|filter| filter.verdict.clone()).collect())
    } else {
        Err("not built in: filters other than verdict".to_owned())
    }
}
