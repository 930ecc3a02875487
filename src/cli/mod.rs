//! The command line.
//!
//! Exit status, unless a command says otherwise: 0 done; 1 refused or failed; 2 wrong arguments or
//! unreadable input; 64 unusable configuration.

mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "attestd", version, about, long_about = ABOUT, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const ABOUT: &str = "\
attestd is an Apple MDM server whose only job is attestation: it enrols Macs with a read-only
profile, asks each Mac's operating system and Apple itself what state the Mac is in, judges the
answers by a policy, and tells a coordinator which Macs may be trusted, why, and until when.

First steps:  attestd init DIR --base-url https://mdm.example.org
              attestd check-config --config DIR/attestd.toml
              attestd serve --config DIR/attestd.toml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Check evidence offline: no server, no database, one JSON object as answer.
    Verify(verify::Arguments),
}

/// Runs the command the process was started with.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Verify(arguments) => verify::run(&arguments),
    }
}
