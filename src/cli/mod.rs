//! The command line.
//!
//! Exit status, unless a command says otherwise: 0 done; 1 refused or failed; 2 wrong arguments or
//! unreadable input; 64 unusable configuration.

mod audit;
mod backup;
mod check_config;
mod device;
mod doctor;
mod import;
mod init;
mod input;
mod keys;
mod openapi;
mod operator;
mod output;
mod policy;
mod progress;
mod push_cert;
mod receiver;
mod release;
mod restore;
mod secrets;
mod serve;
mod shell;
mod store;
mod ticket;
mod token;
mod verify;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

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

First steps:
  attestd init DIR --base-url https://mdm.example.org
  attestd push-cert install --config DIR/attestd.toml --certificate FILE --key FILE
  attestd token create --config DIR/attestd.toml --role coordinator --label NAME
  attestd serve --config DIR/attestd.toml";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a data folder: keys, database and configuration. Never overwrites anything.
    Init(init::Arguments),
    /// Serve Macs, coordinator and operators until stopped (SIGTERM or Ctrl-C).
    Serve(serve::Arguments),
    /// Check a configuration and print it as it is understood, secrets hidden.
    CheckConfig(check_config::Arguments),
    /// Bearer tokens of the internal API.
    Token(token::Arguments),
    /// Who changed what: list, export, check.
    Audit(audit::Arguments),
    /// Keys that results are signed by, and those of the service's own authority.
    Keys(keys::Arguments),
    /// The master key, under which everything secret is sealed: see, and replace it while servers run.
    Secrets(secrets::Arguments),
    /// The push certificate from Apple that lets this server wake Macs.
    PushCert(push_cert::Arguments),
    /// Have a profile made for somebody: a link to hand on, good once.
    Ticket(ticket::Arguments),
    /// Policies: what each demands, and what one would change before it is switched on.
    Policy(policy::Arguments),
    /// Releases of the provider software: which programs may be routed to.
    Release(release::Arguments),
    /// Receivers that are told of events by signed messages.
    Webhook(webhook::Arguments),
    /// Receivers of OpenID Shared Signals: who may have a stream of changes of compliance.
    Receiver(receiver::Arguments),
    /// Macs: find them, tell the story of one, ask it for evidence, withdraw trust in it or give it back.
    Device(device::Arguments),
    Doctor(doctor::Doctor),
    /// Adopt the Macs of another server.
    Import(import::Arguments),
    /// Write everything the service keeps into one sealed file, while it runs.
    Backup(backup::Arguments),
    /// Restore a backup into an empty place.
    Restore(restore::Arguments),
    /// Check evidence offline: no server, no database, one JSON object as answer.
    Verify(verify::Arguments),
    /// The description of the API (OpenAPI 3.1).
    Openapi(openapi::Arguments),
    /// What a shell completes after `attestd`.
    Completions(shell::Completions),
    /// Write the manual pages.
    Man(shell::Pages),
}

/// Which configuration a command works with.
#[derive(Debug, Args)]
struct Configured {
    /// The configuration file that `attestd init` made.
    #[arg(long, value_name = "FILE", env = "ATTESTD_CONFIG")]
    config: PathBuf,
    /// Accept a plain http base URL on a loopback address: for trying things out, never for Macs
    /// of others.
    #[arg(long)]
    insecure_http: bool,
}

/// Exit status for a configuration that cannot be used.
const UNUSABLE_CONFIGURATION: u8 = 64;

/// Runs the command the process was started with.
pub fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Init(arguments) => output::exit("init", init::run(&arguments)),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::CheckConfig(arguments) => check_config::run(&arguments),
        Command::Token(arguments) => output::exit("token", token::run(&arguments)),
        Command::Audit(arguments) => audit::run(&arguments),
        Command::Keys(arguments) => output::exit("keys", keys::run(&arguments)),
        Command::Secrets(arguments) => output::exit("secrets", secrets::run(&arguments)),
        Command::PushCert(arguments) => output::exit("push-cert", push_cert::run(&arguments)),
        Command::Ticket(arguments) => output::exit("ticket", ticket::run(&arguments)),
        Command::Policy(arguments) => policy::run(&arguments),
        Command::Release(arguments) => output::exit("release", release::run(&arguments)),
        Command::Webhook(arguments) => output::exit("webhook", webhook::run(&arguments)),
        Command::Receiver(arguments) => output::exit("receiver", receiver::run(&arguments)),
        Command::Device(arguments) => device::run(&arguments),
        Command::Doctor(doctor) => doctor.run(),
        Command::Import(arguments) => output::exit("import", import::run(&arguments)),
        Command::Backup(arguments) => output::exit("backup", backup::run(&arguments)),
        Command::Restore(arguments) => output::exit("restore", restore::run(&arguments)),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Openapi(arguments) => openapi::run(&arguments),
        Command::Completions(arguments) => {
            output::exit("completions", shell::completions(&arguments))
        }
        Command::Man(arguments) => output::exit("man", shell::pages(&arguments)),
    }
}
