//! Filters for many flows with few endpoints.

use super::{
    columns::{Answers, Columns, Sieve, all, each},
    compile::{Filter, Filters},
    endpoint::{EndpointTests, Memo},
    marks::Pattern,
    view::{EndpointView, FlowView, Side},
};
use std::num::NonZeroU64;

/// So many ends are compared with a column, each in turn; of more each flow's end is looked up.
const MOST_FEW: usize = 8;

/// [`Filters`] that remember what they found out about an endpoint, where it has a number (`EndpointView::serial`).
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    filters: Filters,
    memo: Memo,
    /// Of the whitelist.
    sieves: Vec<Sieve>,
    few: Few,
    /// See [`EndpointTests::patterns`].
    patterns: Option<Vec<Pattern>>,
}

/// The ends that were learned, where a question has a yes for few of them.
#[derive(Clone, Debug, Default)]
struct Few {
    /// By question; one more than [`MOST_FEW`] stands for too many. None before an end was learned.
    yes: Vec<Vec<u32>>,
    /// There is an end whose number takes more than 32 bits, or that has none: it stands in a column as 0.
    is_wide: bool,
}

impl Few {
    fn begin(&mut self, tests: usize) {
        if self.yes.is_empty() {
            self.yes = vec![Vec::new(); tests];
        }
    }

    /// The ends with a yes to a question, if they are few.
    fn of(&self, test: usize) -> Option<&[u32]> {
        self.yes.get(test).filter(|yes| yes.len() <= MOST_FEW).map(Vec::as_slice)
    }

    fn add(&mut self, serial: Option<NonZeroU64>, answers: u64) {
        let number = serial.and_then(|serial| u32::try_from(serial.get()).ok());
        self.is_wide |= number.is_none();
        let number = number.unwrap_or(0);
        for (test, yes) in self.yes.iter_mut().enumerate().take(u64::BITS as usize) {
            if answers >> test & 1 == 1 && yes.len() <= MOST_FEW && !yes.contains(&number) {
                yes.push(number);
            }
        }
    }
}

impl Filters {
    /// For many flows.
    pub fn matcher(self) -> Matcher {
        let sieves = self.whitelist.iter().map(|Filter(conditions)| Sieve::new(conditions)).collect();
        let patterns = self.endpoint_tests.patterns();
        Matcher { filters: self, memo: Memo::default(), sieves, few: Few::default(), patterns }
    }
}

impl Matcher {
    /// Whether every flow passes.
    pub fn pass_all(&self) -> bool {
        self.filters.pass_all()
    }

    /// As [`Filters::matches`].
    #[inline]
    pub fn matches<F: FlowView>(&mut self, flow: &F) -> bool {
        let Self { filters, memo, .. } = self;
        filters.decide(flow, &mut |side, test| {
            memo.ask(&filters.endpoint_tests, test, flow.serial(side), || flow.endpoint(side))
        })
    }

    /// Whether anything is asked about ends.
    pub fn asks_about_ends(&self) -> bool {
        self.filters.endpoint_tests.count() > 0
    }

    /// Asks ends, each with its [`mark`](super::mark), all questions, which makes [`Matcher::select`] fast. From the first time
    /// on every end has to be learned before a flow that has it is asked about there.
    pub fn learn<'e, E: EndpointView + 'e>(&mut self, ends: impl Iterator<Item = (u64, &'e E)>) {
        self.few.begin(self.filters.endpoint_tests.count());
        for (mark, end) in ends {
            if self.patterns.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.fits(mark)))
            {
                self.ask(end);
            }
        }
    }

    fn ask<E: EndpointView>(&mut self, end: &E) {
        let Self { filters, memo, few, .. } = self;
        let serial = end.serial();
        if serial.is_none_or(|serial| memo.answers(serial).is_none()) {
            let answers = filters.endpoint_tests.ask_all(end);
            if let Some(serial) = serial {
                memo.learn(serial, answers);
            }
            few.add(serial, answers);
        }
    }

    /// Whether any flow of several lots may pass. It takes less than to ask each lot, and memory is waited for once.
    pub fn look_ahead(&self, columns: &Columns<'_>) -> bool {
        self.sieves.is_empty()
            || self.sieves.iter().any(|sieve| sieve.look_ahead(columns, |test| self.few.of(test)))
    }

    /// As [`Matcher::matches`] for each flow of a lot: the lowest bit is the first one's answer. `flow` gives a flow by its
    /// place where the columns don't tell enough.
    pub fn select<F: FlowView>(&mut self, columns: &Columns<'_>, flow: impl Fn(usize) -> F) -> u64 {
        let Self { filters, memo, sieves, few, .. } = self;
        let mut sure = if filters.whitelist.is_empty() { all(columns) } else { 0 };
        let mut unsure = 0;
        let mut known = Known { memo, few, tests: &filters.endpoint_tests, flow: &flow };
        for sieve in sieves {
            let passing = sieve.select(columns, &mut known);
            *(if sieve.is_exact() && !few.is_wide { &mut sure } else { &mut unsure }) |= passing;
        }
        if !filters.blacklist.is_empty() {
            unsure |= sure;
            sure = 0;
        }
        sure | each(unsure & !sure, |index| self.matches(&flow(index)))
    }
}

/// What is known of ends, and where the rest is found.
struct Known<'a, G> {
    memo: &'a mut Memo,
    few: &'a Few,
    tests: &'a EndpointTests,
    flow: G,
}

impl<F: FlowView, G: Fn(usize) -> F> Answers for Known<'_, G> {
    fn few(&self, test: usize) -> Option<&[u32]> {
        self.few.of(test)
    }

    #[inline]
    fn ask(&mut self, test: usize, side: Side, number: u32, index: usize) -> bool {
        let known = NonZeroU64::new(number.into()).and_then(|serial| self.memo.answers(serial));
        if let Some(answers) = known {
            return answers >> test & 1 == 1;
        }
        let flow = (self.flow)(index);
        self.memo.ask(self.tests, test, flow.serial(side), || flow.endpoint(side))
    }
}
