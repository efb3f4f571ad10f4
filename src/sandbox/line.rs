//! The line between a parent and the child it makes, up to the child's program.
//!
//! A pair of sockets that keep message boundaries. The child asks for its ids to be mapped, or
//! says what failed; the end of its side without a word means that all went well. To the child the
//! end of the parent's side means that the parent is dead.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::error::Error;

/// One side.
pub(super) struct Line(OwnedFd);

/// What a child says.
pub(super) enum Word {
    /// It has a user namespace and waits for its maps.
    NeedsMaps,
    /// It failed, and ends.
    Failed(Error),
    /// It executes its program.
    Gone,
}

/// Longer than any path the kernel takes.
const LONGEST: usize = 8192;

impl Line {
    /// Both sides.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Waits for the child's next word.
    pub(super) fn hear(&self) -> io::Result<Word> {
        let mut bytes = [0; LONGEST];
        let length = self.receive(&mut bytes, RecvFlags::empty())?;
        Ok(match &bytes[..length] {
            [] => Word::Gone,
            [_] => Word::NeedsMaps,
            bytes => Word::Failed(Error::decode(bytes).ok_or(io::ErrorKind::InvalidData)?),
        })
    }

    /// Tells the child that its maps are written.
    pub(super) fn allow(&self) -> io::Result<()> {
        self.send(&[0])
    }

    /// Asks for the maps and waits for them.
    pub(super) fn ask_for_maps(&self) -> io::Result<()> {
        self.send(&[0])?;
        match self.receive(&mut [0], RecvFlags::empty())? {
            0 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    /// Says what failed. Nobody is left to hear that this fails.
    pub(super) fn report(&self, error: &Error) {
        let bytes = error.encode();
        self.send(&bytes[..bytes.len().min(LONGEST)]).ok();
    }

    /// Fails if the parent is dead.
    pub(super) fn parent_lives(&self) -> io::Result<()> {
        match self.receive(&mut [0], RecvFlags::DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The descriptor.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let send = || rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL);
        rustix::io::retry_on_intr(send)?;
        Ok(())
    }

    fn receive(&self, bytes: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.0, &mut *bytes, flags) {
                // A side with unread words ends so.
                Err(Errno::CONNRESET) => return Ok(0),
                Err(Errno::INTR) => {}
                result => return Ok(result?.0),
            }
        }
    }
}
