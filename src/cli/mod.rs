//! Arguments, commands and messages: the only part that reads the environment and the home
//! directory, and with `report` the only one that writes to the terminal.
//!
//! A command passes through three stages, each plain data to the next: [`args`] is what was typed;
//! [`settings`] is what it means on this machine, decided by a pure function from [`surroundings`];
//! [`session`] is the one file that calls evaluation and the conductor ([`apart`] is for what is no run). Data goes to stdout,
//! everything else to stderr. Every error ends as an [`Error`], whose kind has a documented exit
//! code.

pub mod apart;
pub mod args;
pub mod asking;
pub mod collector;
pub mod commands;
pub mod container;
pub mod engine;
pub mod enter;
pub mod error;
pub mod examination;
pub mod failure;
pub mod nix_setting;
pub mod out_link;
pub mod output;
pub mod request;
pub mod secrets;
pub mod session;
pub mod settings;
pub mod signals;
pub mod surroundings;
pub mod systems;
pub mod threads;
pub mod upkeep;
pub mod visible;
pub mod waking;

use std::process::ExitCode;

use clap::Parser;

pub use self::error::Error;
use self::surroundings::Surroundings;

/// Runs the command line of this process; `main` has nothing else to do.
pub fn main() -> ExitCode {
    if let Some(code) = commands::agent::in_an_op() {
        return code;
    }
    let arguments = match args::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to stdout and is no error; a closed stdout is none either.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() {
                error::Kind::Usage.code()
            } else {
                0
            });
        }
    };
    let surroundings = Surroundings::read();
    threads::tell_where_there_are_none(output::Stream::Stderr.colour(&surroundings));
    match arguments.command.run(&surroundings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&error, output::Stream::Stderr.colour(&surroundings));
            ExitCode::from(error.kind.code())
        }
    }
}
