//! What an agent keeps from build to build, because it takes longer than a small builder runs.
//!
//! | kept | made | used |
//! |---|---|---|
//! | the inputs of the slot ([`Inputs`]) | when a build needs them | by each build that sees all of them |
//! | a process with new namespaces | while a builder runs, by a [`Nursery`] | by the next build |
//! | the mounts of a dead room | with the room | never: the nursery lets go of them when the next room is on its way |
//!
//! Each room has namespaces of its own, which nobody was in before.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use crate::agent::inputs::{Inputs, Seen};
use crate::agent::room::{Room, RoomError};
use crate::sandbox::{self, Cage, Child, Ground, Nursery, Process, Standby};

/// What an agent keeps from build to build.
#[derive(Debug, Default)]
pub struct Kept {
    // In the order in which they are dropped: a mount point that somebody else still has mounted
    // costs much to remove.
    remains: Option<OwnedFd>,
    nursery: Option<Nursery>,
    inputs: Option<Inputs>,
}

impl Kept {
    /// Shows a room its inputs.
    pub fn show(&mut self, room: &Room<'_>) -> Result<Seen, RoomError> {
        let remains = &mut self.remains;
        Inputs::show(
            &mut self.inputs,
            remains,
            room.slot,
            room.dir,
            room.closure.keys(),
        )
    }

    /// Starts a process in a cage, in the one on standby if that will do: while that furnishes itself
    /// there is time for something else, which comes first where there is none. It may say that the
    /// process is not wanted any more; then it is not started.
    pub fn start(
        &mut self,
        cage: &Cage,
        process: Process,
        meanwhile: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Child, sandbox::Error> {
        if let Some(standby) = self.standby(cage) {
            match standby.start(cage, &process, meanwhile) {
                // It did not hear what for: nothing was begun.
                Err(sandbox::Error::Line { .. }) => {}
                started => return started,
            }
        }
        if meanwhile().is_break() {
            return Err(sandbox::Error::Unwanted);
        }
        sandbox::spawn(Some(cage), process)
    }

    fn standby(&mut self, cage: &Cage) -> Option<Standby> {
        let mut standby = self.nursery.as_mut()?.take()?;
        standby.suits(cage).then_some(standby)
    }

    /// Begins the next room while a builder runs, and sees to it that this one's end is seen at
    /// once. What cannot be had now is tried again when it is needed.
    pub fn prepare(&mut self, ground: Ground, builder: &Child) {
        let before = self.remains.take();
        self.remains = builder.hold_mounts();
        if self.nursery.is_none() {
            self.nursery = Nursery::open().ok();
        }
        if let Some(nursery) = &mut self.nursery
            && nursery.ask(ground, before).is_err()
        {
            self.nursery = None;
        }
    }

    /// Lets go of what is of no use any more: whoever does that waits for the kernel.
    pub fn rest(&mut self) {
        self.remains = None;
    }

    /// The names of the mount points in the slot's store.
    pub fn points(&self) -> BTreeSet<String> {
        self.inputs.as_ref().map(Inputs::points).unwrap_or_default()
    }
}
