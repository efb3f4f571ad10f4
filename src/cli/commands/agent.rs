//! `pontoon agent`: the process inside an op. The engine starts it, never a user.

use std::process::ExitCode;

use crate::cli::error::Error;
use crate::cli::{apart, output};
use crate::engine::lower;
use crate::report::style::Colour;

/// Internal: started by pontoon itself
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passed on as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

impl Args {
    /// Passes control.
    pub fn run(self) -> Result<u8, Error> {
        apart::agent(&self.arguments)
    }
}

/// Runs the agent if this process was started as one: a daemon's op calls it by its place.
pub fn in_an_op() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if !arguments.next()?.to_str().is_some_and(lower::is_agent) {
        return None;
    }
    // Ours are text: one that is not makes no sense, and is refused with the rest.
    let text = arguments.map(|argument| argument.to_string_lossy().into_owned());
    let arguments: Vec<String> = text.collect();
    // What it has to tell goes through the tunnel, if it has one.
    Some(match apart::agent(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&error, Colour::Never);
            // Somebody's own program has the codes of the command line.
            let entered = arguments.first().is_some_and(|first| first == "enter");
            ExitCode::from(if entered { error.kind.code() } else { 64 })
        }
    })
}
