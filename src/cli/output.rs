//! Where text goes: the report to stderr, data to stdout, errors in one form.

use std::io::{IsTerminal, Write};

use super::args;
use super::error::{Error, Kind};
use super::surroundings::Surroundings;
use crate::event::Sink;
use crate::report::json::Json;
use crate::report::narrate::{Narrator, Progress};
use crate::report::plain::Plain;
use crate::report::style::{Colour, Ink};
use crate::report::terminal::{Size, Terminal};
use crate::report::{Advice, Detail, text};

/// One of the two ways out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Data.
    Stdout,
    /// Everything else.
    Stderr,
}

impl Stream {
    /// Whether somebody watches.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => std::io::stdout().is_terminal(),
            Self::Stderr => std::io::stderr().is_terminal(),
        }
    }

    /// Whether to use colour there.
    pub fn colour(self, around: &Surroundings) -> Colour {
        colour(self.is_terminal(), around)
    }
}

/// Colour needs a terminal that knows it and a user who wants it (`NO_COLOR`, no-color.org).
fn colour(is_terminal: bool, around: &Surroundings) -> Colour {
    let unwanted = around.variables.contains_key("NO_COLOR");
    if is_terminal && !unwanted && !is_dumb(around) {
        Colour::Ansi
    } else {
        Colour::Never
    }
}

/// A terminal that does not say what it is cannot be expected to move its cursor.
fn is_dumb(around: &Surroundings) -> bool {
    around.text("TERM").is_none_or(|term| term == "dumb")
}

/// The report of a run, as the options want it.
pub fn report(options: &args::Report, advice: Advice, around: &Surroundings) -> Box<dyn Sink> {
    if options.json {
        return Box::new(Json::new(std::io::stdout()));
    }
    let detail = match (options.quiet, options.print_build_logs) {
        (true, _) => Detail::Quiet,
        (false, true) => Detail::Logs,
        (false, false) => Detail::Normal,
    };
    let (err, colour) = (std::io::stderr(), Stream::Stderr.colour(around));
    let live = Stream::Stderr.is_terminal() && !is_dumb(around) && detail != Detail::Quiet;
    let progress = if live {
        Progress::Block
    } else {
        Progress::Lines
    };
    let narrator = Narrator::new(detail, progress, colour, advice);
    if live {
        let size: Size = Box::new(terminal_size);
        return Box::new(Terminal::new(narrator, err, size));
    }
    Box::new(Plain::new(narrator, err))
}

/// Columns and rows of the terminal at stderr, or what every terminal has.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

/// Writes data to stdout.
///
/// # Errors
///
/// [`Kind::ClosedPipe`] if nobody reads it any more.
pub fn data(bytes: &[u8]) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Error::stdout)
}

/// Writes lines for people to stderr; a reader that has gone is no failure.
pub fn say(lines: &[String]) {
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
}

/// Writes a warning to stderr.
pub fn warn(warning: &str, colour: Colour) {
    say(&[format!(
        "{} {}",
        colour.paint(Ink::Warn, "warning:"),
        text::label(warning)
    )]);
}

/// Writes an error to stderr. An evaluation's message is `nix`'s own and may be coloured.
pub fn complain(error: &Error, colour: Colour) {
    let kept = if error.kind == Kind::Evaluation {
        colour
    } else {
        Colour::Never
    };
    let lines = error.lines().into_iter().map(|line| {
        let line = text::clean(&line, kept);
        for (word, ink) in [("error:", Ink::Bad), ("hint:", Ink::Strong)] {
            if let Some(rest) = line.strip_prefix(word) {
                return format!("{}{rest}", colour.paint(ink, word));
            }
        }
        line
    });
    say(&lines.collect::<Vec<_>>());
}

#[cfg(test)]
mod tests {
    use super::super::surroundings::MachineStore;
    use super::*;

    #[test]
    fn colour_needs_a_terminal_and_a_wish() {
        let with = |variables: &[(&str, &str)]| Surroundings {
            variables: variables
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            machine_store: MachineStore::Absent,
            working_directory: None,
            processors: 1,
        };
        let term = ("TERM", "xterm");
        assert_eq!(colour(true, &with(&[term])), Colour::Ansi);
        assert_eq!(colour(false, &with(&[term])), Colour::Never);
        assert_eq!(
            colour(true, &with(&[term, ("NO_COLOR", "1")])),
            Colour::Never
        );
        assert_eq!(colour(true, &with(&[("TERM", "dumb")])), Colour::Never);
        assert_eq!(colour(true, &with(&[])), Colour::Never);
    }
}
