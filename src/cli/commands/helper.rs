//! `pontoon helper`: the embedded engine's own process. The conductor starts it, never a user.

use crate::cli::error::Error;
use crate::cli::{apart, signals};

/// Internal: started by pontoon itself
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Passes control.
    pub fn run(self) -> Result<u8, Error> {
        signals::endure()?;
        apart::helper()
    }
}
