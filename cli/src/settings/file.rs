//! The configuration file: YAML with the settings' names as keys, as Hubble's.

use super::{KEYS, Key, Kind};
use serde::{Deserialize, Deserializer, de};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// A file that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) values: BTreeMap<String, Values>,
}

/// What stands behind a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) texts: Vec<String>,
    pub(crate) is_list: bool,
}

/// Where a file is looked for, the strongest first: our own, then Hubble's.
pub(crate) fn places(environment: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME");
    let config = set("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let in_config = |folder: &str| config.as_ref().map(|config| config.join(folder).join("config.yaml"));
    [in_config("observe"), in_config("hubble"), home.map(|home| home.join(".hubble/config.yaml"))]
        .into_iter()
        .flatten()
        .collect()
}

impl File {
    /// The named file, or the first there is. A file that is named must be there: what it asks for is not left out in
    /// silence, unlike in Hubble.
    pub(crate) fn find(
        named: Option<&str>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        if let Some(path) = named {
            return match Self::read(path.into())? {
                Some(file) => Ok(Some(file)),
                None => Err(format!("--config: {path}: no such file; `observe config set` makes one")),
            };
        }
        for path in places(environment) {
            if let Some(file) = Self::read(path)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Nothing if there is none.
    pub(crate) fn read(path: PathBuf) -> Result<Option<Self>, String> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        // Comments alone are no mapping.
        let is_empty =
            text.lines().all(|line| line.trim_start().is_empty() || line.trim_start().starts_with('#'));
        let values: BTreeMap<String, Values> = if is_empty {
            BTreeMap::new()
        } else {
            serde_saphyr::from_str(&text).map_err(|error| fault(&path, &error))?
        };
        for (name, given) in &values {
            let Some(key) = Key::named(name) else {
                let known = KEYS.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                return Err(format!("{}: unknown key: {name}; there are {known}", path.display()));
            };
            if given.is_list && !matches!(key.kind, Kind::List | Kind::Filters) {
                return Err(format!("{}: {name}: one value is wanted, not a list", path.display()));
            }
        }
        Ok(Some(Self { path, values }))
    }

    /// Writes all keys, sorted.
    pub(crate) fn write(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        let mut text = String::new();
        for (name, values) in &self.values {
            let kind = Key::named(name).map_or(Kind::Text, |key| key.kind);
            yaml_entry(name, kind, &values.texts, &mut text);
        }
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        // Whole or not at all; it may hold a password.
        let new = self.path.with_extension("yaml.new");
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.write(true).create(true).truncate(true).open(&new).map_err(failed)?;
        io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)
    }
}

/// One line with the place.
fn fault(path: &Path, error: &serde_saphyr::Error) -> String {
    let place =
        error.location().map_or_else(String::new, |place| format!(":{}:{}", place.line(), place.column()));
    let text = error.without_snippet().to_string().replace('\n', " ");
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    format!("{}{place}: {text}", path.display())
}

/// `key: value`, or a list in lines of its own.
pub(crate) fn yaml_entry(name: &str, kind: Kind, values: &[String], out: &mut String) {
    out.push_str(name);
    out.push(':');
    match kind {
        Kind::List | Kind::Filters if !values.is_empty() => {
            for value in values {
                out.push_str("\n    - ");
                out.push_str(&yaml_scalar(value));
            }
        }
        _ => {
            out.push(' ');
            *out += &yaml_value(kind, values);
        }
    }
    out.push('\n');
}

/// One value; a list in one line.
pub(crate) fn yaml_value(kind: Kind, values: &[String]) -> String {
    let first = values.first().map_or("", String::as_str);
    match kind {
        Kind::List | Kind::Filters if values.is_empty() => "[]".to_owned(),
        Kind::List | Kind::Filters => {
            values.iter().map(|value| format!("- {}", yaml_scalar(value))).collect::<Vec<_>>().join("\n")
        }
        // As it was checked, they are no text to YAML either.
        Kind::Switch => super::truth(first).unwrap_or_default().to_string(),
        Kind::Text | Kind::Duration | Kind::Port => yaml_scalar(first),
    }
}

/// A text as YAML reads it back: plain where that is clear, else in single quotes, or as JSON where it has what those
/// can't hold.
pub(crate) fn yaml_scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.' | '_'))
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@+=~".contains(c))
        && !text.ends_with(':')
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n", ".inf", ".nan"]
            .contains(&text.to_ascii_lowercase().as_str())
        || duration_like(text);
    if is_plain {
        text.to_owned()
    } else if text.is_empty() || text.chars().any(char::is_control) || text.parse::<f64>().is_ok() {
        format!("{text:?}")
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// `5s`: begins with a digit, and yet is no number.
fn duration_like(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(['s', 'm', 'h'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a number, true, false, or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values { texts: vec![text.to_owned()], is_list: false })
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Values, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_unit<E: de::Error>(self) -> Result<Values, E> {
                self.visit_str("")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Values, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element::<String>()? {
                    texts.push(text);
                }
                Ok(Values { texts, is_list: true })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}
