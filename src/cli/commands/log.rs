//! `pontoon log`: the whole log of a build.

use std::io::{BufRead, Write};

use crate::cli::error::{Error, Kind};
use crate::cli::output::Stream;
use crate::cli::surroundings::Surroundings;
use crate::cli::{apart, args, settings};
use crate::nix::StorePath;
use crate::report::style::Colour;
use crate::report::text;

/// Show the log of a build
///
/// The logs of effects are not kept: they may show secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon log /nix/store/…-hello.drv
  pontoon log /nix/store/…-hello --store /srv/store | less")]
pub struct Args {
    /// The .drv, or a path that it made
    #[arg(value_name = "DRV|PATH")]
    pub path: String,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub stores: args::Stores,
}

impl Args {
    /// Writes the log to stdout: byte for byte, but harmless on a terminal.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        if let Some(error) = no_log(&self.path) {
            return Err(error);
        }
        let parsed = self.path.trim_end_matches('/').parse::<StorePath>();
        let path = parsed.map_err(|source| {
            let text = format!("`{}` is no store path", self.path);
            Error::new(
                Kind::Usage,
                NotAPath {
                    text,
                    source: source.into(),
                },
            )
        })?;
        let place = settings::stores(&self.stores, around)?;
        let mut log = apart::log(&place.evaluation_stores, &path)?;
        let mut out = std::io::stdout().lock();
        if Stream::Stdout.is_terminal() {
            show(&mut *log, &mut out, Stream::Stdout.colour(around))?;
        } else {
            copy(&mut *log, &mut out)?;
        }
        Ok(0)
    }
}

/// An effect's log is not kept: it may hold what a secret gave away, and a store is no place for
/// that.
fn no_log(typed: &str) -> Option<Error> {
    let name = typed.strip_prefix("effect:")?;
    let text = format!(
        "the log of an effect is not kept, for it may show its secrets: `{}`",
        text::label(name)
    );
    let error = Error::new(Kind::Usage, text)
        .hint("`pontoon run -L` shows what an effect writes, `--json` gives it to a program")
        .hint("the store's `nix/pontoon/attempts/` says when it ran and how it ended");
    Some(error)
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct NotAPath {
    text: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn copy(log: &mut dyn BufRead, out: &mut impl Write) -> Result<(), Error> {
    loop {
        let bytes = log
            .fill_buf()
            .map_err(|source| Error::new(Kind::Other, source))?;
        if bytes.is_empty() {
            return out.flush().map_err(Error::stdout);
        }
        out.write_all(bytes).map_err(Error::stdout)?;
        let taken = bytes.len();
        log.consume(taken);
    }
}

fn show(log: &mut dyn BufRead, out: &mut impl Write, colour: Colour) -> Result<(), Error> {
    let mut line = vec![];
    loop {
        line.clear();
        let taken = log
            .read_until(b'\n', &mut line)
            .map_err(|source| Error::new(Kind::Other, source))?;
        if taken == 0 {
            return out.flush().map_err(Error::stdout);
        }
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
        writeln!(out, "{}", text::clean(&text, colour)).map_err(Error::stdout)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_has_no_log() {
        assert!(no_log("effect:deploy").unwrap().to_string().contains("-L"));
        assert!(no_log("/nix/store/x").is_none());
    }

    #[test]
    fn a_pipe_gets_the_bytes_and_a_terminal_gets_no_commands() {
        let log = b"a\x1b[2J\xff\nlast";
        let (mut bytes, mut shown) = (vec![], vec![]);
        copy(&mut &log[..], &mut bytes).unwrap();
        show(&mut &log[..], &mut shown, Colour::Never).unwrap();
        assert_eq!(bytes, log);
        assert_eq!(String::from_utf8(shown).unwrap(), "a\u{fffd}\nlast\n");
    }
}
