//! Another time of day for a command and all that it starts: `fixtures/clock.c`.

use std::path::PathBuf;
use std::process::Command;

use super::{Place, run};

/// A day, in seconds.
pub(crate) const DAY: i64 = 24 * 60 * 60;
/// A year, in seconds.
pub(crate) const YEAR: i64 = 365 * DAY;

/// The command, so many seconds later than it is.
pub(crate) fn later(place: &Place, seconds: i64, command: &Command) -> Command {
    let mut shifted = place.command(compiled(place));
    shifted.arg(seconds.to_string());
    shifted.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shifted.env(name, value),
            None => shifted.env_remove(name),
        };
    }
    shifted
}

/// The tracer, compiled once for a place.
fn compiled(place: &Place) -> PathBuf {
    let program = place.at("clock");
    if !program.exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/fixtures/clock.c");
        let mut compile = place.command("cc");
        compile
            .args(["-O1", "-Wall", "-Werror", "-o"])
            .arg(&program);
        run(compile.arg(source)).ok();
    }
    program
}
