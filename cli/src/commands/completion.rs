//! `observe completion`: the script that makes a shell complete `observe`.

use crate::{Failure, args::Globals, complete::VARIABLE, output};
use clap::{Args, Subcommand};
use clap_complete::env::Shells;

pub(super) const AFTER_HELP: &str = "\
Pods, services, workloads, labels, namespaces and nodes are offered as the server has seen them; one that is slow or
gone offers nothing.

  bash        source <(observe completion bash)                      in ~/.bashrc, to have it always
  zsh         source <(observe completion zsh)                       in ~/.zshrc, behind compinit
  fish        observe completion fish | source                       in ~/.config/fish/config.fish
  powershell  observe completion powershell | Out-String | Invoke-Expression";

/// `observe completion`.
#[derive(Args)]
pub(crate) struct CompletionArgs {
    #[command(subcommand)]
    shell: Shell,
}

#[derive(Subcommand, Clone, Copy, Debug)]
enum Shell {
    /// The script for bash
    Bash,
    /// The script for zsh
    Zsh,
    /// The script for fish
    Fish,
    /// The script for PowerShell
    Powershell,
}

pub(super) async fn run(_: &Globals, args: CompletionArgs) -> Result<(), Failure> {
    let name = match args.shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
        Shell::Powershell => "powershell",
    };
    let shells = Shells::builtins();
    let shell = shells.completer(name).ok_or_else(|| format!("no script for {name}"))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "observe", "observe", "observe", &mut script)?;
    output::whole(&String::from_utf8_lossy(&script))
}
