//! `cargo up` and its sisters: puts a stage of Portcullis up, shows it, takes it down.

mod aws;
mod commands;
#[cfg(test)]
mod conformance;
mod control;
mod embedded;
mod packaging;
mod policies;
mod program;
mod provider;
mod serve;
mod site;
mod stage;
mod terminal;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = commands::Arguments::parse();
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
