//! `pontoon man`: the manual pages, from the same definitions as the help.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, ValueHint};
use clap_mangen::Man;

use crate::cli::args::Arguments;
use crate::cli::error::{Error, Kind};
use crate::cli::output;

/// Write the manual pages into a directory
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon man /usr/local/share/man/man1
  pontoon man /tmp/man && man /tmp/man/pontoon-build.1")]
pub struct Args {
    /// Where to; made if it is missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
}

impl Args {
    /// Writes them, and their names to stdout.
    pub fn run(self) -> Result<u8, Error> {
        fs_err::create_dir_all(&self.directory).map_err(|error| Error::new(Kind::Other, error))?;
        for (name, page) in pages() {
            let path = self.directory.join(name);
            write(&path, &page)?;
            output::data(format!("{}\n", path.display()).as_bytes())?;
        }
        Ok(0)
    }
}

fn write(path: &Path, page: &[u8]) -> Result<(), Error> {
    fs_err::write(path, page).map_err(|error| Error::new(Kind::Other, error))
}

/// The pages by file name: one for the program, one for each command that is shown.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = Arguments::command().disable_help_subcommand(true);
    root.build();
    let shown = root
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    let commands: Vec<clap::Command> = shown.cloned().collect();
    std::iter::once(root)
        .chain(commands)
        .map(|command| {
            let name = command.get_display_name().unwrap_or(command.get_name());
            (format!("{name}.1"), page(command.clone()))
        })
        .collect()
}

fn page(command: clap::Command) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command).source(format!("pontoon {version}"));
    let mut page = vec![];
    man.render(&mut page)
        .expect("writing into memory does not fail");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["pontoon.1", "pontoon-build.1", "pontoon-run.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        assert!(
            !names.iter().any(|name| name.contains("agent")),
            "{names:?}"
        );
    }

    #[test]
    fn a_page_holds_the_options_and_the_examples() {
        let pages = pages();
        let (_, page) = pages
            .iter()
            .find(|(name, _)| name == "pontoon-build.1")
            .unwrap();
        let page = String::from_utf8_lossy(page);
        for text in [".TH pontoon-build 1", "\\-\\-out\\-link", "Examples"] {
            assert!(page.contains(text), "{page}");
        }
    }
}
