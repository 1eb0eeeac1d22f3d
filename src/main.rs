//! Parse, run, print the error chain, exit with its status.

use std::process::ExitCode;

use clap::Parser;
use rooftrace::cli::Cli;

fn main() -> ExitCode {
    rooftrace::worker::enter(rooftrace::measure::Engine::open);
    match Cli::parse().run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let status = error.downcast_ref::<rooftrace::Error>().map_or(2, rooftrace::Error::exit_code);
            eprintln!("rooftrace: {error:#}");
            ExitCode::from(status as u8)
        }
    }
}
