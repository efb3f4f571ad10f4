//! What is said where the machine gives no thread.
//!
//! The standard library panics then. It is no fault of the program: a limit on processes or on memory
//! is reached.

use std::panic;

use super::error::{Error, Kind};
use super::output;
use crate::report::style::Colour;

/// How the standard library's message begins.
const MESSAGE: &str = "failed to spawn thread";

/// From now on, where no thread can be started the command ends with an error that says so. What runs
/// ops ends with it, as when it is killed.
#[expect(
    clippy::exit,
    reason = "whoever waits for the thread that panics would panic in turn"
)]
pub fn tell_where_there_are_none(colour: Colour) {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or_default();
        let Some(reason) = text.strip_prefix(MESSAGE) else {
            return usual(info);
        };
        // It is written as programmers see it, with the machine's words in quotes.
        let reason = reason.split('"').nth(1).unwrap_or("the machine refuses");
        let error = Error::new(Kind::Other, format!("cannot start a thread: {reason}"));
        let error = error.hint(
            "a limit on processes or on memory may be reached: see `ulimit -u` and `ulimit -v`",
        );
        output::complain(&error, colour);
        std::process::exit(Kind::Other.code().into());
    }));
}
