//! How a command fails: a kind with its exit code, the chain of causes, and hints.
//!
//! Modules raise their own errors; which kind one is, and what to do about it, is said here and in
//! [`super::session`] only. `docs/exit-codes.md` is the table for people; a test compares.

use std::fmt;

/// What went wrong, in the words of the exit-code table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything without a code of its own.
    Other,
    /// The command line makes no sense.
    Usage,
    /// `nix` could not evaluate what was asked for.
    Evaluation,
    /// There is no `nix`, or it is too old.
    NoNix,
    /// The plan holds something that is refused before anything runs.
    Plan,
    /// The store cannot be used.
    Store,
    /// The engine cannot be used.
    Engine,
    /// Nobody reads stdout any more.
    ClosedPipe,
    /// A signal ended the command: its number.
    Signal(u8),
}

impl Kind {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::ClosedPipe => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::Evaluation => 3,
            Self::NoNix => 4,
            Self::Plan => 5,
            Self::Store => 6,
            Self::Engine => 7,
            Self::Signal(signal) => 128_u8.wrapping_add(signal),
        }
    }

    /// The heading of the message; none where the cause says it all.
    pub const fn heading(self) -> Option<&'static str> {
        match self {
            Self::Other | Self::Usage | Self::ClosedPipe => None,
            Self::Evaluation => Some("evaluation failed"),
            Self::NoNix => Some("no usable nix"),
            Self::Plan => Some("the plan is refused"),
            Self::Store => Some("the store cannot be used"),
            Self::Engine => Some("the engine cannot be used"),
            Self::Signal(_) => Some("interrupted"),
        }
    }
}

/// A command's failure.
#[derive(Debug)]
pub struct Error {
    /// What kind it is.
    pub kind: Kind,
    /// What happened, with its own causes behind it.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// What to do about it, a sentence each.
    pub hints: Vec<String>,
}

impl Error {
    /// A failure with its cause.
    pub fn new(kind: Kind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            kind,
            source: Some(source.into()),
            hints: vec![],
        }
    }

    /// A command line that makes no sense.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Kind::Usage, text.into())
    }

    /// The end by a signal.
    pub fn signal(signal: u8) -> Self {
        Self {
            kind: Kind::Signal(signal),
            source: None,
            hints: vec![],
        }
    }

    /// A failure to write data to stdout; a reader that has gone is none.
    pub fn stdout(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self {
                kind: Kind::ClosedPipe,
                source: None,
                hints: vec![],
            },
            _ => Self::new(Kind::Other, Stdout { source: error }),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The message: heading, every cause, hints; nothing for a closed pipe. A cause of many lines
    /// (an evaluation's) stays as it is.
    pub fn lines(&self) -> Vec<String> {
        if self.kind == Kind::ClosedPipe {
            return vec![];
        }
        let mut causes: Vec<String> = self.kind.heading().map(str::to_owned).into_iter().collect();
        let mut next = self
            .source
            .as_deref()
            .map(|source| source as &dyn std::error::Error);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let mut lines = vec![];
        for (number, cause) in causes.iter().enumerate() {
            let mut text = cause.trim_end().lines();
            let first = text.next().unwrap_or_default();
            lines.push(if number == 0 {
                format!("error: {first}")
            } else {
                format!("  {first}")
            });
            lines.extend(text.map(|line| format!("  {line}").trim_end().to_owned()));
        }
        lines.extend(self.hints.iter().map(|hint| format!("hint: {hint}")));
        lines
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
struct Stdout {
    source: std::io::Error,
}

/// Exit codes that no [`Kind`] has: they say how a run ended. Builds use Nix's own.
pub const RUN_CODES: [(u8, &str); 6] = [
    (20, "an effect failed"),
    (21, "the outcome of an effect is unknown"),
    (100, "a build failed"),
    (101, "a build timed out"),
    (
        102,
        "a fixed output has another hash than its derivation says",
    ),
    (103, "both of these"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the database")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn shows_the_whole_chain() {
        let cause = Outer(std::io::Error::other("disk I/O error"));
        let error = Error::new(Kind::Store, cause).hint("name another store");
        insta::assert_snapshot!(error, @"
        error: the store cannot be used
          cannot open the database
          disk I/O error
        hint: name another store
        ");
    }

    #[test]
    fn shows_an_evaluation_error_whole() {
        let error = Error::new(
            Kind::Evaluation,
            "error: attribute 'x' missing\n\n   at a.nix:1:2\n",
        );
        insta::assert_snapshot!(error, @"
        error: evaluation failed
          error: attribute 'x' missing

             at a.nix:1:2
        ");
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_success() {
        let error = Error::stdout(std::io::ErrorKind::BrokenPipe.into());
        assert_eq!((error.kind.code(), error.lines().len()), (0, 0));
        assert_eq!(
            Error::stdout(std::io::ErrorKind::StorageFull.into())
                .kind
                .code(),
            1
        );
    }

    #[test]
    fn every_code_is_documented_and_every_documented_code_is_ours() {
        let kinds = [
            Kind::ClosedPipe,
            Kind::Other,
            Kind::Usage,
            Kind::Evaluation,
            Kind::NoNix,
            Kind::Plan,
            Kind::Store,
            Kind::Engine,
            Kind::Signal(2),
            Kind::Signal(15),
        ];
        let mut ours: Vec<u8> = kinds.map(Kind::code).to_vec();
        ours.extend(RUN_CODES.map(|(code, _)| code));
        ours.sort_unstable();
        let documented: Vec<u8> = include_str!("../../docs/exit-codes.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(documented, ours);
    }
}
