//! Who is woken, and when.

use super::*;
use crate::enrich::ipcache::IpCache;
use crate::{
    policy::{PolicyConfig, Updater},
    policy_verdict::{PolicyName, PolicyTold, PolicyVerdict},
};
use observer_policy::model::{Kind, PolicyId};
use observer_proto::flow::Layer7 as Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[test]
fn of_many_the_first_wakes_and_the_others_are_found() {
    let cache = Arc::new(IpCache::new("n1"));
    let updater = Updater::load(PolicyConfig::default(), "default", cache, None).unwrap();
    let (teller, listener) = channel(updater.policies()).unwrap();
    let tell = || teller.tell(Told::now(Arc::new(Layer7::new(Message::default(), ""))));
    let is_woken = || {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    };
    let drained = || {
        let mut count = 0;
        listener.drain(|_| count += 1);
        count
    };
    for _ in 0..2 {
        assert!(!is_woken() && listener.next().is_none());
        tell();
        assert!(is_woken() && listener.next().is_some());
        tell();
        assert_eq!(drained(), 2);
        // While they come they are looked for, and nobody is woken.
        for _ in 0..3 {
            tell();
            assert!(!is_woken() && listener.next().is_some());
            assert_eq!(drained(), 1);
        }
        assert_eq!(drained(), 0);
    }
    assert_eq!(updater.policies().counters.requests_told.load(Ordering::Relaxed), 10);
}

#[test]
fn policies_are_counted_that_refuse_a_request() {
    let cache = Arc::new(IpCache::new("n1"));
    let updater = Updater::load(PolicyConfig::default(), "default", cache, None).unwrap();
    let (teller, _listener) = channel(updater.policies()).unwrap();
    let by = |denies, verdict, name: &str| {
        let policies =
            vec![PolicyName { kind: "NetworkPolicy", namespace: "shop".into(), name: name.into() }];
        let policies = PolicyVerdict::new(PolicyTold { denies, policies, ..PolicyTold::default() });
        let told = Told::now(Arc::new(Layer7::new(Message::default(), "")));
        teller.tell(Told { verdict, policies: Some(Arc::new(policies)), ..told });
    };
    by(true, Verdict::Dropped, "web");
    by(true, Verdict::Audit, "web");
    by(true, Verdict::Dropped, "web");
    by(false, Verdict::Forwarded, "api");
    teller.tell(Told::now(Arc::new(Layer7::new(Message::default(), ""))));
    let refused = |name: &str| {
        let id = PolicyId { kind: Kind::NetworkPolicy, namespace: "shop".into(), name: name.into() };
        let hits = updater.policies().hits(&id);
        (hits.refused, hits.would_refuse)
    };
    assert_eq!((refused("web"), refused("api")), ((2, 1), (0, 0)));
}
