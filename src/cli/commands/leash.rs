//! `pontoon leash`: becomes another program that is told to end when this program's parent dies.
//!
//! A killed conductor can tell `nix` nothing; the kernel can, but only at the wish of the process
//! it is to tell. So evaluation starts this executable, which makes the wish and becomes `nix`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::cli::error::{Error, Kind};

/// Internal: started by pontoon itself
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The process whose death is the end
    parent: i32,
    /// The program's `argv[0]`
    called: OsString,
    /// The program
    program: PathBuf,
    /// Its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Args {
    /// Becomes the program.
    pub fn run(self) -> Result<u8, Error> {
        // SIGTERM, upon which `nix` ends its builders.
        set_parent_process_death_signal(Some(Signal::TERM))
            .map_err(|source| Error::new(Kind::Other, std::io::Error::from(source)))?;
        if getppid() != Pid::from_raw(self.parent) {
            // It died before the wish was made.
            return Ok(1);
        }
        let mut command = Command::new(&self.program);
        let error = command.arg0(&self.called).args(&self.arguments).exec();
        Err(Error::new(Kind::NoNix, error))
    }
}
