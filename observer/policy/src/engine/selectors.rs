//! All selectors in use, each once, with the classes that each selects.

use crate::label::{K8S, Labels, NAMESPACE, Operator, Selector};
use hashbrown::HashMap;
use slab::Slab;

/// One selector in use.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) selector: Selector,
    uses: usize,
    /// Sorted.
    pub(super) classes: Vec<u32>,
    /// Policies whose subject it is.
    pub(super) subject_of: Vec<u32>,
}

/// Selectors by number. Most name one namespace, by which they and the classes are found.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    entries: Slab<Entry>,
    numbers: HashMap<Selector, u32>,
    of_namespace: HashMap<Box<str>, Vec<u32>>,
    of_any: Vec<u32>,
    classes_of_namespace: HashMap<Box<str>, Vec<u32>>,
}

/// The one namespace that a selector can select from.
fn namespace(selector: &Selector) -> Option<&str> {
    selector.0.iter().find_map(|requirement| match &requirement.operator {
        Operator::In(values)
            if values.len() == 1
                && &*requirement.key == NAMESPACE
                && requirement.source.as_deref() == Some(K8S) =>
        {
            Some(&*values[0])
        }
        _ => None,
    })
}

impl Selectors {
    pub(super) fn get(&self, number: u32) -> &Entry {
        &self.entries[number as usize]
    }

    pub(super) fn selects(&self, number: u32, class: u32) -> bool {
        self.get(number).classes.binary_search(&class).is_ok()
    }

    pub(super) fn acquire(&mut self, selector: &Selector, classes: &Slab<super::Class>) -> u32 {
        if let Some(&number) = self.numbers.get(selector) {
            self.entries[number as usize].uses += 1;
            return number;
        }
        let selected = |class: &u32| selector.matches(&classes[*class as usize].labels);
        let mut found: Vec<u32> = match namespace(selector) {
            Some(name) => {
                self.classes_of_namespace.get(name).into_iter().flatten().copied().filter(selected).collect()
            }
            None => classes.iter().map(|(class, _)| class as u32).filter(selected).collect(),
        };
        found.sort_unstable();
        let entry = Entry { selector: selector.clone(), uses: 1, classes: found, subject_of: Vec::new() };
        let number = self.entries.insert(entry) as u32;
        self.numbers.insert(selector.clone(), number);
        self.bucket(selector).push(number);
        number
    }

    pub(super) fn release(&mut self, number: u32) {
        let entry = &mut self.entries[number as usize];
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let entry = self.entries.remove(number as usize);
        self.numbers.remove(&entry.selector);
        self.bucket(&entry.selector).retain(|other| *other != number);
    }

    pub(super) fn add_subject(&mut self, number: u32, policy: u32) {
        self.entries[number as usize].subject_of.push(policy);
    }

    pub(super) fn remove_subject(&mut self, number: u32, policy: u32) {
        self.entries[number as usize].subject_of.retain(|other| *other != policy);
    }

    fn bucket(&mut self, selector: &Selector) -> &mut Vec<u32> {
        match namespace(selector) {
            Some(name) => self.of_namespace.entry(name.into()).or_default(),
            None => &mut self.of_any,
        }
    }

    /// Looks which selectors select a new class.
    pub(super) fn add_class(&mut self, class: u32, labels: &Labels) {
        let namespace = labels.get(K8S, NAMESPACE);
        if let Some(name) = namespace {
            self.classes_of_namespace.entry(name.into()).or_default().push(class);
        }
        let own = namespace.and_then(|name| self.of_namespace.get(name)).into_iter().flatten();
        for &number in own.chain(&self.of_any) {
            let entry = &mut self.entries[number as usize];
            if entry.selector.matches(labels)
                && let Err(place) = entry.classes.binary_search(&class)
            {
                entry.classes.insert(place, class);
            }
        }
    }

    pub(super) fn remove_class(&mut self, class: u32, labels: &Labels) {
        let namespace = labels.get(K8S, NAMESPACE);
        if let Some(list) = namespace.and_then(|name| self.classes_of_namespace.get_mut(name)) {
            list.retain(|other| *other != class);
        }
        let own = namespace.and_then(|name| self.of_namespace.get(name)).into_iter().flatten();
        for &number in own.chain(&self.of_any) {
            let entry = &mut self.entries[number as usize];
            if let Ok(place) = entry.classes.binary_search(&class) {
                entry.classes.remove(place);
            }
        }
    }

    /// The policies whose subject selects a class, by labels alone.
    pub(super) fn policies_of(&self, class: u32, labels: &Labels) -> Vec<u32> {
        let own = labels.get(K8S, NAMESPACE).and_then(|name| self.of_namespace.get(name));
        let numbers = own.into_iter().flatten().chain(&self.of_any);
        let entries = numbers.map(|number| self.get(*number)).filter(|entry| !entry.subject_of.is_empty());
        let selecting = entries.filter(|entry| entry.classes.binary_search(&class).is_ok());
        let mut policies: Vec<_> = selecting.flat_map(|entry| entry.subject_of.iter().copied()).collect();
        policies.sort_unstable();
        policies
    }
}
