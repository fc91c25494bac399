//! `observe config`: looks at the settings, and changes the file.

use crate::{
    Failure,
    args::{Globals, variable},
    output,
    settings::{
        CONFIG, KEYS, Key, Kind, Origin,
        file::{File, Values, places, yaml_entry, yaml_value},
    },
};
use clap::{Args, Subcommand};

pub(super) const AFTER_HELP: &str = "\
A flag is stronger than a variable, a variable than the file: --tls-server-name, $OBSERVE_TLS_SERVER_NAME,
$HUBBLE_TLS_SERVER_NAME, `tls-server-name: x` in the file. The file is --config or $OBSERVE_CONFIG, else the first of
$XDG_CONFIG_HOME/observe/config.yaml (~/.config without the variable), $XDG_CONFIG_HOME/hubble/config.yaml and
~/.hubble/config.yaml. `allowlist:` and `denylist:` in it are lists of filters, as --print-raw-filters prints them.";

/// `observe config`.
#[derive(Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print one setting, or all
    Get {
        /// As the flag, without the dashes
        key: Option<String>,
    },
    /// Change a setting in the file; without a value it gets its default again
    Set {
        /// As the flag, without the dashes
        key: String,
        /// The new value; lists with commas
        value: Option<String>,
    },
    /// Take one setting, or all, out of the file
    Reset {
        /// As the flag, without the dashes
        key: Option<String>,
    },
    /// Print all settings, as flags, environment and file make them together
    View {
        /// Say where each comes from
        #[arg(long)]
        origin: bool,
    },
}

pub(super) async fn run(globals: &Globals, args: ConfigArgs) -> Result<(), Failure> {
    match args.what {
        What::Get { key: Some(name) } => {
            let key = named(&name)?;
            let values = value(globals, key)?;
            output::whole(&(yaml_value(key.kind, &values) + "\n"))
        }
        What::Get { key: None } => view(globals, false),
        What::View { origin } => view(globals, origin),
        What::Set { key, value } => {
            let key = named(&key)?;
            let value = value.filter(|value| !value.is_empty());
            change(globals, |file| {
                if let Some(value) = &value {
                    set(file, key, value)
                } else {
                    file.values.remove(key.name);
                    Ok(())
                }
            })
        }
        What::Reset { key: Some(name) } => {
            let key = named(&name)?;
            change(globals, |file| {
                file.values.remove(key.name);
                Ok(())
            })
        }
        What::Reset { key: None } => change(globals, |file| {
            file.values.clear();
            Ok(())
        }),
    }
}

fn named(name: &str) -> Result<&'static Key, String> {
    Key::named(name).ok_or_else(|| format!("unknown key: {name}"))
}

/// A setting's values; for the file its own path, where it is or would be.
fn value(globals: &Globals, key: &Key) -> Result<Vec<String>, String> {
    let layers = globals.layers(false)?;
    if key.name == CONFIG {
        return Ok(path(globals)?.map(|path| path.display().to_string()).into_iter().collect());
    }
    Ok(layers.find(key).0)
}

fn view(globals: &Globals, with_origin: bool) -> Result<(), Failure> {
    let layers = globals.layers(false)?;
    let mut keys: Vec<&Key> = KEYS.iter().collect();
    keys.sort_by_key(|key| key.name);
    let mut text = String::new();
    for key in keys {
        let (values, origin) = layers.find(key);
        let values = if key.name == CONFIG { value(globals, key)? } else { values };
        // Filters are no settings that have a default; Hubble's view has none either.
        if key.kind == Kind::Filters && values.is_empty() {
            continue;
        }
        if with_origin {
            text.push_str("# ");
            text.push_str(&if origin == Origin::Flag { "flag".to_owned() } else { origin.to_string() });
            text.push('\n');
        }
        yaml_entry(key.name, key.kind, &values, &mut text);
    }
    output::whole(&text)
}

/// The file in use, else the one that is to be made.
fn path(globals: &Globals) -> Result<Option<std::path::PathBuf>, String> {
    if let Some(named) = globals.config() {
        return Ok(Some(named.into()));
    }
    let found = File::find(None, &variable)?;
    Ok(found.map(|file| file.path).or_else(|| places(&variable).into_iter().next()))
}

fn change(globals: &Globals, edit: impl FnOnce(&mut File) -> Result<(), String>) -> Result<(), Failure> {
    let path = path(globals)?.ok_or_else(|| "config file undefined: name one with --config".to_owned())?;
    let mut file = File::read(path.clone())?.unwrap_or_default();
    file.path = path;
    edit(&mut file)?;
    Ok(file.write()?)
}

fn set(file: &mut File, key: &Key, value: &str) -> Result<(), String> {
    let kind = match key.kind {
        Kind::Switch => "bool",
        Kind::Duration => "duration",
        Kind::Port => "uint16",
        Kind::List => "stringSlice",
        Kind::Text | Kind::Filters => "string",
    };
    key.check(value).map_err(|why| {
        format!("cannot assign value={value} for key={}, expected type={kind}: {why}", key.name)
    })?;
    let is_list = matches!(key.kind, Kind::List | Kind::Filters);
    let texts = match key.kind {
        // Hubble's own form of a list is taken as well.
        Kind::List => value
            .trim_start_matches('[')
            .trim_end_matches(']')
            .split(',')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => vec![value.to_owned()],
    };
    file.values.insert(key.name.to_owned(), Values { texts, is_list });
    Ok(())
}
