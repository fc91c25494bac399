//! The keys: one table, of which the hints, the help, the configuration and the documentation are made.

use crate::views::View;
use std::fmt::{self, Write as _};

/// A key as a terminal tells it, without the terminal's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Which.
    pub code: Code,
    /// With Ctrl.
    pub ctrl: bool,
}

/// Which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are what is printed on keys")]
pub enum Code {
    Char(char),
    F(u8),
    Enter,
    Esc,
    Tab,
    BackTab,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

const NAMED: [(&str, Code); 14] = [
    ("Enter", Code::Enter),
    ("Esc", Code::Esc),
    ("Tab", Code::Tab),
    ("Shift-Tab", Code::BackTab),
    ("Backspace", Code::Backspace),
    ("Delete", Code::Delete),
    ("Up", Code::Up),
    ("Down", Code::Down),
    ("Left", Code::Left),
    ("Right", Code::Right),
    ("PgUp", Code::PageUp),
    ("PgDn", Code::PageDown),
    ("Home", Code::Home),
    ("End", Code::End),
];

impl Key {
    const fn code(code: Code) -> Self {
        Self { code, ctrl: false }
    }

    const fn char(letter: char) -> Self {
        Self::code(Code::Char(letter))
    }

    const fn ctrl(letter: char) -> Self {
        Self { code: Code::Char(letter), ctrl: true }
    }

    /// By its name: `x`, `Ctrl-x`, `Space`, `F1`, `PgUp`.
    pub fn named(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("Ctrl-") {
            return Some(Self { ctrl: true, ..Self::named(rest)? });
        }
        if name == "Space" {
            return Some(Self::char(' '));
        }
        if let Some((_, code)) = NAMED.iter().find(|(own, _)| *own == name) {
            return Some(Self::code(*code));
        }
        let mut letters = name.chars();
        match (letters.next()?, letters.as_str()) {
            (letter, "") if !letter.is_control() && letter != ' ' => Some(Self::char(letter)),
            ('F', number) => {
                number.parse().ok().filter(|n| (1..=12).contains(n)).map(|n| Self::code(Code::F(n)))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ctrl {
            f.write_str("Ctrl-")?;
        }
        match self.code {
            Code::Char(' ') => f.write_str("Space"),
            Code::Char(letter) => write!(f, "{letter}"),
            Code::F(number) => write!(f, "F{number}"),
            code => f.write_str(NAMED.iter().find(|(_, own)| *own == code).map_or("?", |(name, _)| name)),
        }
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the table says it in words")]
pub enum Action {
    Show(View),
    NextView,
    PreviousView,
    Down,
    Up,
    PageDown,
    PageUp,
    HalfDown,
    HalfUp,
    First,
    Last,
    Left,
    Right,
    Enter,
    Back,
    Pause,
    Filter,
    ClearFilter,
    Include,
    Exclude,
    Columns,
    Sort,
    Reverse,
    Window,
    Mode,
    Group,
    Audit,
    OpenPods,
    Trace,
    Detail,
    Time,
    Numeric,
    CopyCommand,
    CopyJson,
    Export,
    Record,
    Help,
    Redraw,
    Suspend,
    Quit,
}

/// A line of the table.
#[derive(Debug)]
pub struct Binding {
    /// What it does.
    pub action: Action,
    /// How the configuration calls it.
    pub name: &'static str,
    /// By which keys, if the configuration doesn't say otherwise.
    pub keys: &'static [Key],
    /// For the help and the documentation.
    pub help: &'static str,
    /// For the line of hints; empty: not there.
    pub hint: &'static str,
    /// In which views; none: in all.
    pub views: &'static [View],
}

const fn bind(
    action: Action,
    name: &'static str,
    keys: &'static [Key],
    help: &'static str,
    hint: &'static str,
    views: &'static [View],
) -> Binding {
    Binding { action, name, keys, help, hint, views }
}

const ALL: &[View] = &[];
const FLOWS: &[View] = &[View::Flows];
const COUNTS: &[View] = &[View::Drops, View::Map, View::Policy, View::Talkers, View::Golden, View::Nodes];
const WINDOWS: &[View] = &[View::Drops, View::Map, View::Policy, View::Talkers, View::Golden];
const MODES: &[View] = &[View::Drops, View::Map, View::Talkers, View::Golden];
const GROUPS: &[View] = &[View::Map, View::Talkers, View::Golden];

/// All keys, in the order of the help. What stands first is hinted at first.
pub const BINDINGS: &[Binding] = &[
    bind(Action::Help, "help", &[Key::char('?'), Key::code(Code::F(1))], "these keys", "help", ALL),
    bind(
        Action::Enter,
        "enter",
        &[Key::code(Code::Enter)],
        "show the flows of this row; in Flows, the detail on the whole screen",
        "open",
        ALL,
    ),
    bind(Action::Back, "back", &[Key::code(Code::Esc)], "one step back, as it was there", "", ALL),
    bind(
        Action::Pause,
        "pause",
        &[Key::char(' ')],
        "stop the view, and go on; what comes meanwhile is kept",
        "pause",
        FLOWS,
    ),
    bind(
        Action::Filter,
        "filter",
        &[Key::char('/')],
        "the filter: observe's flags, a bare word for the text of rows",
        "filter",
        ALL,
    ),
    bind(Action::ClearFilter, "clear-filter", &[Key::char('\\')], "no filter", "", ALL),
    bind(
        Action::Include,
        "include",
        &[Key::char('i')],
        "only rows with the field under the cursor",
        "include",
        FLOWS,
    ),
    bind(
        Action::Exclude,
        "exclude",
        &[Key::char('x')],
        "no rows with the field under the cursor",
        "exclude",
        FLOWS,
    ),
    bind(
        Action::Mode,
        "mode",
        &[Key::char('m')],
        "Drops by reason or pair, Map as list or matrix, Talkers by bytes, flows or drops, Golden HTTP or DNS",
        "mode",
        MODES,
    ),
    bind(
        Action::Group,
        "group",
        &[Key::char('b')],
        "by workload or by namespace; Golden by route or server",
        "group",
        GROUPS,
    ),
    bind(
        Action::Audit,
        "audit-only",
        &[Key::char('a')],
        "only what would be denied, or is",
        "audit only",
        &[View::Policy],
    ),
    bind(
        Action::OpenPods,
        "uncovered",
        &[Key::char('u')],
        "pods that no policy isolates, and back",
        "uncovered",
        &[View::Policy],
    ),
    bind(
        Action::Trace,
        "rule-trace",
        &[Key::char('v')],
        "what policies say of the row's connection, rule by rule",
        "rule trace",
        FLOWS,
    ),
    bind(Action::Window, "window", &[Key::char('w')], "count over 1m, 5m or 15m", "window", WINDOWS),
    bind(Action::Sort, "sort", &[Key::char('s')], "sort by the next column", "sort", COUNTS),
    bind(Action::Reverse, "reverse", &[Key::char('S')], "sort the other way round", "", COUNTS),
    bind(Action::Detail, "detail", &[Key::char('d')], "the pane with all about the row", "detail", ALL),
    bind(Action::Columns, "columns", &[Key::char('c')], "choose the columns", "columns", FLOWS),
    bind(
        Action::Time,
        "time",
        &[Key::char('t')],
        "time of day, with its date, or how long ago",
        "time",
        FLOWS,
    ),
    bind(Action::Numeric, "numeric", &[Key::char('N')], "addresses or names", "", FLOWS),
    bind(
        Action::CopyCommand,
        "copy-command",
        &[Key::char('y')],
        "copy the command that shows the same",
        "copy",
        ALL,
    ),
    bind(Action::CopyJson, "copy-json", &[Key::char('Y')], "copy the row as JSON", "", ALL),
    bind(Action::Export, "export", &[Key::char('e')], "write what is shown into a file", "export", ALL),
    bind(
        Action::Record,
        "record",
        &[Key::char('E')],
        "write all flows from now on into a file, and stop that",
        "",
        ALL,
    ),
    bind(Action::Down, "down", &[Key::char('j'), Key::code(Code::Down)], "next row", "", ALL),
    bind(Action::Up, "up", &[Key::char('k'), Key::code(Code::Up)], "row before", "", ALL),
    bind(Action::Left, "left", &[Key::char('h'), Key::code(Code::Left)], "field on the left", "", FLOWS),
    bind(Action::Right, "right", &[Key::char('l'), Key::code(Code::Right)], "field on the right", "", FLOWS),
    bind(Action::PageDown, "page-down", &[Key::code(Code::PageDown)], "a screen further", "", ALL),
    bind(Action::PageUp, "page-up", &[Key::code(Code::PageUp)], "a screen back", "", ALL),
    bind(Action::HalfDown, "half-down", &[Key::ctrl('d')], "half a screen further", "", ALL),
    bind(Action::HalfUp, "half-up", &[Key::ctrl('u')], "half a screen back", "", ALL),
    bind(Action::First, "first", &[Key::char('g'), Key::code(Code::Home)], "first row", "", ALL),
    bind(
        Action::Last,
        "last",
        &[Key::char('G'), Key::code(Code::End)],
        "last row; in Flows, follow",
        "tail",
        FLOWS,
    ),
    bind(Action::NextView, "next-view", &[Key::code(Code::Tab)], "next view", "", ALL),
    bind(Action::PreviousView, "previous-view", &[Key::code(Code::BackTab)], "view before", "", ALL),
    bind(Action::Show(View::Flows), "flows", &[Key::char('1')], "Flows: one by one, as they happen", "", ALL),
    bind(
        Action::Show(View::Drops),
        "drops",
        &[Key::char('2')],
        "Drops: by reason, and between whom",
        "",
        ALL,
    ),
    bind(Action::Show(View::Map), "map", &[Key::char('3')], "Map: who calls whom", "", ALL),
    bind(
        Action::Show(View::Policy),
        "policy",
        &[Key::char('4')],
        "Policy: what policies allow, deny and would deny",
        "",
        ALL,
    ),
    bind(Action::Show(View::Talkers), "talkers", &[Key::char('5')], "Talkers: who moves most", "", ALL),
    bind(
        Action::Show(View::Golden),
        "golden",
        &[Key::char('6')],
        "Golden: requests, failures and times of HTTP and DNS",
        "",
        ALL,
    ),
    bind(
        Action::Show(View::Nodes),
        "nodes",
        &[Key::char('7')],
        "Nodes: which there are, and what was lost",
        "",
        ALL,
    ),
    bind(Action::Redraw, "redraw", &[Key::ctrl('l')], "draw the screen anew", "", ALL),
    bind(Action::Suspend, "suspend", &[Key::ctrl('z')], "back to the shell; fg returns", "", ALL),
    bind(Action::Quit, "quit", &[Key::char('q'), Key::ctrl('c')], "end", "quit", ALL),
];

impl Binding {
    /// Whether it does something in a view.
    pub fn applies(&self, view: View) -> bool {
        self.views.is_empty() || self.views.contains(&view)
    }
}

/// The keys in use.
#[derive(Clone, Debug)]
pub struct KeyMap(Vec<Vec<Key>>);

impl Default for KeyMap {
    fn default() -> Self {
        Self(BINDINGS.iter().map(|binding| binding.keys.to_vec()).collect())
    }
}

impl KeyMap {
    /// Gives an action other keys; they are taken from whatever had them. An error says what is wrong.
    pub fn set(&mut self, name: &str, keys: &[String]) -> Result<(), String> {
        let at = BINDINGS.iter().position(|binding| binding.name == name).ok_or_else(|| {
            let names: Vec<&str> = BINDINGS.iter().map(|binding| binding.name).collect();
            format!("{name:?} is no action; there are {}", names.join(", "))
        })?;
        let keys = keys
            .iter()
            .map(|key| {
                Key::named(key).ok_or_else(|| {
                    format!("{key:?} is no key; write x, Ctrl-x, Space, Enter, Tab, Up, PgUp or F1")
                })
            })
            .collect::<Result<Vec<Key>, String>>()?;
        for (other, own) in self.0.iter_mut().enumerate() {
            let overlap = |a: usize, b: usize| {
                let (a, b) = (&BINDINGS[a].views, &BINDINGS[b].views);
                a.is_empty() || b.is_empty() || a.iter().any(|view| b.contains(view))
            };
            if overlap(other, at) {
                own.retain(|key| !keys.contains(key));
            }
        }
        self.0[at] = keys;
        Ok(())
    }

    /// What a key does in a view.
    pub fn action(&self, key: Key, view: View) -> Option<Action> {
        let mut found = BINDINGS.iter().zip(&self.0);
        found
            .find(|(binding, keys)| binding.applies(view) && keys.contains(&key))
            .map(|(binding, _)| binding.action)
    }

    /// The keys of a line of the table.
    pub fn keys(&self, action: Action) -> &[Key] {
        let at = BINDINGS.iter().position(|binding| binding.action == action);
        at.map_or(&[], |at| &self.0[at])
    }
}

/// A page of the documentation: the table as Markdown.
pub fn markdown() -> String {
    let mut out = "| key | name in the configuration | does |\n| --- | --- | --- |\n".to_owned();
    for binding in BINDINGS {
        let keys: Vec<String> = binding.keys.iter().map(|key| format!("`{key}`")).collect();
        let place = match binding.views {
            [] => String::new(),
            views => format!(" ({})", views.iter().map(|view| view.title()).collect::<Vec<_>>().join(", ")),
        };
        // Writing to a string can't fail.
        let _ = writeln!(out, "| {} | {} | {}{place} |", keys.join(" "), binding.name, binding.help);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_does_two_things_and_names_are_read_back() {
        let map = KeyMap::default();
        for view in View::ALL {
            let mut taken = Vec::new();
            for binding in BINDINGS.iter().filter(|binding| binding.applies(view)) {
                for key in binding.keys {
                    assert!(!taken.contains(key), "{key} twice in {view:?}");
                    taken.push(*key);
                    assert_eq!(Key::named(&key.to_string()), Some(*key));
                    assert_eq!(map.action(*key, view), Some(binding.action));
                }
            }
        }
    }

    #[test]
    fn the_documentation_has_the_table() {
        let table = markdown();
        assert!(include_str!("../../docs/tui.md").contains(&table), "docs/tui.md lacks this:\n{table}");
    }

    #[test]
    fn other_keys() {
        let mut map = KeyMap::default();
        map.set("quit", &["x".to_owned(), "Ctrl-q".to_owned()]).unwrap();
        assert_eq!(map.action(Key::char('x'), View::Flows), Some(Action::Quit));
        assert_eq!(map.action(Key::char('q'), View::Flows), None);
        assert!(map.keys(Action::Exclude).is_empty());
        assert!(map.set("quit", &["Hyper-x".to_owned()]).unwrap_err().contains("is no key"));
        assert!(map.set("leave", &[]).unwrap_err().contains("is no action"));
    }
}
