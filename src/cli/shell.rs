//! What the shell and `man` know of the commands: made from the same words as `--help`.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

#[derive(Debug, Args)]
#[command(after_help = "\
For bash:  attestd completions bash > /etc/bash_completion.d/attestd
For zsh:   attestd completions zsh > \"${fpath[1]}/_attestd\"
For fish:  attestd completions fish > ~/.config/fish/completions/attestd.fish
The Debian package brings the first three.")]
pub(super) struct Completions {
    /// For which shell.
    shell: Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "\
One page for each command: attestd.1, attestd-serve.1 and so on. To read one without installing it:
  attestd man DIR && man -l DIR/attestd-serve.1
The Debian package brings them.")]
pub(super) struct Pages {
    /// The folder that they go to; it is made where it is missing, and pages in it are replaced.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints the completions.
pub(super) fn completions(arguments: &Completions) -> anyhow::Result<()> {
    let mut written = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "attestd", &mut written);
    let mut out = io::stdout().lock();
    out.write_all(&written)
        .and_then(|()| out.flush())
        .context("the completions cannot be printed")
}

/// Writes the pages.
pub(super) fn pages(arguments: &Pages) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(super::Arguments::command(), folder))
        .with_context(|| format!("{}: the pages cannot be written", folder.display()))
}
