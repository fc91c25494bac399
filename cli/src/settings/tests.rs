//! Who wins, and what a bad value is told.

use super::{file::yaml_scalar, *};
use std::collections::BTreeMap;

impl Layers<'_> {
    /// Nothing given anywhere.
    pub(crate) fn none() -> Self {
        Self { flags: &[], environment: &|_| None, file: None }
    }
}

/// A value for each kind and layer, flag first: the nth is what the nth layer says.
fn samples(kind: Kind) -> [&'static str; 4] {
    match kind {
        Kind::Text => ["a", "b", "c", "d"],
        Kind::Switch => ["true", "1", "t", "TRUE"],
        Kind::Duration => ["1s", "2s", "3s", "4s"],
        Kind::Port => ["1", "2", "3", "4"],
        Kind::List => ["a,b", "c,d", "e", "f"],
        Kind::Filters => ["{}", "{ }", "{  }", "{   }"],
    }
}

/// Every setting by every set of layers: the strongest that is there counts.
#[test]
fn the_strongest_layer_counts() {
    let mut cases = 0;
    for key in KEYS {
        let values = samples(key.kind);
        let [ours, hubbles] = key.variables();
        for given in 0..16_u8 {
            let has = |layer: usize| given & (1 << layer) != 0;
            let flags = if has(0) { vec![(key.name, values[0].to_owned())] } else { Vec::new() };
            let environment = |name: &str| {
                let layer = if name == ours {
                    1
                } else if name == hubbles {
                    2
                } else {
                    return None;
                };
                // An empty variable is none.
                Some(if has(layer) { values[layer].to_owned() } else { String::new() })
            };
            let texts = vec![values[3].to_owned()];
            let file = File {
                path: "/f.yaml".into(),
                values: BTreeMap::from([(key.name.to_owned(), file::Values { texts, is_list: false })]),
            };
            let layers = Layers { flags: &flags, environment: &environment, file: has(3).then_some(file) };
            let (found, origin) = layers.find(key);
            let strongest = (0..4).find(|layer| has(*layer));
            let (text, from) = match strongest {
                Some(layer) => {
                    let origins = [
                        Origin::Flag,
                        Origin::Variable(ours.clone()),
                        Origin::Variable(hubbles.clone()),
                        Origin::File("/f.yaml".into()),
                    ];
                    (values[layer], origins[layer].clone())
                }
                None => (key.default, Origin::Default),
            };
            assert_eq!((found.join(","), origin), (text.to_owned(), from), "{} {given:04b}", key.name);
            cases += 1;
        }
    }
    println!("settings: {cases} sets of layers");
    assert_eq!(cases, KEYS.len() * 16);
}

#[test]
fn a_bad_value_names_its_place() {
    let with = |name: &'static str, value: &'static str| {
        let environment = move |variable: &str| (variable == name).then(|| value.to_owned());
        Layers { flags: &[], environment: &environment, file: None }.settings().map(|_| ())
    };
    for (name, value, text) in [
        ("OBSERVE_TIMEOUT", "x", r#"$OBSERVE_TIMEOUT: time: invalid duration "x""#),
        ("HUBBLE_TLS", "y", r#"$HUBBLE_TLS: strconv.ParseBool: parsing "y": invalid syntax"#),
        (
            "HUBBLE_PORT_FORWARD_PORT",
            "99999",
            r#"$HUBBLE_PORT_FORWARD_PORT: strconv.ParseUint: parsing "99999": value out of range"#,
        ),
        (
            "HUBBLE_BASIC_AUTH_USERNAME",
            "x",
            "invalid flag(s): must specify both basic-auth-username and basic-auth-password",
        ),
        (
            "HUBBLE_TLS_CLIENT_KEY_FILE",
            "x",
            "invalid flag(s): certificate and private key are both required, but only one was provided",
        ),
    ] {
        assert_eq!(with(name, value), Err(text.to_owned()));
    }
    assert_eq!(with("OBSERVE_TIMEOUT", "1m30s"), Ok(()));
}

#[test]
fn a_file_is_read_as_hubble_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        File::read(path.clone()).map(|file| file.unwrap().values)
    };
    let values = read(
        "# mine\nserver: 'a b: #'\ntimeout: 7s\ntls: true\nport-forward-port: 5\ntls-ca-cert-files:\n    - a\n    - b\n\
         allowlist:\n    - '{\"source_pod\":[\"a''b\"]}'\n",
    )
    .unwrap();
    let text = |name: &str| values[name].texts.join("|");
    assert_eq!(text("server"), "a b: #");
    assert_eq!(text("timeout"), "7s");
    assert_eq!(text("tls"), "true");
    assert_eq!(text("port-forward-port"), "5");
    assert_eq!(text("tls-ca-cert-files"), "a|b");
    assert_eq!(text("allowlist"), r#"{"source_pod":["a'b"]}"#);
    // What is written is read back.
    let file = File { path: path.clone(), values: values.clone() };
    file.write().unwrap();
    assert_eq!(File::read(path.clone()).unwrap().unwrap().values, values);
    assert_eq!(read("# nothing\n\n"), Ok(BTreeMap::new()));
    for (text, why) in [
        ("sever: x\n", "unknown key: sever; there are server, "),
        ("server: [a]\n", "server: one value is wanted, not a list"),
        ("server: {a: b}\n", ":1:"),
        ("- a\n", ":1:1:"),
        ("server: a\nserver: b\n", ":2:"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(why) && !error.contains('\n'), "{text:?}: {error}");
    }
}

#[test]
fn scalars_are_quoted_as_go_quotes_them() {
    for (text, yaml) in [
        ("localhost:4245", "localhost:4245"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("/a/b-c_d.pem", "/a/b-c_d.pem"),
        ("12s", "12s"),
        ("", r#""""#),
        ("4245", r#""4245""#),
        ("true", "'true'"),
        ("a b: #", "'a b: #'"),
        ("it's", "'it''s'"),
        (r#"{"a":[1]}"#, r#"'{"a":[1]}'"#),
        ("a\nb", r#""a\nb""#),
    ] {
        assert_eq!(yaml_scalar(text), yaml, "{text:?}");
    }
}
