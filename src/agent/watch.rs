//! Watching a process: its terminal, its limits, and the lifeline.
//!
//! The end of a build is the end of its terminal (Nix spec §4.11): a builder that closes its
//! output is killed. The end of the builder's process ends it too, because in a plain op a process
//! it left behind could hold the terminal open for ever.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::agent::link::{Link, Lost};
use crate::sandbox::{Child, Exit};
use crate::tunnel::ToAgent;

/// How long a process may run and be silent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Seconds it may run.
    pub timeout: Option<u64>,
    /// Seconds it may write nothing.
    pub silence: Option<u64>,
}

/// Why the watching ended. The process is dead and reaped in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ended, or closed its output and was killed for it.
    Exited(Exit),
    /// It ran longer than this many seconds.
    TimedOut(u64),
    /// It was silent for this many seconds.
    Silent(u64),
    /// The conductor said so.
    Cancelled,
}

/// What stopped the watching itself.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The lifeline is gone; the process has been killed.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The lifeline is gone, but the process had ended by itself before it was killed for that.
    #[error("the tunnel was lost after the process had ended")]
    Late(#[source] Lost, Exit),
    /// The log could not be written.
    #[error("cannot write the build log")]
    Log(#[source] std::io::Error),
    /// A system call on the process or its terminal failed.
    #[error("cannot watch the process")]
    Watch(#[source] std::io::Error),
}

/// A process being watched.
pub struct Watch<'a> {
    /// The process.
    pub child: Child,
    /// The terminal's other end.
    pub terminal: OwnedFd,
    /// The tunnel.
    pub link: &'a mut Link,
    /// Takes every byte of output, besides the tunnel.
    pub log: &'a mut dyn std::io::Write,
    /// The limits.
    pub limits: Limits,
    /// Kills what the process may have left behind; the terminal then closes.
    pub sweep: &'a dyn Fn(),
}

enum Seen {
    Output,
    Closed,
    Nothing,
}

impl Watch<'_> {
    /// Watches until the end. On every way out the process and what it left are dead.
    pub fn until_end(mut self) -> Result<End, WatchError> {
        let outcome = self.until_reason();
        let kill = self.child.kill();
        let exit = self.child.wait();
        (self.sweep)();
        let reason = match (outcome, &exit) {
            // What was killed here ended by a signal.
            (Err(WatchError::Lost(lost)), Ok(exit @ Exit::Code(_))) => {
                return Err(WatchError::Late(lost, *exit));
            }
            (outcome, _) => outcome?,
        };
        kill.map_err(|error| WatchError::Watch(std::io::Error::other(error)))?;
        let exit = exit.map_err(|error| WatchError::Watch(std::io::Error::other(error)))?;
        self.drain()?;
        Ok(reason.unwrap_or(End::Exited(exit)))
    }

    /// Returns why it must end now; none means that it ended by itself.
    fn until_reason(&mut self) -> Result<Option<End>, WatchError> {
        let started = Instant::now();
        let mut last_output = started;
        loop {
            // What came together with the job is here already, and makes nothing readable.
            match self.link.heard()? {
                None => {}
                Some(ToAgent::Cancel | ToAgent::Bye) => return Ok(Some(End::Cancelled)),
                Some(ToAgent::Then { after, job }) => self.link.note(after, job),
                Some(_) => return Err(Lost::OutOfPlace { what: "a job" }.into()),
            }
            let now = Instant::now();
            if let Some(seconds) = self.limits.timeout
                && now - started >= Duration::from_secs(seconds)
            {
                return Ok(Some(End::TimedOut(seconds)));
            }
            if let Some(seconds) = self.limits.silence
                && now - last_output >= Duration::from_secs(seconds)
            {
                return Ok(Some(End::Silent(seconds)));
            }
            let deadline = [
                self.limits
                    .timeout
                    .map(|seconds| started + Duration::from_secs(seconds)),
                self.limits
                    .silence
                    .map(|seconds| last_output + Duration::from_secs(seconds)),
            ]
            .into_iter()
            .flatten()
            .min();
            let ready = self.wait_for_something(deadline.map(|deadline| deadline - now))?;
            if ready.link {
                self.link.pump()?;
            }
            if ready.terminal {
                match self.read_terminal()? {
                    Seen::Output => last_output = Instant::now(),
                    Seen::Closed => return Ok(None),
                    Seen::Nothing => {}
                }
            } else if ready.ended {
                return Ok(None);
            }
        }
    }

    fn wait_for_something(&self, timeout: Option<Duration>) -> Result<Ready, WatchError> {
        let mut fds = [
            PollFd::new(&self.terminal, PollFlags::IN),
            PollFd::from_borrowed_fd(self.link.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.child.as_fd(), PollFlags::IN),
        ];
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(WatchError::Watch(error.into())),
        }
        let [terminal, link, ended] = fds.map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            terminal,
            link,
            ended,
        })
    }

    fn read_terminal(&mut self) -> Result<Seen, WatchError> {
        let mut buffer = [0; 32 << 10];
        match rustix::io::read(&self.terminal, &mut buffer) {
            // A terminal whose last writer is gone answers EIO, not an end of file.
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(Seen::Closed),
            Ok(count) => {
                self.log
                    .write_all(&buffer[..count])
                    .map_err(WatchError::Log)?;
                self.link.log(&buffer[..count])?;
                Ok(Seen::Output)
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Seen::Nothing),
            Err(error) => Err(WatchError::Watch(error.into())),
        }
    }

    /// Reads what was written before the end. Every writer is dead: this cannot last.
    fn drain(&mut self) -> Result<(), WatchError> {
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            let ready = self.wait_for_terminal()?;
            if !ready {
                return Ok(());
            }
            if let Seen::Closed = self.read_terminal()? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn wait_for_terminal(&self) -> Result<bool, WatchError> {
        let mut fds = [PollFd::new(&self.terminal, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        match poll(&mut fds, Some(&patience)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(WatchError::Watch(error.into())),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Ready {
    terminal: bool,
    link: bool,
    ended: bool,
}
