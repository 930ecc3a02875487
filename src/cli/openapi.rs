//! `attestd openapi`: the description of the API, as each listener serves its own.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::output;
use crate::http::description::{INTERNAL, PUBLIC};

#[derive(Debug, Args)]
#[command(after_help = "\
OpenAPI 3.1, as GET /openapi.json answers on the public listener, and GET /internal/v1/openapi.json on
the internal one. Needs neither server nor configuration.")]
pub(super) struct Arguments {
    /// Of which listener.
    listener: Listener,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Listener {
    Public,
    Internal,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let document = match arguments.listener {
        Listener::Public => &PUBLIC,
        Listener::Internal => &INTERNAL,
    };
    output::line(document.trim_end());
    ExitCode::SUCCESS
}
