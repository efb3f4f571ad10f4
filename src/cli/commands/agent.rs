//! `pontoon agent`: the process inside an op. The engine starts it, never a user.

use crate::cli::apart;
use crate::cli::error::Error;

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
