//! An engine that wakes while something else is done.
//!
//! A daemon takes as long for a connection, a session and an op as `nix` for a small evaluation,
//! and neither needs the other. So a command wakes its engine first, and takes the session when it
//! knows what to do with it.
//!
//! | meanwhile | and then |
//! |---|---|
//! | all is well | the session is taken |
//! | the engine cannot be used | that is said when the session is to be taken: what is wrong with an evaluation comes before |
//! | the store cannot be used | it is looked at again, for `nix` makes stores, and brings them to its own schema |
//! | the command ends without a run | the session is closed in good order; a daemon that does not answer is given up |
//! | it lasts longer than [`LONGEST`] | the session is closed, and a new one opened when it is to be taken |
//!
//! The last has a reason: an open session holds locks of its store, which is often the one where
//! `nix` evaluates. Most of what `nix` does there is done beside others; what is not waits no longer
//! than that.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::event::Event;
use crate::run::session::Session;
use crate::run::{Error, Options};

/// How long a session is kept for somebody who does not take it.
const LONGEST: Duration = Duration::from_secs(2);
/// How long a session may take to come about before that is told.
const LATE: Duration = Duration::from_secs(10);
/// How long a session that nobody wants any more may take to come about, and to end.
const GRACE: Duration = Duration::from_millis(500);

/// What is begun beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beforehand {
    /// A store that answers.
    Store,
    /// An agent for the first build, too.
    Build,
}

/// An engine that wakes, or is awake.
pub struct Waking<'a> {
    options: &'a Options,
    /// Says that the session is to be taken; dropped, nobody wants it.
    take: Option<Sender<()>>,
    woken: Receiver<Result<Session<'a>, Error>>,
}

/// Wakes the engine of a run, and does something meanwhile.
pub fn wake<'a, T>(
    options: &'a Options,
    beforehand: Beforehand,
    work: impl FnOnce(Waking<'a>) -> T,
) -> T {
    thread::scope(|scope| {
        let (take, taken) = channel();
        let (tell, woken) = channel();
        scope.spawn(move || keep(Session::begin(options, 0, beforehand), &taken, &tell));
        work(Waking {
            options,
            take: Some(take),
            woken,
        })
    })
}

/// Gives a session to whoever takes it, or closes it.
fn keep<'a>(
    opened: Result<Session<'a>, Error>,
    taken: &Receiver<()>,
    tell: &Sender<Result<Session<'a>, Error>>,
) {
    let session = match opened {
        Ok(session) => session,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    match taken.recv_timeout(LONGEST) {
        Ok(()) => {
            // Who takes it waits for it.
            let _ = tell.send(Ok(session));
        }
        Err(_) => session.close(),
    }
}

impl<'a> Waking<'a> {
    /// What the run is told.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// Waits for the session; tells once if it is [`LATE`]. The second is how many were opened for
    /// it, or tried to.
    pub(super) fn take(mut self, late: impl FnOnce()) -> (Result<Session<'a>, Error>, u32) {
        if let Some(take) = self.take.take() {
            // It may be closed by now.
            let _ = take.send(());
        }
        let woken = match self.woken.recv_timeout(LATE) {
            Err(RecvTimeoutError::Timeout) => {
                late();
                self.woken.recv().ok()
            }
            woken => woken.ok(),
        };
        match woken {
            Some(Err(Error::Store { .. })) | None => (Session::open(self.options, 1), 2),
            Some(opened) => (opened, 1),
        }
    }
}

/// Tells that a session is [`LATE`].
pub(super) fn late() -> Event {
    let seconds = LATE.as_secs();
    Event::Warning {
        text: format!("the engine has not been ready for {seconds} s"),
        hint: Some(
            "a daemon may have begun as many ops of others as it runs at a time, or be stuck; \
             Ctrl-C ends the wait"
                .to_owned(),
        ),
    }
}

impl Drop for Waking<'_> {
    fn drop(&mut self) {
        if self.take.take().is_some()
            && self.woken.recv_timeout(GRACE).err() == Some(RecvTimeoutError::Timeout)
        {
            self.options.cancel.store(true, Ordering::Relaxed);
        }
    }
}
