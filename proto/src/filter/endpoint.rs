//! Questions about one end of a flow, and what remembers the answers.

use super::{
    labels::Selector,
    marks::Pattern,
    names::{NamespacedName, workload_matches},
    view::EndpointView,
};
use crate::flow::Workload;
use std::num::NonZeroU64;

/// Answers that fit into one entry of a [`Memo`]; further questions are asked each time.
pub(super) const REMEMBERED: usize = u64::BITS as usize;
/// The most entries of a memo, 16 bytes each; an endpoint beyond takes the place of another.
const MOST_ENTRIES: usize = 4096;
const FIRST_ENTRIES: usize = 64;

/// What is asked of an endpoint, on whichever side it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum EndpointTest {
    Identity(Vec<u32>),
    Pod(Vec<NamespacedName>),
    Workload(Vec<Workload>),
    Cluster(Vec<String>),
    Labels(Vec<Selector>),
}

impl EndpointTest {
    fn matches<E: EndpointView>(&self, endpoint: &E) -> bool {
        match self {
            Self::Identity(list) => list.contains(&endpoint.identity()),
            Self::Pod(list) => NamespacedName::any(list, endpoint.namespace(), endpoint.pod_name()),
            Self::Workload(list) => workload_matches(list, endpoint),
            Self::Cluster(list) => list.iter().any(|cluster| cluster == endpoint.cluster_name()),
            Self::Labels(list) => list.iter().any(|selector| selector.matches(|| endpoint.labels())),
        }
    }

    /// No endpoint has no labels, which is enough for `!key`.
    fn matches_none(&self) -> bool {
        match self {
            Self::Labels(list) => list.iter().any(|selector| selector.matches(std::iter::empty)),
            _ => false,
        }
    }
}

/// All questions of some filters; what several of them ask stands here once.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointTests(Vec<EndpointTest>);

impl EndpointTests {
    /// The number of the question, for [`EndpointTests::ask`].
    pub(super) fn add(&mut self, test: EndpointTest) -> usize {
        let known = self.0.iter().take(REMEMBERED).position(|known| *known == test);
        known.unwrap_or_else(|| {
            self.0.push(test);
            self.0.len() - 1
        })
    }

    pub(super) fn ask<E: EndpointView>(&self, test: usize, endpoint: Option<&E>) -> bool {
        let Some(test) = self.0.get(test) else { return false };
        endpoint.map_or_else(|| test.matches_none(), |endpoint| test.matches(endpoint))
    }

    /// Only for an end whose mark fits one of these any answer may be yes; nothing where that can't be told of all questions.
    pub(super) fn patterns(&self) -> Option<Vec<Pattern>> {
        let mut patterns = Vec::new();
        for test in &self.0 {
            let EndpointTest::Pod(list) = test else { return None };
            patterns.extend(list.iter().map(NamespacedName::pattern));
        }
        Some(patterns)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The answers to the first [`REMEMBERED`].
    pub(super) fn ask_all<E: EndpointView>(&self, endpoint: &E) -> u64 {
        let answers = self.0.iter().take(REMEMBERED).map(|test| u64::from(test.matches(endpoint)));
        answers.enumerate().fold(0, |bits, (test, answer)| bits | answer << test)
    }
}

/// Answers about endpoints, one bit for each question. It belongs to one list of questions.
#[derive(Clone, Debug, Default)]
pub(super) struct Memo {
    /// As many as a power of two, or none yet.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// 0 is no endpoint's.
    serial: u64,
    answers: u64,
}

impl Memo {
    #[inline]
    pub(super) fn ask<'e, E: EndpointView + 'e>(
        &mut self,
        tests: &EndpointTests,
        test: usize,
        serial: Option<NonZeroU64>,
        endpoint: impl FnOnce() -> Option<&'e E>,
    ) -> bool {
        let Some(serial) = serial.filter(|_| test < REMEMBERED) else { return tests.ask(test, endpoint()) };
        let answers = if let Some(answers) = self.answers(serial) {
            answers
        } else {
            let Some(endpoint) = endpoint() else { return tests.ask::<E>(test, None) };
            self.learn(serial, tests.ask_all(endpoint))
        };
        answers >> test & 1 == 1
    }

    /// What is known of an endpoint.
    #[inline]
    pub(super) fn answers(&self, serial: NonZeroU64) -> Option<u64> {
        let entry = self.entries.get(serial.get() as usize & self.entries.len().wrapping_sub(1))?;
        (entry.serial == serial.get()).then_some(entry.answers)
    }

    /// Endpoints are numbered in a row, so that few meet in one place until all places are taken.
    #[cold]
    pub(super) fn learn(&mut self, serial: NonZeroU64, answers: u64) -> u64 {
        let serial = serial.get();
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); FIRST_ENTRIES];
        }
        while self.entries[self.place(serial)].serial != 0 && self.entries.len() < MOST_ENTRIES {
            let known = std::mem::take(&mut self.entries);
            self.entries = vec![Entry::default(); 2 * known.len()];
            for entry in known.into_iter().filter(|entry| entry.serial != 0) {
                let place = self.place(entry.serial);
                self.entries[place] = entry;
            }
        }
        let place = self.place(serial);
        self.entries[place] = Entry { serial, answers };
        answers
    }

    fn place(&self, serial: u64) -> usize {
        serial as usize & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbered(u64);

    impl EndpointView for Numbered {
        fn serial(&self) -> Option<NonZeroU64> {
            NonZeroU64::new(self.0)
        }
        fn identity(&self) -> u32 {
            self.0 as u32
        }
        fn namespace(&self) -> &'static str {
            ""
        }
        fn pod_name(&self) -> &'static str {
            ""
        }
        fn cluster_name(&self) -> &'static str {
            ""
        }
        fn labels(&self) -> impl Iterator<Item = &str> {
            std::iter::empty()
        }
        fn workloads(&self) -> impl Iterator<Item = (&str, &str)> {
            std::iter::empty()
        }
    }

    #[test]
    fn more_endpoints_and_questions_than_it_holds_are_answered_all_the_same() {
        let mut tests = EndpointTests::default();
        let wanted = |test: u32| EndpointTest::Identity(vec![test, test + 5000, 3 * test]);
        let numbers: Vec<usize> = (0..70).map(|test| tests.add(wanted(test))).collect();
        assert_eq!(tests.add(wanted(3)), numbers[3], "the same question again");
        let mut memo = Memo::default();
        for endpoint in (0..10_000).chain((0..10_000).rev()).map(Numbered) {
            for &test in &numbers {
                let answer = memo.ask(&tests, test, endpoint.serial(), || Some(&endpoint));
                assert_eq!(answer, tests.ask(test, Some(&endpoint)), "{test} of {}", endpoint.0);
            }
        }
        assert_eq!(memo.entries.len(), MOST_ENTRIES);
    }
}
