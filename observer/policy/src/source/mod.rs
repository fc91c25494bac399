//! From files and folders to a set of policies, all or nothing.

pub(crate) mod field;
pub(crate) mod tree;

use crate::{
    model::{Policy, PolicyId},
    parse,
};
use hashbrown::HashMap;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use crate::parse::Options;

/// A file above this size is no set of policies.
const MAX_FILE: u64 = 64 << 20;
/// The most files that a folder may hold.
const MAX_FILES: usize = 100_000;
/// Folders in folders; a link to a folder above ends here.
const MAX_FOLDERS: usize = 16;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// The field, such as `spec.ingress[0].from`; empty for what is no field's.
    pub path: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// The most characters of a path or a problem that are kept: what is quoted may be as long as the file.
const LONGEST: usize = 1000;

impl Fault {
    /// One line that a terminal may show: names in a file may hold anything.
    fn one_line(self) -> Self {
        Self { path: one_line(&self.path), problem: one_line(&self.problem), ..self }
    }
}

pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, c) in text.chars().enumerate() {
        match c {
            _ if n > LONGEST => break,
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if let Some((end, _)) = out.char_indices().nth(LONGEST) {
        out.truncate(end);
        out.push('…');
    }
    out
}

/// Why a set of policies was refused, in one line.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or folder that can't be read.
    #[error("{path}: {error}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A fault in a file.
    #[error("{path}:{}:{}: {}{}{}", fault.line, fault.column, fault.path,
        if fault.path.is_empty() { "" } else { ": " }, fault.problem)]
    Fault {
        /// The file.
        path: PathBuf,
        /// The fault.
        fault: Fault,
    },
    /// A file that is too large, or too many of them.
    #[error("{path}: {problem}")]
    Bound {
        /// The file or folder.
        path: PathBuf,
        /// What would be right.
        problem: String,
    },
}

/// Reads files and folders (`.yaml`, `.yml` and `.json`, sorted by path, none that is hidden); the first fault refuses all
/// of it.
pub fn load(paths: &[impl AsRef<Path>], options: &Options) -> Result<Vec<Policy>, LoadError> {
    let mut files = Vec::new();
    for path in paths {
        collect(path.as_ref(), true, 0, &mut files)?;
    }
    let mut policies = Vec::new();
    for path in files {
        let read = |error| LoadError::Read { path: path.clone(), error };
        let size = fs::metadata(&path).map_err(read)?.len();
        if size > MAX_FILE {
            let problem = format!("{size} bytes; at most {MAX_FILE} are read, split it");
            return Err(LoadError::Bound { path, problem });
        }
        let bytes = fs::read(&path).map_err(read)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line =
                error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&b| b == b'\n').count() as u64;
            let fault =
                Fault { line, column: 1, path: String::new(), problem: "not UTF-8; save it as UTF-8".into() };
            LoadError::Fault { path: path.clone(), fault }
        })?;
        let file = Arc::from(path.as_path());
        let parsed = parse::documents(&text, Some(&file), options);
        policies.extend(
            parsed.map_err(|fault| LoadError::Fault { path: path.clone(), fault: fault.one_line() })?,
        );
    }
    unique(&policies).map_err(|(path, fault)| LoadError::Fault { path, fault })?;
    Ok(policies)
}

/// Reads the documents of one text; the first fault refuses all of it.
pub fn parse(text: &str, options: &Options) -> Result<Vec<Policy>, Fault> {
    let policies = parse::documents(text, None, options).map_err(Fault::one_line)?;
    unique(&policies).map_err(|(_, fault)| fault)?;
    Ok(policies)
}

/// One name, one document: which of two was meant nobody can know.
fn unique(policies: &[Policy]) -> Result<(), (PathBuf, Fault)> {
    let mut seen: HashMap<&PolicyId, &Policy> = HashMap::new();
    for policy in policies.iter().filter(|policy| policy.part == 0) {
        if let Some(first) = seen.insert(&policy.id, policy) {
            let file = |policy: &Policy| policy.file.as_deref().map(Path::to_owned).unwrap_or_default();
            let other =
                if first.file == policy.file { String::new() } else { format!("{} ", file(first).display()) };
            let problem = format!("{} is also in {other}line {}; keep one", policy.id, first.line);
            let fault = Fault { line: policy.line, column: 1, path: "metadata.name".into(), problem };
            return Err((file(policy), fault));
        }
    }
    Ok(())
}

fn collect(path: &Path, named: bool, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let read = |error| LoadError::Read { path: path.to_owned(), error };
    let bound = |problem: String| Err(LoadError::Bound { path: path.to_owned(), problem });
    if fs::metadata(path).map_err(read)?.is_dir() {
        if depth >= MAX_FOLDERS {
            return bound(format!("folders deeper than {MAX_FOLDERS}; name the one that is meant"));
        }
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(read)?;
        // A mounted ConfigMap has each file twice more, in folders whose names begin with a dot.
        let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        let entries = entries.into_iter().filter(|entry| !is_hidden(entry));
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        return paths.iter().try_for_each(|path| collect(path, false, depth + 1, files));
    }
    let ours = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
    if named || ours {
        if files.len() >= MAX_FILES {
            return bound(format!("more than {MAX_FILES} files; put policies together"));
        }
        files.push(path.to_owned());
    }
    Ok(())
}
