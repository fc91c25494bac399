//! What the kernel decided is named by the policies that it decided by.

use super::*;
use crate::{
    flow::Flow,
    policy::{kernel::Kernel, world::tests::Fake},
    track::Decided,
};
use observer_ebpf::policy::{Judged, decision, judged_flags, slot};
use observer_policy::model::Direction;

const ENFORCED: &str = "observer/policy-mode: enforce";

/// As [`POLICIES`], the one for the API enforced.
fn policies() -> String {
    POLICIES.replacen("namespace: shop}", &format!("namespace: shop, annotations: {{{ENFORCED}}}}}"), 1)
}

struct InKernel {
    bed: Bed,
    kernel: Fake,
}

impl InKernel {
    fn new() -> Self {
        let mut bed = Bed::new(Mode::Audit, &policies());
        let kernel = Fake::default();
        bed.updater.policies().drained().tell(u64::MAX);
        bed.updater.judge_in_kernel(Box::new(kernel.clone())).unwrap();
        Self { bed, kernel }
    }

    fn judged(&self, from: &str, to: &str, port: u16) -> Judged {
        judged(self.bed.updater.policies(), self.kernel.generation(), (from, to), port)
    }

    fn told(&mut self, flow: &Sample, judged: Option<&Judged>) -> (Vec<String>, Option<String>) {
        self.told_of(flow, judged.map(|judged| Decided { judged, again: false }))
    }

    fn told_of(&mut self, flow: &Sample, decided: Option<Decided<'_>>) -> (Vec<String>, Option<String>) {
        let mut told = Vec::new();
        let mut give = |verdict: &Flow<'_>| told.push(said(verdict));
        let given = self.bed.judge.begin().judge(&flow.flow(), decided, &mut give);
        assert_eq!(given.verdicts, told.len() as u64);
        let denied_by = given.denied_by.map(|verdict| verdict.told().policies[0].to_string());
        (told, denied_by)
    }

    /// Verdicts, drops that were denied, audited ones, forgotten ones, unknown ends.
    fn counted(&self) -> [u64; 5] {
        let counters = &self.bed.updater.policies().counters;
        [&counters.verdicts, &counters.denied, &counters.audited, &counters.forgotten, &counters.ends_unknown]
            .map(|counter| counter.load(Ordering::Relaxed))
    }
}

/// The decisions as the programs have them in the tables in force.
fn judged(policies: &Policies, generation: u32, (from, to): (&str, &str), port: u16) -> Judged {
    let world = policies.world();
    let decide = |direction, subject: &str, peer: &str| {
        let [subject, peer] = [subject, peer].map(|text| text.parse::<IpAddr>().unwrap());
        let Some(subject) = world.engine.subject_at(subject) else { return 0 };
        let decided = world.engine.judge(subject, direction, world.engine.peer_at(peer), 6, port);
        decided.rules.map_or(0, |_| crate::policy::kernel::bits(&decided))
    };
    let (egress, ingress) = (decide(Direction::Egress, from, to), decide(Direction::Ingress, to, from));
    Judged { generation, egress, ingress, flags: 0 }
}

fn said(flow: &Flow<'_>) -> String {
    let told = flow.policy.unwrap().told();
    let direction = if told.is_egress { "egress" } else { "ingress" };
    let verdict = ["?", "forwarded", "dropped", "?", "audit"][usize::from(flow.verdict)];
    let policies: Vec<_> = told.policies.iter().map(ToString::to_string).collect();
    format!("{direction} {verdict}: {}", policies.join(", "))
}

/// As a packet that the programs dropped.
fn denied(flow: Sample) -> Sample {
    let site = DropSite { kernel_reason: String::new(), hubble_reason: 133, location: Err("".into()) };
    let record = Record {
        event_type: Record::DROP_EVENT,
        verdict: 2,
        observation_point: 0,
        flags_or_type: 2,
        is_reply: Tristate::Unset,
        ..flow.record
    };
    Sample { record, drop: Some(Arc::new(site)), ..flow }
}

#[test]
fn what_was_decided_is_told_with_its_policies() {
    let mut kernel = InKernel::new();
    let (web, tool, api) = ("10.0.0.1", "10.0.0.3", "10.0.0.2:80");
    let flow = kernel.bed.flow(web, api, Point::ToEndpoint);
    let judged = kernel.judged(web, "10.0.0.2", 80);
    assert_eq!(kernel.told(&flow, Some(&judged)).0, ["ingress forwarded: CiliumNetworkPolicy shop/api"]);
    // What nobody decided on is not judged here.
    assert_eq!(kernel.told(&flow, None), (vec![], None));

    // One side would be denied, the other is.
    let drop = denied(kernel.bed.flow(tool, api, Point::ToEndpoint));
    let judged = kernel.judged(tool, "10.0.0.2", 80);
    assert!(judged.egress & decision::DENIED == 0 && judged.ingress & decision::DENIED != 0);
    let expected = ["egress audit: NetworkPolicy ops/tools", "ingress dropped: CiliumNetworkPolicy shop/api"];
    let (told, denied_by) = kernel.told(&drop, Some(&judged));
    assert_eq!(
        (&told[..], denied_by.as_deref()),
        (&expected.map(String::from)[..], Some("CiliumNetworkPolicy shop/api"))
    );

    // Of a connection that is tried again the drops are told only.
    let again = kernel.told_of(&drop, Some(Decided { judged: &judged, again: true }));
    assert_eq!(again, (vec![], Some("CiliumNetworkPolicy shop/api".to_owned())));

    // A packet that every point tells is told once.
    let twice = kernel.bed.flow(tool, api, Point::FromEndpoint);
    assert_eq!(kernel.told(&twice, Some(&judged)).0, [""; 0]);

    // Nobody knows who it is.
    let unknown = Judged { egress: decision::JUDGED | decision::UNKNOWN, ingress: 0, ..judged };
    let flow = kernel.bed.flow("10.0.9.9", "203.0.113.9:80", Point::ToStack);
    assert_eq!(kernel.told(&flow, Some(&unknown)).0, ["egress audit: "]);
    assert_eq!(kernel.counted(), [4, 1, 2, 0, 1]);
}

#[test]
fn decisions_of_before_a_change_are_named_by_the_policies_of_then() {
    let mut kernel = InKernel::new();
    let (web, api) = ("10.0.0.1", "10.0.0.2:80");
    let flow = kernel.bed.flow(web, api, Point::ToEndpoint);
    let before = kernel.judged(web, "10.0.0.2", 80);
    let renamed = policies().replace("name: api,", "name: other,");
    fs::write(kernel.bed.folder.path().join("policies.yaml"), renamed).unwrap();
    std::thread::scope(|scope| {
        let InKernel { bed: Bed { updater, judge, .. }, kernel } = &mut kernel;
        // The pipeline has not come so far.
        let policies = Arc::clone(updater.policies());
        policies.worlds.drained.forget();
        let changing = scope.spawn(|| (0..3).for_each(|_| updater.look()));
        while policies.worlds.read().0 == slot(before.generation) as usize {
            std::thread::yield_now();
        }
        let after = judged(&policies, kernel.generation(), (web, "10.0.0.2"), 80);
        let mut told = Vec::new();
        for judged in [before, after] {
            judge.begin().judge(
                &flow.flow(),
                Some(Decided { judged: &judged, again: false }),
                &mut |verdict| told.push(said(verdict)),
            );
        }
        let named = |name: &str| format!("ingress forwarded: CiliumNetworkPolicy shop/{name}");
        assert_eq!(told, [named("api"), named("other")]);
        policies.drained().tell(u64::MAX);
        changing.join().unwrap();
    });
    // Now they are gone, and it is counted.
    assert_eq!(kernel.told(&flow, Some(&before)), (vec![], None));
    assert_eq!(kernel.counted(), [2, 0, 0, 1, 0]);
}

#[test]
fn of_a_service_the_backend_that_was_chosen_is_judged() {
    let mut kernel = InKernel::new();
    let (tool, backend) = ("10.0.0.3", "10.0.1.1:80");
    let mut flow = kernel.bed.flow(tool, backend, Point::ToStack);
    let judged = kernel.judged(tool, "10.0.1.1", 80);
    let judged = Judged { ingress: 0, flags: judged_flags::FRONTEND, ..judged };
    // Nobody told which one it is.
    assert_eq!(kernel.told(&flow, Some(&judged)).0, [""; 0]);
    let frontend = Some(("10.96.0.1".parse().unwrap(), 80));
    flow.translated = Some(Arc::new(crate::flow::Translated { frontend, ..Default::default() }));
    assert_eq!(kernel.told(&flow, Some(&judged)).0, ["egress audit: NetworkPolicy ops/tools"]);
    // Of some of its backends it is denied; where the packet comes out it is decided.
    let mixed = Judged { flags: judged_flags::FRONTEND | judged_flags::MIXED, ..judged };
    assert_eq!(kernel.told(&denied(flow), Some(&mixed)), (vec![], None));
    assert_eq!(kernel.bed.updater.policies().counters.backend_unknown.load(Ordering::Relaxed), 1);
}

#[test]
fn policies_that_the_kernel_refuses_are_told_and_the_old_ones_stay() {
    let mut kernel = InKernel::new();
    let write = |kernel: &InKernel, text: &str| {
        fs::write(kernel.bed.folder.path().join("policies.yaml"), text).unwrap();
    };
    write(&kernel, &policies().replace("name: api,", "name: other,"));
    kernel.kernel.state().is_full = true;
    (0..3).for_each(|_| kernel.bed.updater.look());
    let policies = Arc::clone(kernel.bed.updater.policies());
    let names = || -> Vec<String> { policies.set().ids().iter().map(|id| id.name.to_string()).collect() };
    let problem = "the kernel does not take the policies: eBPF map POLICY_ROWS: no room";
    assert_eq!((policies.problem().as_deref(), policies.set().revision), (Some(problem), 1));
    assert_eq!(policies.counters.refused.load(Ordering::Relaxed), 1);
    assert!(names().contains(&"api".to_owned()), "{:?}", names());

    // Names that come meanwhile are judged as the world, until there is room.
    let mut pods = usual();
    pods.push(pod("shop/new", "10.0.0.4", &["app=web"]));
    kernel.bed.cache.replace(Rank::Inventory, snapshot(pods), Window::exact(10));
    kernel.bed.updater.follow_names();
    let known = |kernel: &InKernel| {
        let state = kernel.kernel.state();
        let new = observer_ebpf::parse::mapped([10, 0, 0, 4]);
        state.slots[slot(state.generation) as usize].endpoints.contains_key(&new)
    };
    assert_eq!((known(&kernel), policies.counters.names_refused.load(Ordering::Relaxed)), (false, 1));
    kernel.kernel.state().is_full = false;
    kernel.bed.updater.look();
    assert!(known(&kernel));
}
