//! The configuration file of the dashboard.

use crate::{
    keys::KeyMap,
    state::{Look, TimeForm},
    theme::Theme,
    views::flows::Field,
};
use serde::Deserialize;
use std::{collections::BTreeMap, fs, io, path::Path};

/// What the file may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Colours.
    pub theme: Option<Theme>,
    /// ASCII only.
    #[serde(default)]
    pub ascii: bool,
    columns: Option<Vec<Field>>,
    #[serde(default)]
    keys: BTreeMap<String, Vec<String>>,
}

/// A file with everything as it is without one, to begin with.
pub const TEMPLATE: &str = "\
# The dashboard `observe tui`. Everything here is as it is without this file.

# ansi (the terminal's own 16 colours), cvd (for those who tell red from green badly), light (for a light background), mono.
# Without a line here, mono where NO_COLOR is set.
theme: ansi

# No other characters than those of ASCII, but for names.
ascii: false

# The columns of Flows from left to right, of time, node, verdict, source, destination, type, info. Where the terminal is
# narrow, node and type are left out.
columns: [time, node, verdict, source, destination, type, info]

# Keys by the names of the table in docs/tui.md: x, Ctrl-x, Space, Enter, Esc, Tab, Shift-Tab, Up, PgUp, Home, F1. A key that
# is given here is taken from whatever had it.
keys:
  pause: [Space]
  quit: [q, Ctrl-c]
";

impl Config {
    /// From a file; the error names it, and the place in it.
    pub fn read(path: &Path) -> Result<Option<Self>, String> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some).map_err(|why| format!("{}{why}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    /// From its text; the error begins with a colon.
    fn parse(text: &str) -> Result<Self, String> {
        let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if is_empty {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location().map(|place| format!(":{}:{}", place.line(), place.column()));
            let why = error.without_snippet().to_string().replace('\n', " ");
            let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
            format!("{}: {why}", place.unwrap_or_default())
        })?;
        config.keys().map_err(|why| format!(": {why}"))?;
        if config.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(": columns: at least one is needed".to_owned());
        }
        Ok(config)
    }

    fn keys(&self) -> Result<KeyMap, String> {
        let mut map = KeyMap::default();
        for (name, keys) in &self.keys {
            map.set(name, keys).map_err(|why| format!("keys: {why}"))?;
        }
        Ok(map)
    }

    /// What views must know.
    pub(crate) fn look(&self, is_ascii: bool) -> Result<Look, String> {
        let mut columns = Vec::new();
        for field in self.columns.clone().unwrap_or_else(|| Field::ALL.to_vec()) {
            if !columns.contains(&field) {
                columns.push(field);
            }
        }
        Ok(Look {
            is_ascii: is_ascii || self.ascii,
            columns,
            is_numeric: false,
            time: TimeForm::default(),
            keys: self.keys()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Action, Key};

    #[test]
    fn the_template_says_what_is_without_a_file() {
        let config = Config::parse(TEMPLATE).unwrap();
        let (ours, without) = (config.look(false).unwrap(), Config::default().look(false).unwrap());
        assert_eq!((ours.columns, config.theme), (without.columns, Some(Theme::Ansi)));
        for action in [Action::Pause, Action::Quit, Action::Exclude] {
            assert_eq!(ours.keys.keys(action), without.keys.keys(action));
        }
        assert_eq!(Config::parse("# nothing\n"), Ok(Config::default()));
    }

    #[test]
    fn faults_name_their_place() {
        for (text, told) in [
            ("theme: pink\n", ":1:"),
            ("colour: true\n", "colour"),
            ("columns: [time, colour]\n", "colour"),
            ("columns: []\n", "at least one"),
            ("keys:\n  leave: [q]\n", "is no action"),
            ("keys:\n  quit: [Hyper-q]\n", "is no key"),
        ] {
            let why = Config::parse(text).unwrap_err();
            assert!(why.starts_with(':') && why.contains(told) && !why.contains('\n'), "{text}: {why}");
        }
        let look = Config::parse("keys: {quit: [Z]}\ncolumns: [info, info]").unwrap().look(true).unwrap();
        assert_eq!((look.columns, look.is_ascii), (vec![Field::Info], true));
        assert_eq!(look.keys.keys(Action::Quit), [Key::named("Z").unwrap()]);
    }
}
