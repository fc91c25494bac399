//! The command line as a user types it.

use super::*;
use crate::settings::{Layers, Origin};
use observer_proto::filter::{FilterLists, flags::FLAGS};

fn try_parse(line: &str) -> Result<Arguments, String> {
    let words = std::iter::once("observe").chain(line.split_whitespace()).map(OsString::from);
    parse(words).map_err(|failure| match failure {
        Failure::Text(text) => text,
        other => format!("{other:?}"),
    })
}

fn filters(line: &str) -> FilterLists {
    match try_parse(line).unwrap().command {
        Command::Flows(flows) => flows.filters.lists(&Layers::none().settings().unwrap()).unwrap(),
        _ => panic!("{line}"),
    }
}

#[test]
fn clap_accepts_the_definition() {
    command().debug_assert();
}

#[test]
fn every_filter_flag_is_in_the_help_of_both_spellings() {
    let mut command = command();
    let root = command.render_help().to_string();
    let flows = command.find_subcommand_mut("flows").unwrap().render_help().to_string();
    for flag in FLAGS {
        for help in [&root, &flows] {
            assert!(help.contains(&format!("--{}", flag.name)), "{}", flag.name);
        }
    }
    let at = |heading: &str| root.find(&format!("\n{heading}:")).unwrap_or_else(|| panic!("{heading}"));
    assert!(at(SELECTORS) < at(FORMATTING) && at(FILTERS) > 0 && at(SERVER) > 0);
}

#[test]
fn order_decides_what_not_applies_to() {
    let lists = filters("--verdict DROPPED --not --from-pod a -t trace --not --to-port 53");
    assert_eq!(lists.whitelist.len(), 1);
    assert_eq!(lists.whitelist[0].verdict, [2]);
    assert_eq!(lists.whitelist[0].event_type.len(), 1);
    assert_eq!(lists.blacklist.len(), 1);
    assert_eq!(lists.blacklist[0].source_pod, ["a"]);
    assert_eq!(lists.blacklist[0].destination_port, ["53"]);
}

#[test]
fn bare_and_flows_are_the_same_and_the_server_may_stand_anywhere() {
    assert_eq!(filters("--pod web --not=true --port 53"), filters("flows --pod web --not --port 53"));
    for line in ["--server x:1 status", "status --server x:1", "--server x:1 -f", "flows -f --server=x:1"] {
        let settings = try_parse(line).unwrap().globals.settings().unwrap();
        assert_eq!(settings.server, Some(("x:1".to_owned(), Origin::Flag)), "{line}");
    }
    assert!(filters("-A4").whitelist.len() == 2);
}

#[test]
fn wrong_usage_is_told_in_hubbles_words() {
    for (line, text) in [
        ("--bogus", "unknown flag: --bogus"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("--pod", "flag needs an argument: --pod"),
        (
            "--last x",
            r#"invalid argument "x" for "--last" flag: strconv.ParseUint: parsing "x": invalid syntax"#,
        ),
        ("--verdict x", r#"invalid argument "x" for "--verdict" flag: invalid --verdict value: x"#),
        (
            "-t bogus",
            r#"invalid argument "bogus" for "-t, --type" flag: unable to parse type 'bogus', not a known type name and unable to parse as numeric value: strconv.ParseUint: parsing "bogus": invalid syntax"#,
        ),
        ("--not", "trailing --not found in the arguments"),
        ("flow", r#"unknown command "flow" for "observe"; see observe --help"#),
        ("config set", "missing argument: <KEY>"),
        ("list --bogus", "unknown flag: --bogus"),
        ("list pods", r#"unknown command "pods" for "observe list"; see observe list --help"#),
        ("flows web", r#"unexpected argument "web"; see observe flows --help"#),
        ("-f status", "unknown shorthand flag: 'f' in -f"),
        ("--=x", "bad flag syntax: --=x"),
        ("-t", "flag needs an argument: 't' in -t"),
        ("-fx", "unknown shorthand flag: 'x' in -x"),
        (
            "--all=maybe",
            r#"invalid argument "maybe" for "--all" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#,
        ),
        ("--timeout x", r#"invalid argument "x" for "--timeout" flag: time: invalid duration "x""#),
        // The first mistake is told, whatever its kind.
        ("--verdict x --bogus", r#"invalid argument "x" for "--verdict" flag: invalid --verdict value: x"#),
        ("--bogus --verdict x", "unknown flag: --bogus"),
        (
            "--last x --last 3",
            r#"invalid argument "x" for "--last" flag: strconv.ParseUint: parsing "x": invalid syntax"#,
        ),
        (
            "--not --last x",
            r#"invalid argument "x" for "--last" flag: strconv.ParseUint: parsing "x": invalid syntax"#,
        ),
        ("--not --bogus", "unknown flag: --bogus"),
        // Of what Hubble has not, what would be right is told.
        ("top -o x", r#"invalid argument "x" for "--output" flag: it is none of text, json"#),
        ("inspect flows --limit x", r#"invalid argument "x" for "--limit" flag: a whole number is needed"#),
        ("top --limit x", r#"invalid argument "x" for "--limit" flag: a whole number from 1 on is needed"#),
        ("graph --limit 0", r#"invalid argument "0" for "--limit" flag: a whole number from 1 on is needed"#),
        (
            "policy mode shop/web x",
            r#"invalid argument "x" for <MODE>: it is none of observe, audit, enforce, default"#,
        ),
        ("inspect programs --for 2s", "missing argument: --stats"),
    ] {
        assert_eq!(try_parse(line).err().as_deref(), Some(text), "{line}");
    }
}

#[test]
fn words_are_taken_as_hubbles_parser_takes_them() {
    let of = |line: &str| filters(line);
    for (line, same) in [
        ("-tdrop", "--type drop"),
        ("-t=drop", "--type=drop"),
        ("-ft drop", "--follow --type drop"),
        ("-nshop", "-n shop"),
        ("--not=false --pod a", "--not --pod a"),
        ("-A=false --pod a", "-A --pod a"),
        ("--pod a flows --pod b", "flows --pod a --pod b"),
        ("observe --pod a", "--pod a"),
        ("observe flows --pod a", "--pod a"),
        ("--pod -x", "--pod=-x"),
        ("--pod a -o json -o dict --last 3 --last 4", "--pod a"),
    ] {
        assert_eq!(of(line), of(same), "{line}");
    }
    let select = |line: &str| match try_parse(line).unwrap().command {
        Command::Flows(flows) => (flows.select.all, flows.select.follow, flows.select.last),
        _ => panic!("{line}"),
    };
    assert_eq!(select("--all --all=false -f=t --last 3 --last 4"), (false, true, 4));
    assert!(
        try_parse("--tls --tls=false").unwrap().globals.settings().is_ok_and(|settings| !settings.tls.on)
    );
}

#[test]
fn the_outline_has_the_commands_of_the_whole_definition() {
    let whole = command();
    for of_whole in whole.get_subcommands() {
        let name = of_whole.get_name();
        let outline = outline(&[name.to_owned()]);
        let mut named = outline.get_subcommands();
        let named = (named.next().unwrap_or_else(|| panic!("no {name}")), named.next());
        assert_eq!((named.0.get_name(), named.1.is_none()), (name, true));
        let arguments =
            |of: &clap::Command| of.get_arguments().map(|arg| arg.get_id().clone()).collect::<Vec<_>>();
        assert_eq!(arguments(named.0), arguments(of_whole), "{name}");
        assert_eq!(arguments(&outline), arguments(&whole));
    }
    assert_eq!(outline(&["x".to_owned()]).get_subcommands().count(), 0);
}
