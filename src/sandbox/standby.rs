//! A process on standby: its namespaces and its root are made, and it waits to hear what for.
//!
//! A new network namespace alone takes the kernel most of a millisecond, as long as many a builder
//! runs. Who has another process to run soon has it made by a [`Nursery`](super::Nursery) while the
//! last one works.
//!
//! It has none of its caller's descriptors but standard error: locks are inherited with them. What it
//! hears is an [`Order`].

use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use super::child::Child;
use super::error::{Error, Step};
use super::line::Line;
use super::order::Order;
use super::spawn::{self, FAILED, Image};
use super::{Cage, Ground, Process, cage, state};

/// A process on standby; dropped, it ends.
#[derive(Debug)]
pub struct Standby {
    ground: Ground,
    /// None once it has its order.
    waiting: Option<(Child, Line)>,
}

impl Standby {
    pub(super) fn new(ground: Ground, child: Child, line: Line) -> Self {
        Self {
            ground,
            waiting: Some((child, line)),
        }
    }

    /// Whether it is of use for a cage.
    pub fn suits(&mut self, cage: &Cage) -> bool {
        let lives = |(child, _): &mut (Child, Line)| matches!(child.try_wait(), Ok(None));
        self.ground == cage.ground && self.waiting.as_mut().is_some_and(lives)
    }

    /// Starts a program in it, as [`spawn()`](super::spawn()) does in a cage that has its ground, and
    /// does something meanwhile, which may end it: one with an identity that is
    /// [mapped](super::Identity::Mapped) before it is that program, any other in time or not.
    ///
    /// # Errors
    ///
    /// Those of `spawn`; [`Error::Unwanted`] if it was ended.
    pub fn start(
        mut self,
        cage: &Cage,
        process: &Process,
        meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Child, Error> {
        Image::new(process)?;
        let order = Order::encode(cage, process);
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![process.output.as_fd()];
        descriptors.extend(cage.trees.iter().map(|tree| tree.tree.as_fd()));
        let given = self.line().give(&order, &descriptors);
        if given.is_err() {
            // If it lives it would wait for the rest, and its caller for it.
            self.line().end();
        } else if meanwhile().is_break() {
            return Err(Error::Unwanted);
        }
        let (child, line) = self.waiting.take().expect("it is taken only here");
        // What it says last is worth more than that it does not listen.
        let mut child = spawn::accompany(child, process.identity, &line)?;
        if let Err(source) = given {
            child.kill()?;
            child.wait()?;
            return Err(Error::Line { source });
        }
        Ok(child)
    }

    #[cfg(test)]
    pub(super) fn waiting_child(&self) -> &Child {
        &self.waiting.as_ref().expect("it has no order yet").0
    }

    fn line(&self) -> &Line {
        let (_, line) = self.waiting.as_ref().expect("it has no order yet");
        line
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.waiting.take()
            && child.kill().is_ok()
        {
            let _ = child.wait();
        }
    }
}

/// The life of a process on standby, before it is another program; returns its exit code.
pub(super) fn live(ground: &Ground, line: &Line) -> i32 {
    let Err(error) = wait(ground, line);
    line.report(&error);
    FAILED
}

/// The way of a process on standby, to its program.
fn wait(ground: &Ground, line: &Line) -> Result<Infallible, Error> {
    state::detach(line)?;
    let null = state::null()?;
    state::close_others(&null, &[], line)?;
    let failed = || Error::at::<_, io::Error>(Step::Finish, "process");
    let entered = cage::enter(ground)?;
    let Some((bytes, descriptors)) = line.take().map_err(failed())? else {
        // Nobody wants it.
        super::sys::exit(0);
    };
    let order = Order::decode(&bytes, descriptors);
    let order = order.ok_or_else(|| failed()(io::ErrorKind::InvalidData.into()))?;
    let image = Image::new(&order.process)?;
    entered.furnish(&order.trees, &order.entries)?;
    let null = state::null().unwrap_or(null);
    spawn::become_program(&order.process, &image, &null, line)
}
