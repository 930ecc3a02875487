//! What commands print: results to standard output, faults to standard error.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::UNUSABLE_CONFIGURATION;
use crate::config;

/// Prints a line of a result. A reader that went away wants no more.
pub(super) fn line(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout(), "{}", text.as_ref());
}

/// Prints a result for a program, or lines for a person.
pub(super) fn result(json: bool, object: &Value, lines: &[String]) {
    if json {
        line(object.to_string());
    } else {
        for text in lines {
            line(text);
        }
    }
}

/// Says how far long work is: to standard error, for a result may be read by a program.
#[expect(
    clippy::print_stderr,
    reason = "a person waits, and wants to know for what"
)]
pub(super) fn progress(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// Says what went wrong.
#[expect(
    clippy::print_stderr,
    reason = "the one place that tells a person about a fault"
)]
pub(super) fn fault(command: &str, error: &anyhow::Error) {
    eprintln!("attestd {command}: {error:#}");
}

/// The exit status of a command.
pub(super) fn exit(command: &str, outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fault(command, &error);
            if error.is::<config::Unusable>() {
                ExitCode::from(UNUSABLE_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
