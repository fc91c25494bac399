//! Policies, names and modes that change.

use super::*;

#[test]
fn a_namespace_says_the_mode_of_policies_that_say_none() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    assert_eq!(bed.connect("10.0.0.3", "10.0.0.2:80").len(), 2);
    let says = |bed: &mut Bed, mode: Option<Mode>, at| {
        let mut names = snapshot(usual());
        names.surroundings.policy_modes = mode.map(|mode| ("ops".to_owned(), mode)).into_iter().collect();
        bed.cache.replace(Rank::Inventory, names, Window::exact(at));
        bed.updater.follow_names();
    };
    says(&mut bed, Some(Mode::Observe), 10);
    let api = "ingress audit 0: CiliumNetworkPolicy shop/api [\"shop-api\"]";
    assert_eq!(bed.connect("10.0.0.3", "10.0.0.2:80"), [api]);
    let by = |bed: &Bed| -> Vec<_> {
        bed.updater.policies().set().policies.iter().map(|one| (one.asked, one.asked_by)).collect()
    };
    let default = (Mode::Audit, SetBy::Default);
    assert_eq!(by(&bed), [default, (Mode::Observe, SetBy::NamespaceAnnotation)]);
    assert_eq!(bed.updater.policies().set().in_each_mode(), [1, 1, 0]);
    // The hits stay.
    let id = bed.updater.policies().set().policies[1].policy.id.clone();
    assert_eq!(passed(bed.updater.policies().hits(&id)), (0, 2));
    says(&mut bed, None, 20);
    assert_eq!((bed.connect("10.0.0.3", "10.0.0.2:80").len(), by(&bed)), (2, vec![default; 2]));

    let own =
        POLICIES.replace("namespace: ops}", "namespace: ops, annotations: {observer/policy-mode: audit}}");
    let mut bed = Bed::new(Mode::Audit, &own);
    says(&mut bed, Some(Mode::Observe), 10);
    assert_eq!(by(&bed), [default, (Mode::Audit, SetBy::PolicyAnnotation)], "its own word is stronger");
}

#[test]
fn labels_and_ports_that_only_policies_look_at_count() {
    let mut bed = Bed::new(
        Mode::Audit,
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: one, namespace: shop}\nspec:\n  \
         podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: api-0}}\n  \
         ingress: [{ports: [{port: http}]}]\n",
    );
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80"), [""; 0]);
    let mut pods = usual();
    pods[1].other_labels = vec!["k8s:statefulset.kubernetes.io/pod-name=api-0".into()];
    pods[1].ports = vec![PodPort { name: "HTTP".into(), protocol: 6, port: 8080 }];
    bed.cache.replace(Rank::Inventory, snapshot(pods), Window::exact(10));
    bed.updater.follow_names();
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:8080"), ["ingress forwarded 3: NetworkPolicy shop/one []"]);
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80"), ["ingress audit 0: NetworkPolicy shop/one []"]);
}

#[test]
fn a_bad_document_keeps_the_old_set_whole() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let write = |bed: &Bed, text: &str| fs::write(bed.folder.path().join("more.yaml"), text).unwrap();
    let take = |bed: &mut Bed| (0..3).for_each(|_| bed.updater.look());
    let denies_web = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: none, namespace: shop}\n\
                      spec: {podSelector: {matchLabels: {app: web}}}\n";
    write(&bed, &format!("{denies_web}---\n{}", denies_web.replace("podSelector", "podSelektor")));
    take(&mut bed);
    assert_eq!(bed.connect("10.0.0.2", "10.0.0.1:80"), [""; 0]);
    let policies = Arc::clone(bed.updater.policies());
    let problem = policies.problem().unwrap();
    assert!(problem.contains("more.yaml:9:8") && problem.contains("spec.podSelektor: "), "{problem}");
    assert_eq!(policies.counters.refused.load(Ordering::Relaxed), 1);
    assert_eq!(policies.set().revision, 1);

    write(&bed, denies_web);
    take(&mut bed);
    assert_eq!(bed.connect("10.0.0.2", "10.0.0.1:80"), ["ingress audit 0: NetworkPolicy shop/none []"]);
    assert_eq!((policies.problem(), policies.set().revision), (None, 2));
    let id =
        policies.set().policies.iter().find(|one| &*one.policy.id.name == "none").unwrap().policy.id.clone();
    assert_eq!(passed(policies.hits(&id)), (0, 1));
    fs::remove_file(bed.folder.path().join("more.yaml")).unwrap();
    take(&mut bed);
    assert_eq!(bed.connect("10.0.0.2", "10.0.0.1:80"), [""; 0]);
    assert_eq!(passed(policies.hits(&id)), (0, 0), "forgotten with the policy");
}

#[test]
fn pods_that_come_change_and_go_are_judged_as_they_are() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80").len(), 1);
    // Another gets the address of the API, and a relabelled one becomes it.
    let pods = vec![
        pod("shop/other", "10.0.0.2", &["app=other"]),
        pod("shop/web", "10.0.0.1", &["app=api"]),
        pod("shop/new", "10.0.0.4", &["app=web"]),
    ];
    bed.cache.replace(Rank::Inventory, snapshot(pods), Window::exact(10));
    // Before the engine has heard of it nobody is judged as who he was.
    bed.time = 20;
    assert_eq!(bed.connect("10.0.0.4", "10.0.0.1:80"), [""; 0]);
    assert_eq!(bed.updater.policies().counters.ends_unknown.load(Ordering::Relaxed), 2);
    bed.updater.follow_names();
    let api = "CiliumNetworkPolicy shop/api [\"shop-api\"]";
    assert_eq!(bed.connect("10.0.0.4", "10.0.0.1:80"), [format!("ingress forwarded 2: {api}")]);
    assert_eq!(bed.connect("10.0.0.4", "10.0.0.2:80"), [""; 0]);
    assert_eq!(bed.connect("10.0.0.2", "10.0.0.1:80"), [format!("ingress audit 0: {api}")]);
    // A late event of a pod that is gone: it is not the one that has its address now.
    bed.time = 5;
    assert_eq!(bed.connect("10.0.0.1", "10.0.0.2:80"), [""; 0]);
    assert_eq!(bed.updater.policies().counters.ends_unknown.load(Ordering::Relaxed), 4);
}

#[test]
fn what_is_the_same_is_shared() {
    let mut bed = Bed::new(Mode::Audit, POLICIES);
    let flow = bed.flow("10.0.0.1", "10.0.0.2:80", Point::ToEndpoint);
    let verdict = |bed: &mut Bed| {
        let mut verdict = None;
        bed.judge.begin().judge(&flow.flow(), None, &mut |flow| verdict = flow.policy.cloned());
        verdict.unwrap()
    };
    let first = verdict(&mut bed);
    let mut pods = usual();
    pods.push(pod("shop/more", "10.0.0.9", &["app=more"]));
    bed.cache.replace(Rank::Inventory, snapshot(pods), Window::exact(10));
    bed.updater.follow_names();
    assert!(Arc::ptr_eq(&first, &verdict(&mut bed)), "a change of endpoints makes no new names");
    assert_eq!((first.told().revision, bed.updater.policies().set().revision), (1, 1));
    let named = Named { name: "api", ..Named::default() };
    bed.updater.command(named, Some(Mode::Enforce)).unwrap();
    assert_eq!((verdict(&mut bed).told().revision, bed.updater.policies().set().revision), (2, 2));
}
