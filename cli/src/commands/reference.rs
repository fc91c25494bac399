//! `observe reference`, for those who build or package it: man pages, and the pages of `docs/cli`, from the same definition
//! as help.

use crate::{
    Failure,
    args::{Globals, command},
};
use clap::{Arg, Args, Command, Subcommand};
use std::{fmt::Write as _, fs, io, path::PathBuf};

/// `observe reference`.
#[derive(Args)]
pub(crate) struct ReferenceArgs {
    #[command(subcommand)]
    form: Form,
}

#[derive(Subcommand)]
enum Form {
    /// Man pages, one a command
    Man {
        /// Where to
        folder: PathBuf,
    },
    /// Markdown, one page a command
    Markdown {
        /// Where to
        folder: PathBuf,
    },
}

pub(super) async fn run(_: &Globals, args: ReferenceArgs) -> Result<(), Failure> {
    let mut root = command();
    root.build();
    let mut pages = Vec::new();
    let folder = match args.form {
        Form::Man { folder } => {
            man(&root, &mut pages)?;
            folder
        }
        Form::Markdown { folder } => {
            markdown(&root, &[], &mut pages);
            folder
        }
    };
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(&folder).map_err(failed)?;
    for (name, text) in pages {
        fs::write(folder.join(name), text).map_err(failed)?;
    }
    Ok(())
}

/// The commands below one; clap's own `help` is none of ours.
fn inner(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
}

/// `observe list nodes` is `observe-list-nodes`.
fn page_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).replace(' ', "-")
}

fn man(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
    let name = page_name(command);
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).manual("Observer").render(&mut page)?;
    pages.push((format!("{name}.1"), page));
    inner(command).try_for_each(|inner| man(inner, pages))
}

fn markdown(command: &Command, parents: &[&Command], pages: &mut Vec<(String, Vec<u8>)>) {
    let mut page = format!("# {}\n\n", command.get_bin_name().unwrap_or_else(|| command.get_name()));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // Writing to a string can't fail, here and below.
    _ = write!(page, "{about}.\n\n```text\n{}\n```\n", command.clone().render_usage());
    for parent in parents {
        _ = write!(
            page,
            "\nPart of [{}]({}.md).\n",
            parent.get_bin_name().unwrap_or("observe"),
            page_name(parent)
        );
    }
    let below: Vec<&Command> = inner(command).collect();
    if !below.is_empty() {
        page += "\n## Commands\n\n| command | what it does |\n| --- | --- |\n";
        for inner in &below {
            let about = inner.get_about().map(ToString::to_string).unwrap_or_default();
            let name = page_name(inner);
            _ = writeln!(page, "| [{}]({name}.md) | {} |", inner.get_name(), cell(&about));
        }
    }
    arguments(command, &mut page);
    if let Some(more) = command.get_after_help() {
        _ = write!(page, "\n```text\n{more}\n```\n");
    }
    pages.push((format!("{}.md", page_name(command)), page.into_bytes()));
    for inner in below {
        markdown(inner, &[command], pages);
    }
}

/// A table for each group of flags, in the order of the definition.
fn arguments(command: &Command, page: &mut String) {
    let mut groups: Vec<(&str, Vec<&Arg>)> = Vec::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let heading = argument.get_help_heading().unwrap_or(if argument.is_positional() {
            "Arguments"
        } else {
            "Options"
        });
        match groups.iter_mut().find(|(name, _)| *name == heading) {
            Some((_, group)) => group.push(argument),
            None => groups.push((heading, vec![argument])),
        }
    }
    for (heading, group) in groups {
        _ = write!(page, "\n## {heading}\n\n| | |\n| --- | --- |\n");
        for argument in group {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            _ = writeln!(page, "| {} | {} |", cell(&spelling(argument)), cell(&help));
        }
    }
}

/// `-o, --output FORMAT` as code.
fn spelling(argument: &Arg) -> String {
    let value = argument.get_value_names().map(|names| names.join(" ")).unwrap_or_default();
    let takes_value = argument.get_num_args().is_none_or(|range| range.min_values() > 0);
    let long = argument.get_long().map(|long| format!("--{long}"));
    let short = argument.get_short().map(|short| format!("-{short}"));
    let names: Vec<String> = short.into_iter().chain(long).collect();
    match (names.is_empty(), takes_value && argument.get_action().takes_values()) {
        (true, _) => format!("`{value}`"),
        (false, true) => format!("`{} {value}`", names.join(", ")),
        (false, false) => format!("`{}`", names.join(", ")),
    }
}

/// Text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
