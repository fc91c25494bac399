//! Holds the order of the pipeline: a stage imports nothing from a later one.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The stages in the way of an event.
const ORDER: [&str; 12] = [
    "capture", "decode", "track", "enrich", "l7", "policy", "store", "history", "stats", "serve", "export",
    "metrics",
];

#[test]
fn no_stage_imports_a_later_one() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (place, stage) in ORDER.iter().enumerate() {
        let files = rust_files(&source, stage);
        assert!(!files.is_empty(), "stage {stage} has no file in {}", source.display());
        for file in files {
            for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for later in &ORDER[place + 1..] {
                    assert!(
                        !imports(code, later),
                        "{}:{}: {stage} comes before {later}: {line}",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn an_import_is_seen_in_each_of_its_forms() {
    for line in
        ["use crate::store::Store;", "use crate::{flow::Flow, store::Store};", "let x = crate::store::new();"]
    {
        assert!(imports(line, "store"), "{line}");
    }
    assert!(!imports("use crate::{flow::Flow, storey::Store};", "store"));
}

fn imports(code: &str, stage: &str) -> bool {
    let names = |word: &str| word == stage || word.starts_with(&format!("{stage}::"));
    code.contains(&format!("crate::{stage}::"))
        || code.trim_start().starts_with("use crate::") && code.split(['{', ',', ' ', ';', '}']).any(names)
}

fn rust_files(source: &Path, stage: &str) -> Vec<PathBuf> {
    let mut files = walk(&source.join(stage));
    files.extend(walk(&source.join(format!("{stage}.rs"))));
    files
}

fn walk(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().flat_map(|entry| walk(&entry.unwrap().path())).collect();
    }
    if path.extension().is_some_and(|extension| extension == "rs") && path.exists() {
        return vec![path.to_owned()];
    }
    Vec::new()
}
