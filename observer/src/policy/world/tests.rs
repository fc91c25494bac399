use super::*;
use crate::capture::PolicyTables;
use observer_policy::{
    model::Mode,
    source::{Options, parse},
};

/// What stands for the kernel: what it was given, and whether it has room.
#[derive(Clone, Debug, Default)]
pub(in crate::policy) struct Fake(pub(in crate::policy) Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(in crate::policy) struct State {
    pub(in crate::policy) slots: [PolicyTables; 2],
    pub(in crate::policy) generation: u32,
    pub(in crate::policy) is_full: bool,
    /// Of each write, whether it was of addresses only.
    only: Vec<bool>,
}

impl Fake {
    pub(in crate::policy) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Kernel for Fake {
    fn write(
        &mut self,
        number: u32,
        wanted: &PolicyTables,
        only: Option<&[[u8; 16]]>,
    ) -> Result<(), CaptureError> {
        let mut state = self.state();
        assert_ne!(number, slot(state.generation), "what is in force is never written");
        if state.is_full {
            return Err(CaptureError::Map { name: "POLICY_ROWS", error: "no room".into() });
        }
        state.only.push(only.is_some());
        let slot = &mut state.slots[number as usize];
        if let Some(addresses) = only {
            // All else is as it was, which the kernel does not look at.
            for address in addresses {
                match wanted.endpoints.get(address) {
                    Some(endpoint) => slot.endpoints.insert(*address, *endpoint),
                    None => slot.endpoints.remove(address),
                };
            }
            slot.frontends.clone_from(&wanted.frontends);
            slot.backends.clone_from(&wanted.backends);
            assert_eq!(slot.endpoints, wanted.endpoints, "all that differs was said");
        } else {
            slot.clone_from(wanted);
        }
        Ok(())
    }

    fn flip(&mut self) -> Result<u32, CaptureError> {
        let mut state = self.state();
        state.generation = state.generation.wrapping_add(1);
        Ok(state.generation)
    }

    fn wait_for_programs(&self) -> Result<(), CaptureError> {
        Ok(())
    }

    fn generation(&self) -> u32 {
        self.state().generation
    }
}

fn change(revision: u64) -> Change {
    Change { policies: Some((revision, Vec::new())), ..Change::default() }
}

/// A policy, and that it is gone.
fn policy(name: &str) -> [Policed; 2] {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{podSelector: {{}}}}\n"
    );
    let policy = Arc::new(parse(&text, &Options::default()).unwrap().remove(0));
    let key = (policy.id.clone(), policy.part);
    [vec![(key.clone(), Some((policy, Mode::Enforce)))], vec![(key, None)]]
}

#[test]
fn a_change_is_published_beside_a_reader_and_only_then_waits_for_it() {
    let worlds = Worlds::new(change(1)).unwrap();
    let (_, old) = worlds.read();
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| worlds.apply(change(2)).unwrap());
        while worlds.read().1.revision == 1 {
            std::thread::yield_now();
        }
        assert!(old.revision == 1 && !changing.is_finished());
        drop(old);
    });
    assert_eq!(worlds.both.map(|world| world.into_inner().unwrap().revision), [2, 2]);
}

#[test]
fn a_world_decided_in_the_generations_from_its_own_to_the_next() {
    let kernel = Fake::default();
    // Numbers begin again.
    kernel.state().generation = u32::MAX - 2;
    let worlds = Worlds::new(change(1)).unwrap();
    worlds.drained.tell(u64::MAX);
    worlds.enter(Box::new(kernel.clone())).unwrap();
    for revision in 2..6 {
        let generation = kernel.state().generation;
        let number = slot(generation) as usize;
        assert_eq!(worlds.read().0, number);
        assert!(worlds.decided(number, generation) && !worlds.decided(number, generation.wrapping_sub(2)));
        // The local addresses changed.
        kernel.state().generation = generation.wrapping_add(2);
        assert!(worlds.decided(number, generation.wrapping_add(2)));
        worlds.apply(change(revision)).unwrap();
        assert!(!worlds.decided(number, generation), "all that it decided was told");
    }
}

#[test]
fn policies_that_do_not_fit_change_nothing() {
    let kernel = Fake::default();
    let worlds = Worlds::new(change(1)).unwrap();
    worlds.drained.tell(u64::MAX);
    worlds.enter(Box::new(kernel.clone())).unwrap();
    let ([one, _], [two, _]) = (policy("one"), policy("two"));
    worlds.apply(Change { policies: Some((2, one)), ..Change::default() }).unwrap();
    let before = kernel.state().generation;
    let in_force = kernel.state().slots[slot(before) as usize].clone();

    kernel.state().is_full = true;
    let error = worlds.apply(Change { policies: Some((3, two.clone())), ..Change::default() }).unwrap_err();
    assert_eq!(error.to_string(), "eBPF map POLICY_ROWS: no room");
    assert_eq!((kernel.state().generation, worlds.are_behind()), (before, false));
    assert_eq!(kernel.state().slots[slot(before) as usize], in_force);
    let names = |worlds: &Worlds| -> Vec<String> {
        let (_, world) = worlds.read();
        let mut names: Vec<_> =
            world.engine.policies().map(|(policy, _)| policy.id.name.to_string()).collect();
        names.sort();
        names
    };
    assert_eq!((names(&worlds), worlds.read().1.revision), (vec!["one".to_owned()], 2));

    // Both worlds take in what comes then, and nothing of what was refused.
    kernel.state().is_full = false;
    for revision in [4, 5] {
        worlds.apply(Change { policies: Some((revision, Vec::new())), ..Change::default() }).unwrap();
        assert_eq!((names(&worlds), worlds.read().1.revision), (vec!["one".to_owned()], revision));
    }
    worlds.apply(Change { policies: Some((6, two)), ..Change::default() }).unwrap();
    assert_eq!((names(&worlds).len(), worlds.are_behind()), (2, false));
}

#[test]
fn where_an_address_moves_the_kernel_is_asked_to_look_at_nothing_else() {
    let kernel = Fake::default();
    let worlds = Worlds::new(change(1)).unwrap();
    worlds.drained.tell(u64::MAX);
    let pod = |number: u8| {
        let endpoint = observer_policy::world::Endpoint {
            labels: observer_policy::label::Labels::parse(["k8s:app=web".to_owned()]),
            ports: Vec::new(),
            addresses: vec![IpAddr::from([10, 0, 0, number])],
        };
        let endpoints = vec![("shop/web".into(), Some(endpoint))];
        Change { fed: Fed { endpoints, ..Fed::default() }, ..Change::default() }
    };
    worlds.apply(pod(1)).unwrap();
    worlds.enter(Box::new(kernel.clone())).unwrap();
    for number in 2..6 {
        worlds.apply(pod(number)).unwrap();
    }
    // A slot is filled once.
    assert_eq!(kernel.state().only, [false, false, true, true, true]);
    kernel.state().is_full = true;
    worlds.apply(pod(6)).unwrap_err();
    kernel.state().is_full = false;
    // What the slot holds after an error nobody knows.
    worlds.apply(pod(7)).unwrap();
    assert!(!kernel.state().only.last().unwrap());
}
