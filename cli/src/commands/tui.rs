//! `observe tui`: the live dashboard.

use crate::{
    Failure,
    args::{FORMATTING, FilterArgs, Globals, SELECTORS, variable},
    connect::Target,
    dashboard,
    output::whole,
};
use clap::Args;
use observe_tui::{
    Filter, Options, Theme, check,
    config::{Config, TEMPLATE},
};
use observer_proto::filter::flags;
use std::path::PathBuf;

pub(super) const AFTER_HELP: &str = "\
Seven views, by the keys 1 to 7: Flows, Drops, Map, Policy, Talkers, Golden, Nodes. ? shows the keys of each, / takes a filter
by the flags below, y copies the command that shows the same. It stays when the server goes away, and goes on after it.

Examples:
  observe tui                                 everything, from the local daemon
  observe tui -n shop --verdict DROPPED       what is dropped in a namespace
  observe tui --input-file flows.jsonl.gz     flows of a file
  observe tui --print-template > ~/.config/observe/tui.yaml   a configuration to begin with";

/// `observe tui`.
#[derive(Args)]
pub(crate) struct TuiArgs {
    /// Flows of before to begin with
    #[arg(long, value_name = "N", help_heading = SELECTORS)]
    last: Option<u64>,
    /// Flows from this file in place of a server: JSON lines, plain or packed by gzip; several are read one after the other
    #[arg(long, value_name = "FILE", help_heading = SELECTORS)]
    input_file: Vec<PathBuf>,
    /// ansi, cvd (for those who tell red from green badly), light, or mono; without it, mono where NO_COLOR is set
    #[arg(long, value_name = "NAME", value_parser = Theme::named, help_heading = FORMATTING)]
    theme: Option<Theme>,
    /// No other characters than those of ASCII, but for names; so it is, too, where LC_ALL, LC_CTYPE or LANG is not UTF-8
    #[arg(long, help_heading = FORMATTING)]
    ascii: bool,
    /// The wheel moves through rows; to select text, most terminals then want Shift
    #[arg(long, help_heading = FORMATTING)]
    mouse: bool,
    /// Theme, columns and keys from this file [default: observe/tui.yaml in the folder of configurations]
    #[arg(long, value_name = "FILE", help_heading = FORMATTING)]
    tui_config: Option<PathBuf>,
    /// Print such a file with everything as it is without one, and end
    #[arg(long, help_heading = FORMATTING)]
    print_template: bool,
    #[command(flatten)]
    filters: FilterArgs,
}

pub(super) async fn run(globals: &Globals, args: Box<TuiArgs>) -> Result<(), Failure> {
    if args.print_template {
        return whole(TEMPLATE);
    }
    let settings = globals.settings()?;
    check()?;
    let config = config(&args)?;
    let mut words = Vec::new();
    for (name, value) in args.filters.given(&settings) {
        words.push(format!("--{name}"));
        words.extend(flags::find(name).is_some_and(|flag| flag.value.is_some()).then_some(value));
    }
    if let Some(last) = args.last {
        words.extend(["--last".to_owned(), last.to_string()]);
    }
    let filter = Filter::of_words(&words).map_err(|fault| fault.text)?;
    let (name, ends) = if args.input_file.is_empty() {
        let target = Target::choose(&settings)?;
        (target.to_string(), dashboard::from_server(target, settings))
    } else {
        // A missing one is told before the terminal is taken.
        crate::input::Input::open(&args.input_file)?;
        let names: Vec<String> = args.input_file.iter().map(|path| path.display().to_string()).collect();
        (names.join(" "), dashboard::from_files(args.input_file.clone()))
    };
    let options = Options {
        name,
        is_file: !args.input_file.is_empty(),
        filter,
        theme: Theme::choose(args.theme, config.theme, &variable),
        is_ascii: args.ascii || !speaks_utf8(&variable),
        has_mouse: args.mouse,
        config,
        history: folder("XDG_STATE_HOME", ".local/state").map(|folder| folder.join("tui-history")),
    };
    Ok(observe_tui::run(options, ends.messages, ends.asks).await?)
}

/// The named file, which must be there, or the usual one.
fn config(args: &TuiArgs) -> Result<Config, String> {
    if let Some(path) = &args.tui_config {
        let missing =
            || format!("--tui-config: {}: no such file; --print-template prints one", path.display());
        return Config::read(path)?.ok_or_else(missing);
    }
    let usual = folder("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("tui.yaml"));
    Ok(usual.map_or(Ok(None), |path| Config::read(&path))?.unwrap_or_default())
}

/// `observe` in a folder of the user's.
fn folder(name: &str, in_home: &str) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(name).or_else(|| set("HOME").map(|home| home.join(in_home))).map(|folder| folder.join("observe"))
}

/// By the strongest of the variables that is set; by none, the terminal is taken for one of today.
fn speaks_utf8(variable: &dyn Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_tells_what_the_terminal_can_show() {
        for (variables, speaks) in [
            (&[][..], true),
            (&[("LANG", "C")], false),
            (&[("LANG", "C"), ("LC_ALL", "C.UTF-8")], true),
            (&[("LC_CTYPE", "de_DE.utf8")], true),
            (&[("LC_ALL", ""), ("LANG", "en_US.ISO-8859-1")], false),
        ] {
            let variable = |name: &str| {
                variables.iter().find(|row| row.0 == name).map(|row: &(&str, &str)| row.1.to_owned())
            };
            assert_eq!(speaks_utf8(&variable), speaks, "{variables:?}");
        }
    }
}
