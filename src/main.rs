//! The `attestd` binary: arguments to [`attestd::cli`], its answer to the exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    attestd::cli::run()
}
