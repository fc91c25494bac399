//! What is accepted and what is refused, as the API server and Cilium do; and that bad input keeps nothing.

use observer_policy::source::{self, Options};
use std::{fs, path::Path};

fn document(kind: &str, text: &str) -> String {
    let (version, name, namespace) = match kind {
        "knp" => ("networking.k8s.io/v1", "NetworkPolicy", ", namespace: a"),
        "cnp" => ("cilium.io/v2", "CiliumNetworkPolicy", ", namespace: a"),
        "ccnp" => ("cilium.io/v2", "CiliumClusterwideNetworkPolicy", ""),
        _ => return text.replace("\\n", "\n"),
    };
    format!("apiVersion: {version}\nkind: {name}\nmetadata: {{name: p{namespace}}}\nspec: {text}\n")
}

#[test]
fn documents_are_accepted_or_refused_with_the_field() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/policy/documents.tsv");
    let (mut accepted, mut refused, mut wrong) = (0, 0, Vec::new());
    for row in fs::read_to_string(table).unwrap().lines().skip(1) {
        let [kind, field, text] = row.splitn(3, '\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        match (source::parse(&document(kind, text), &Options::default()), field) {
            (Ok(_), "-") => accepted += 1,
            (Err(fault), field) if fault.path == field || field == "." && fault.path.is_empty() => {
                assert!(
                    fault.line > 0 && !fault.problem.is_empty() && !fault.problem.contains('\n'),
                    "{fault:?}"
                );
                refused += 1;
            }
            (outcome, _) => wrong.push(format!("{row}\n    {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted >= 100 && refused >= 150, "{accepted} accepted, {refused} refused");
}

#[test]
fn folders_are_read_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("b.yaml", &document("knp", "{}"));
    write("a/c.json", &document("cnp", "{endpointSelector: {}, ingress: [{}]}"));
    write("notes.txt", "not a policy: [");
    write("..data/b.yaml", &document("knp", "{}"));
    write(".b.yaml.swp.yaml", "half of a docum: [");
    let policies = source::load(&[folder.path()], &Options::default()).unwrap();
    let names: Vec<_> = policies.iter().map(|policy| policy.id.to_string()).collect();
    assert_eq!(names, ["CiliumNetworkPolicy a/p", "NetworkPolicy a/p"]);

    write(
        "d.yaml",
        "\n\n# a comment\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: q}\nspec:\n  ingress:\n  - frm: []\n",
    );
    let error = source::load(&[folder.path()], &Options::default()).unwrap_err().to_string();
    assert!(error.contains("d.yaml:9:5: spec.ingress[0].frm: no such field"), "{error}");
    write("d.yaml", &document("knp", "{}"));
    let error = source::load(&[folder.path()], &Options::default()).unwrap_err().to_string();
    assert!(error.contains("d.yaml:1:1: metadata.name: NetworkPolicy a/p is also in"), "{error}");
    let error = source::load(&[folder.path().join("none")], &Options::default()).unwrap_err().to_string();
    assert!(error.contains("none: No such file"), "{error}");
}

#[test]
fn fifty_thousand_cidrs_are_a_policy_in_lines_and_in_one() {
    let nets = (0..50_000_u32).map(|n| format!("{{\"cidr\": \"{}/32\"}}", std::net::Ipv4Addr::from(n << 8)));
    let nets: Vec<_> = nets.collect();
    for separator in [", ", ",\n  "] {
        let spec =
            format!("{{endpointSelector: {{}}, ingress: [{{fromCIDRSet: [{}]}}]}}", nets.join(separator));
        let policies = source::parse(&document("cnp", &spec), &Options::default()).unwrap();
        assert_eq!(policies[0].ingress.as_ref().unwrap().allow[0].peers.terms().len(), 50_000);
    }
}
