//! Modes that commands say, kept and refused.

use super::*;
use observer_proto::flow::{AgentEventType, agent_event::Notification};

const TOOLS: Named<'_> = Named { kind: "", namespace: "ops", name: "tools" };

/// The modes of the policies `api` and `tools`, and by what.
fn modes(updater: &Updater) -> Vec<(Mode, SetBy)> {
    updater.policies().set().policies.iter().map(|one| (one.mode(), one.set_by())).collect()
}

#[test]
fn a_command_is_stronger_than_annotations_and_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let config = PolicyConfig { state_dir: Some(state.path().to_owned()), ..PolicyConfig::default() };
    let own =
        POLICIES.replace("namespace: ops}", "namespace: ops, annotations: {observer/policy-mode: audit}}");
    let mut bed = Bed::with(config.clone(), &own);
    let api = (Mode::Audit, SetBy::Default);
    assert_eq!(modes(&bed.updater), [api, (Mode::Audit, SetBy::PolicyAnnotation)]);
    assert_eq!(bed.connect("10.0.0.3", "10.0.0.2:80").len(), 2);
    let told = bed.cache.events().agent.range().end;

    let id = bed.updater.command(TOOLS, Some(Mode::Observe)).unwrap();
    assert_eq!(id.to_string(), "NetworkPolicy ops/tools");
    assert_eq!(modes(&bed.updater), [api, (Mode::Observe, SetBy::Command)]);
    assert_eq!(bed.connect("10.0.0.3", "10.0.0.2:80").len(), 1, "taken at once");
    let events = bed.cache.events().agent.read(told, 9).entries;
    let [(_, said), (_, updated)] = &events[..] else { panic!("{events:?}") };
    let Some(Notification::Unknown(said)) = &said.notification else { panic!("{said:?}") };
    assert_eq!(said.notification, "mode of NetworkPolicy ops/tools: observe, by command");
    assert_eq!(updated.r#type(), AgentEventType::PolicyUpdated);

    // Another daemon in the same place, whose file of policies is another, too.
    let mut again = Bed::with(config, &own);
    assert_eq!(modes(&again.updater), [api, (Mode::Observe, SetBy::Command)]);
    fs::write(again.folder.path().join("policies.yaml"), POLICIES).unwrap();
    (0..3).for_each(|_| again.updater.look());
    assert_eq!(modes(&again.updater)[1], (Mode::Observe, SetBy::Command), "through a reload");
    fs::write(again.folder.path().join("policies.yaml"), "").unwrap();
    (0..3).for_each(|_| again.updater.look());
    assert_eq!(modes(&again.updater), []);
    // Also of one that is gone it can be taken back.
    assert!(again.updater.command(TOOLS, Some(Mode::Audit)).is_err());
    again.updater.command(TOOLS, None).unwrap();
    fs::write(again.folder.path().join("policies.yaml"), POLICIES).unwrap();
    (0..3).for_each(|_| again.updater.look());
    assert_eq!(modes(&again.updater), [api, api]);
}

#[test]
fn a_name_that_means_none_or_several_is_refused_in_a_line() {
    let twin = POLICIES.replace("name: tools", "name: api");
    let mut bed = Bed::new(Mode::Audit, &twin);
    let named = |kind, namespace, name| Named { kind, namespace, name };
    for (name, expected) in [
        (named("", "", "web"), "no policy is named web; `observe policy list` shows all"),
        (
            named("NetworkPolicy", "shop", "api"),
            "no policy is named NetworkPolicy/shop/api; there is NetworkPolicy ops/api, CiliumNetworkPolicy shop/api",
        ),
        (
            named("", "", "api"),
            "api means 2 policies: NetworkPolicy ops/api, CiliumNetworkPolicy shop/api; name one as \
             KIND/NAMESPACE/NAME",
        ),
    ] {
        assert_eq!(bed.updater.command(name, None).unwrap_err().to_string(), expected);
    }
    bed.updater.command(named("", "shop", "api"), Some(Mode::Observe)).unwrap();
    assert_eq!(modes(&bed.updater)[0], (Mode::Observe, SetBy::Command));
}

#[test]
fn what_can_not_be_kept_does_not_count() {
    let state = tempfile::NamedTempFile::new().unwrap();
    // Below a file there is no folder.
    let state_dir = Some(state.path().join("state"));
    let folder = tempfile::tempdir().unwrap();
    let config = PolicyConfig { state_dir: Some(folder.path().to_owned()), ..PolicyConfig::default() };
    fs::write(folder.path().join("policy-modes.toml"), "[[policy]]\nmode = 1\n").unwrap();
    let files = vec![folder.path().join("policies.yaml")];
    fs::write(&files[0], POLICIES).unwrap();
    let load = |config| Updater::load(config, "default", Arc::new(IpCache::new("n1")), None);
    let error = load(PolicyConfig { files, ..config.clone() }).unwrap_err().to_string();
    assert!(error.contains("policy-modes.toml:"), "{error}");

    let error = load(PolicyConfig { state_dir, files: vec![folder.path().join("policies.yaml")], ..config });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("policy-modes.toml: Not a directory"), "{error}");
}

#[test]
fn caps_are_stronger_than_commands_and_say_so() {
    let cap = Cap { most: Mode::Observe, why: "nothing is judged".into() };
    let config = PolicyConfig { cap: Some(cap), ..PolicyConfig::default() };
    assert!(!PolicyConfig { files: vec!["p".into()], ..config.clone() }.judges());
    let mut bed = Bed::with(config, POLICIES);
    bed.updater.command(TOOLS, Some(Mode::Enforce)).unwrap();
    let set = bed.updater.policies().set();
    assert_eq!(modes(&bed.updater), [(Mode::Observe, SetBy::Cap); 2]);
    assert_eq!(
        set.why_not_as_asked(&set.policies[1]).unwrap(),
        "asks for mode enforce and is in mode observe: nothing is judged"
    );
}

/// Nobody may talk to anybody.
const ALONE: &str = "\
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: alone}
spec: {nodeSelector: {}, egress: [{}], ingress: [{}]}
";
const HOST: Named<'_> = Named { kind: "", namespace: "", name: "alone" };

#[test]
fn what_cuts_the_node_off_is_refused_and_the_old_stays() {
    let mut bed = Bed::new(Mode::Audit, ALONE);
    let mut names = snapshot(usual());
    names.surroundings.kube_apiservers = vec!["192.0.2.6".parse().unwrap()];
    bed.cache.replace(Rank::Inventory, names, Window::exact(1));
    bed.updater.follow_names();
    let start = "CiliumClusterwideNetworkPolicy alone in mode enforce would cut this node off: ";
    let error = bed.updater.command(HOST, Some(Mode::Enforce)).unwrap_err().to_string();
    assert!(error.starts_with(start) && error.ends_with(" --allow-lockout"), "{error}");
    assert_eq!(modes(&bed.updater), [(Mode::Audit, SetBy::Default)]);

    // By its document it is refused alike, and at the start.
    let file = bed.folder.path().join("policies.yaml");
    let enforced = ALONE.replace("name: alone", "name: alone, annotations: {observer/policy-mode: enforce}");
    fs::write(&file, enforced).unwrap();
    (0..3).for_each(|_| bed.updater.look());
    assert_eq!(modes(&bed.updater), [(Mode::Audit, SetBy::Default)]);
    let problem = bed.updater.policies().problem().unwrap();
    assert!(problem.starts_with(start), "{problem}");
    let config = PolicyConfig { files: vec![file], ..PolicyConfig::default() };
    let load = |config| Updater::load(config, "default", Arc::clone(&bed.cache), None);
    let error = load(config.clone()).unwrap_err().to_string();
    assert!(error.starts_with(start), "{error}");
    let updater = load(PolicyConfig { allow_lockout: true, ..config }).unwrap();
    assert_eq!(modes(&updater), [(Mode::Enforce, SetBy::PolicyAnnotation)]);
}
