//! What commands said of policies' modes: in a file, so that it holds over a restart.

use observer_policy::model::{Kind, Mode, PolicyId};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The file in the daemon's folder for what is kept.
const FILE: &str = "policy-modes.toml";
/// Policies that commands have said something of, gone ones among them.
const MOST: usize = 65_536;
const HEAD: &str = "# Kept by the daemon for `observe policy mode`, which changes it.\n\n";

/// The modes that commands said, by policy; of those that are gone too, as they may come again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Modes {
    file: Option<PathBuf>,
    said: BTreeMap<PolicyId, Mode>,
}

/// Why modes can't be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum ModesError {
    /// The file can't be read.
    #[error("cannot read the modes that commands said of policies: {file}: {cause}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is none of ours, or broken.
    #[error(
        "{file}:{line}: {problem}; these are the modes that `observe policy mode` said: correct the file, or remove it \
         and say them again"
    )]
    Broken {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The file can't be written.
    #[error("cannot keep the mode: {file}: {cause}")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// There are too many.
    #[error(
        "modes of {MOST} policies are kept already: take some back by `observe policy mode NAME default`"
    )]
    TooMany,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    policy: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(with = "KindName")]
    kind: Kind,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    namespace: Box<str>,
    name: Box<str>,
    #[serde(with = "ModeName")]
    mode: Mode,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Kind")]
#[expect(clippy::enum_variant_names, reason = "they are the kinds' names")]
enum KindName {
    NetworkPolicy,
    CiliumNetworkPolicy,
    CiliumClusterwideNetworkPolicy,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Mode", rename_all = "lowercase")]
enum ModeName {
    Observe,
    Audit,
    Enforce,
}

impl Modes {
    /// Those that are kept in a folder. No file is no error: nobody has said anything yet.
    pub(super) fn read(folder: Option<&Path>) -> Result<Self, ModesError> {
        let Some(file) = folder.map(|folder| folder.join(FILE)) else { return Ok(Self::default()) };
        let text = match fs::read_to_string(&file) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => String::new(),
            Err(cause) => return Err(ModesError::Unreadable { file, cause }),
            Ok(text) => text,
        };
        match toml::from_str::<Document>(&text) {
            Ok(Document { policy }) => {
                let said = policy.into_iter().map(|entry| {
                    let Entry { kind, namespace, name, mode } = entry;
                    (PolicyId { kind, namespace, name }, mode)
                });
                Ok(Self { file: Some(file), said: said.collect() })
            }
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start.min(text.len()));
                let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
                Err(ModesError::Broken { file, line, problem: error.message().to_owned() })
            }
        }
    }

    /// What was said of a policy.
    pub(super) fn of(&self, policy: &PolicyId) -> Option<Mode> {
        self.said.get(policy).copied()
    }

    /// The policies that something was said of.
    pub(super) fn policies(&self) -> impl Iterator<Item = &PolicyId> {
        self.said.keys()
    }

    /// With another word for one policy; `None` takes it back.
    pub(super) fn with(&self, policy: &PolicyId, mode: Option<Mode>) -> Result<Self, ModesError> {
        let mut new = self.clone();
        match mode {
            Some(mode) => new.said.insert(policy.clone(), mode),
            None => new.said.remove(policy),
        };
        if new.said.len() > MOST { Err(ModesError::TooMany) } else { Ok(new) }
    }

    /// Writes them beside the file: what can fail has not failed then.
    pub(super) fn prepare(&self) -> Result<Prepared, ModesError> {
        let Some(file) = &self.file else { return Ok(Prepared(None)) };
        let new = file.with_extension("toml.new");
        let write = || {
            let policy = self.said.iter().map(|(id, mode)| Entry {
                kind: id.kind,
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                mode: *mode,
            });
            let text = toml::to_string(&Document { policy: policy.collect() }).map_err(io::Error::other)?;
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut out =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(HEAD.as_bytes())?;
            out.write_all(text.as_bytes())?;
            out.sync_all()
        };
        write().map_err(|cause| ModesError::Unwritable { file: new.clone(), cause })?;
        Ok(Prepared(Some((new, file.clone()))))
    }
}

/// Written, and not yet what the next start reads.
#[must_use]
#[derive(Debug)]
pub(super) struct Prepared(Option<(PathBuf, PathBuf)>);

impl Prepared {
    /// From now on the next start reads these, whole, also after a loss of power.
    pub(super) fn keep(mut self) -> Result<(), ModesError> {
        let Some((new, file)) = self.0.take() else { return Ok(()) };
        let synced = || file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all());
        let renamed = fs::rename(&new, &file).and_then(|()| synced());
        renamed.map_err(|cause| ModesError::Unwritable { file, cause })
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some((new, _)) = &self.0 {
            // The next one overwrites it.
            let _ = fs::remove_file(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> PolicyId {
        PolicyId { kind: Kind::CiliumNetworkPolicy, namespace: "shop".into(), name: name.into() }
    }

    #[test]
    fn what_was_said_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("deep/er");
        let none = Modes::read(Some(&place)).unwrap();
        assert_eq!(none.of(&id("a")), None);
        let clusterwide = PolicyId {
            kind: Kind::CiliumClusterwideNetworkPolicy,
            namespace: "".into(),
            name: "\"\n".into(),
        };
        let some = none.with(&id("a"), Some(Mode::Enforce)).unwrap();
        let some = some.with(&clusterwide, Some(Mode::Observe)).unwrap();
        some.prepare().unwrap().keep().unwrap();
        assert_eq!(Modes::read(Some(&place)).unwrap(), some);
        let fewer = some.with(&clusterwide, None).unwrap();
        // Not kept: the file stays as it is, and nothing beside it.
        drop(fewer.prepare().unwrap());
        assert_eq!(Modes::read(Some(&place)).unwrap(), some);
        fewer.prepare().unwrap().keep().unwrap();
        assert_eq!(Modes::read(Some(&place)).unwrap(), fewer);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        // Without a folder nothing is kept.
        none.with(&id("a"), None).unwrap();
        Modes::default().prepare().unwrap().keep().unwrap();
    }

    #[test]
    fn a_broken_file_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        for (text, line, problem) in [
            (
                "[[policy]]\nkind = \"NetworkPolicy\"\nname = \"a\"\nmode = \"deny\"\n",
                4,
                "unknown variant `deny`",
            ),
            ("[[policy]]\nkind = \"Policy\"\n", 2, "unknown variant `Policy`"),
            ("[[policy]]\nkind = \"NetworkPolicy\"\n", 1, "missing field `name`"),
            ("\nmodes = 1\n", 2, "unknown field `modes`"),
            ("[[policy", 1, ""),
        ] {
            fs::write(&file, text).unwrap();
            let error = Modes::read(Some(folder.path())).unwrap_err().to_string();
            let start = format!("{}:{line}: {problem}", file.display());
            assert!(error.starts_with(&start) && error.contains("observe policy mode"), "{error}");
        }
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let error = Modes::read(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains(&format!("{}: ", file.display())), "{error}");
    }
}
