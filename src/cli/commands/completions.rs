//! `pontoon completions`: what a shell needs to complete the command line.

use clap_complete::Shell;

use crate::cli::args::Arguments;
use crate::cli::error::Error;
use crate::cli::output;

/// Write completions for a shell to stdout
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon completions bash > ~/.local/share/bash-completion/completions/pontoon
  pontoon completions fish > ~/.config/fish/completions/pontoon.fish")]
pub struct Args {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

impl Args {
    /// Writes them.
    pub fn run(self) -> Result<u8, Error> {
        let mut script = vec![];
        clap_complete::generate(self.shell, &mut Arguments::shown(), "pontoon", &mut script);
        output::data(&script)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_completes_what_people_type_and_nothing_else() {
        for shell in Shell::value_variants() {
            let mut script = vec![];
            clap_complete::generate(*shell, &mut Arguments::shown(), "pontoon", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["doctor", "prune", "lock-timeout"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
            for internal in ["leash", "helper", "Internal"] {
                assert!(!script.contains(internal), "{shell}: {internal}");
            }
        }
    }
}
