//! What shells and `man` know of this program: completions and manual pages, made from its own command line.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;

/// Which shell.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell that reads them
    shell: Shell,
}

/// Where to.
#[derive(Clone, Debug, clap::Args)]
pub struct ManualArgs {
    /// A folder such as /usr/local/share, which gets man/man1 and every shell's completions where the shell looks for them
    dir: PathBuf,
}

/// Prints the completions of one shell.
pub fn completions(args: &CompletionsArgs) {
    clap_complete::generate(args.shell, &mut Cli::command(), "prefixd", &mut io::stdout());
}

/// Writes the manual pages of all commands, and the completions of the shells that load them from a folder.
pub fn manual(args: &ManualArgs) -> anyhow::Result<()> {
    let create = |dir: &str| {
        let dir = args.dir.join(dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("{} could not be made", dir.display()))?;
        anyhow::Ok(dir)
    };
    let pages = create("man/man1")?;
    clap_mangen::generate_to(Cli::command(), &pages)
        .with_context(|| format!("the pages could not be written to {}", pages.display()))?;
    for (shell, dir, name) in [
        (Shell::Bash, "bash-completion/completions", "prefixd"),
        (Shell::Zsh, "zsh/site-functions", "_prefixd"),
        (Shell::Fish, "fish/vendor_completions.d", "prefixd.fish"),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "prefixd", &mut text);
        let path = create(dir)?.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} could not be written", path.display()))?;
    }
    Ok(())
}
