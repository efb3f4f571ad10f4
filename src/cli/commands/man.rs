//! `pontoon man`: the manual pages, from the same definitions as the help.

use std::path::{Path, PathBuf};

use clap::ValueHint;
use clap_mangen::Man;

use crate::cli::args::Arguments;
use crate::cli::error::{Error, Kind};
use crate::cli::output;

/// What follows the options has a heading that says nothing: the text's own first words do.
const HEADINGS: [(&str, &str); 2] = [
    (".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n"),
    (".SH EXTRA\nExit codes: ", ".SH \"EXIT CODES\"\n"),
];

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

/// The pages by file name: one for the program, one for each command, however deep.
fn pages() -> Vec<(String, Vec<u8>)> {
    let mut root = Arguments::shown().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![];
    let mut open = vec![root];
    while let Some(command) = open.pop() {
        open.extend(command.get_subcommands().cloned());
        let name = command.get_display_name().unwrap_or(command.get_name());
        pages.push((format!("{name}.1"), page(command)));
    }
    pages.sort();
    pages
}

fn page(command: clap::Command) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command).source(format!("pontoon {version}"));
    let mut page = vec![];
    man.render(&mut page)
        .expect("writing into memory does not fail");
    HEADINGS.iter().fold(page, |page, (theirs, ours)| {
        let text = String::from_utf8(page).expect("the help is UTF-8");
        text.replacen(theirs, ours, 1).into_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> String {
        let pages = pages();
        let (_, page) = pages.iter().find(|(known, _)| known == name).unwrap();
        String::from_utf8(page.clone()).unwrap()
    }

    #[test]
    fn every_command_has_a_page() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert!(
            !names.iter().any(|name| name.contains("agent")),
            "{names:?}"
        );
        for (name, page) in &pages {
            let page = String::from_utf8(page.clone()).unwrap();
            assert!(!page.contains("EXTRA"), "{name}");
            // What a page names as another one is one.
            let lines = page.lines().filter_map(|line| line.strip_suffix("(1)"));
            for named in lines.map(|line| line.replace('\\', "") + ".1") {
                assert!(names.contains(&named.as_str()), "{name} names {named}");
            }
        }
        assert!(text("pontoon.1").contains("pontoon\\-doctor(1)"));
        assert!(text("pontoon-engine.1").contains("pontoon\\-engine\\-prune(1)"));
    }

    #[test]
    fn a_page_holds_the_options_and_the_examples() {
        let page = text("pontoon-build.1");
        for text in [".TH pontoon-build 1", "\\-\\-out\\-link", ".SH EXAMPLES"] {
            assert!(page.contains(text), "{page}");
        }
        assert!(text("pontoon.1").contains(".SH \"EXIT CODES\"\n0 good"));
    }
}
