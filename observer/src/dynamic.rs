//! Files in Cilium's form that say what to export and what to measure, and which may change while the daemon runs.

use observer_inventory::yaml::Fault;
use observer_proto::{
    filter::{Filters, parse_raw},
    flow::FlowFilter,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Spanned;
use std::{fs, io::Read as _, path::Path};

/// The largest file that is read: some thousand entries.
const MOST_BYTES: u64 = 4 << 20;

pub(crate) type Text = Spanned<String>;
pub(crate) type Checked<T> = Result<T, Fault>;

/// What a file holds, checked; the error is one line that names the file, the line and the field.
pub(crate) fn read<F: DeserializeOwned + Default, T>(
    file: &Path,
    check: impl FnOnce(F) -> Checked<T>,
) -> Result<T, String> {
    let shown = file.display();
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(|error| format!("{shown}: cannot read it: {error}"))?;
    let read = opened.take(MOST_BYTES + 1).read_to_string(&mut text);
    let bytes = read.map_err(|error| format!("{shown}: cannot read it: {error}"))?;
    if bytes as u64 > MOST_BYTES {
        return Err(format!("{shown}: it has more than {} MiB", MOST_BYTES >> 20));
    }
    parse(&text, check).map_err(|fault| format!("{shown}:{fault}"))
}

/// As [`read`], of a file's text.
pub(crate) fn parse<F: DeserializeOwned + Default, T>(
    text: &str,
    check: impl FnOnce(F) -> Checked<T>,
) -> Checked<T> {
    observer_inventory::yaml::parse(text).and_then(check)
}

/// Which flows are meant: any that an include filter takes, or all where there is none, and no exclude filter takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    include: Vec<FlowFilter>,
    exclude: Vec<FlowFilter>,
    filters: Filters,
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        (&self.include, &self.exclude) == (&other.include, &other.exclude)
    }
}

impl Selection {
    /// From filters as JSON objects, as flags have them. The error names the list that is wrong.
    pub(crate) fn of_flags(
        include: Option<&str>,
        exclude: Option<&str>,
    ) -> Result<Self, (&'static str, String)> {
        let list =
            |flag, text: Option<&str>| parse_raw(text.unwrap_or_default()).map_err(|problem| (flag, problem));
        let lists = (list("allowlist", include)?, list("denylist", exclude)?);
        Self::compile(lists.0, lists.1).map_err(|problem| ("allowlist", problem))
    }

    /// From filters of a file; `at` is the path of the entry that has them.
    pub(crate) fn of_file(
        include: Option<Vec<Spanned<Value>>>,
        exclude: Option<Vec<Spanned<Value>>>,
        at: &str,
    ) -> Checked<Self> {
        let mut lists = [Vec::new(), Vec::new()];
        let written = [("includeFilters", include), ("excludeFilters", exclude)];
        for ((name, values), list) in written.into_iter().zip(&mut lists) {
            for (number, value) in values.unwrap_or_default().iter().enumerate() {
                let path = format!("{at}.{name}[{number}]");
                let wrong = |problem: String| Fault::of(value, path.as_str(), problem);
                let text = value.value.to_string();
                let filter = observer_proto::json::read(&text);
                let filter: FlowFilter =
                    filter.map_err(|error| wrong(format!("{error} of its JSON form {text}")))?;
                // Each by itself, so that the error is told where it is.
                Self::compile(vec![filter.clone()], Vec::new()).map_err(wrong)?;
                list.push(filter);
            }
        }
        let [include, exclude] = lists;
        Self::compile(include, exclude).map_err(|problem| Fault {
            line: 0,
            column: 0,
            path: at.to_owned(),
            problem,
        })
    }

    fn compile(include: Vec<FlowFilter>, exclude: Vec<FlowFilter>) -> Result<Self, String> {
        let filters = Filters::compile(&include, &exclude).map_err(|error| error.to_string())?;
        Ok(Self { include, exclude, filters })
    }

    /// Compiled.
    pub(crate) fn filters(&self) -> Filters {
        self.filters.clone()
    }
}
