//! What each part of a line looks like. Every part also has a word or a sign of its own on the screen, so that a terminal
//! without colours loses nothing.

use crate::line::Role;
use ratatui::style::{Color, Modifier, Style};
use serde::Deserialize;

/// A set of looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    /// The terminal's own 16 colours.
    #[default]
    Ansi,
    /// For those who tell red from green badly: orange and blue, after Okabe and Ito.
    Cvd,
    /// For a light background.
    Light,
    /// No colours.
    Mono,
}

impl Theme {
    /// All with their names.
    pub const ALL: [(&'static str, Self); 4] =
        [("ansi", Self::Ansi), ("cvd", Self::Cvd), ("light", Self::Light), ("mono", Self::Mono)];

    /// By its name; the error says which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(own, _)| *own == name);
        found
            .map(|(_, theme)| *theme)
            .ok_or_else(|| format!("{name:?} is none of {}", Self::ALL.map(|(name, _)| name).join(", ")))
    }

    /// The named one, else the file's; without one, mono where the environment wants no colours.
    pub fn choose(
        named: Option<Self>,
        of_file: Option<Self>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let is_set = |name: &str| environment(name).is_some_and(|value| !value.is_empty());
        let is_plain = is_set("NO_COLOR") || environment("TERM").is_some_and(|term| term == "dumb");
        named.or(of_file).unwrap_or(if is_plain { Self::Mono } else { Self::Ansi })
    }

    /// How a part looks.
    pub fn style(self, role: Role) -> Style {
        let color = match self {
            Self::Mono => None,
            Self::Ansi => ansi(role),
            Self::Cvd => cvd(role),
            Self::Light => light(role),
        };
        let style = Style::default().add_modifier(modifier(role));
        color.map_or(style, |color| style.fg(color))
    }

    /// How the row under the cursor looks: whatever the colours are, it can be told.
    pub fn selected(self, style: Style) -> Style {
        style.add_modifier(Modifier::REVERSED)
    }

    /// How the field under the cursor looks, in a row that is reversed.
    pub fn marked(self, style: Style) -> Style {
        style.remove_modifier(Modifier::REVERSED).add_modifier(Modifier::BOLD | Modifier::UNDERLINED)
    }
}

fn modifier(role: Role) -> Modifier {
    match role {
        Role::Drop | Role::Error | Role::Title | Role::Accent => Modifier::BOLD,
        Role::Muted => Modifier::DIM,
        Role::Plain | Role::Good | Role::Audit | Role::Redirect => Modifier::empty(),
    }
}

fn ansi(role: Role) -> Option<Color> {
    Some(match role {
        Role::Good => Color::Green,
        Role::Drop => Color::Red,
        Role::Audit => Color::Yellow,
        Role::Redirect => Color::Blue,
        Role::Error => Color::Magenta,
        Role::Accent => Color::Cyan,
        Role::Plain | Role::Muted | Role::Title => return None,
    })
}

/// Numbers of the 256 colours that come nearest to the palette of Okabe and Ito.
fn cvd(role: Role) -> Option<Color> {
    Some(Color::Indexed(match role {
        Role::Good => 74,
        Role::Drop => 208,
        Role::Audit => 221,
        Role::Redirect => 36,
        Role::Error => 175,
        Role::Accent => 32,
        Role::Plain | Role::Muted | Role::Title => return None,
    }))
}

fn light(role: Role) -> Option<Color> {
    Some(Color::Indexed(match role {
        Role::Good => 22,
        Role::Drop => 124,
        Role::Audit => 94,
        Role::Redirect => 19,
        Role::Error => 90,
        Role::Accent => 25,
        Role::Muted => 240,
        Role::Plain | Role::Title => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides_on_the_theme() {
        let plain = |name: &str| (name == "NO_COLOR").then(|| "1".to_owned());
        let dumb = |name: &str| (name == "TERM").then(|| "dumb".to_owned());
        let rich = |_: &str| None;
        for (named, file, environment, expected) in [
            (None, None, &rich as &dyn Fn(&str) -> Option<String>, Theme::Ansi),
            (None, None, &plain, Theme::Mono),
            (None, None, &dumb, Theme::Mono),
            (None, Some(Theme::Cvd), &plain, Theme::Cvd),
            (Some(Theme::Light), Some(Theme::Cvd), &plain, Theme::Light),
        ] {
            assert_eq!(Theme::choose(named, file, environment), expected);
        }
    }

    #[test]
    fn mono_has_no_colour() {
        for role in [Role::Good, Role::Drop, Role::Audit, Role::Error, Role::Accent, Role::Muted] {
            assert_eq!(Theme::Mono.style(role).fg, None);
        }
    }
}
