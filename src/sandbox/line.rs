//! The line between a parent and the child it makes, up to the child's program.
//!
//! A pair of sockets that keep message boundaries. The child asks for its ids to be mapped, or
//! says what failed; the end of its side without a word means that all went well. To the child the
//! end of the parent's side means that the parent is dead. A nursery also says when it is ready, and
//! it and what it makes hear what is to come.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};

use super::error::Error;

/// One side.
#[derive(Debug)]
pub(super) struct Line(OwnedFd);

/// What a child says.
pub(super) enum Word {
    /// It has a user namespace and waits for its maps.
    NeedsMaps,
    /// It is a nursery, and can be asked.
    Ready,
    /// It failed, and ends.
    Failed(Error),
    /// It executes its program.
    Gone,
}

/// Longer than any path the kernel takes.
const LONGEST: usize = 8192;
/// How much of an order goes in one message, which has to fit into a socket's buffer.
const PIECE: usize = 32 << 10;
/// The most descriptors that go with an order.
const DESCRIPTORS: usize = 8;
/// The word of a child that is ready.
const READY: u8 = 1;

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

    /// One that came from another process.
    pub(super) fn of(side: OwnedFd) -> Self {
        Self(side)
    }

    /// Waits for the child's next word.
    pub(super) fn hear(&self) -> io::Result<Word> {
        let mut bytes = [0; LONGEST];
        let length = self.receive(&mut bytes, RecvFlags::empty())?;
        Ok(match &bytes[..length] {
            [] => Word::Gone,
            [READY] => Word::Ready,
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

    /// Says that it can be asked.
    pub(super) fn be_ready(&self) -> io::Result<()> {
        self.send(&[READY])
    }

    /// Gives an order to a child on standby, with descriptors.
    pub(super) fn give(&self, order: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = SendAncillaryMessage::ScmRights(descriptors);
        if !descriptors.is_empty() && !control.push(rights) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = order.len().to_ne_bytes();
        let first = [IoSlice::new(&length)];
        let flags = SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.0, &first, &mut control, flags))?;
        order.chunks(PIECE).try_for_each(|piece| self.send(piece))
    }

    /// Says nothing more; what the other side says is still heard.
    pub(super) fn end(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }

    /// Waits for an order; nothing if the parent gives none.
    pub(super) fn take(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut length = [0; size_of::<usize>()];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let come = rustix::io::retry_on_intr(|| {
            let mut first = [IoSliceMut::new(&mut length)];
            rustix::net::recvmsg(&self.0, &mut first, &mut control, flags)
        })?;
        if come.bytes != length.len() {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let mut order = vec![0; usize::from_ne_bytes(length)];
        let mut rest = order.as_mut_slice();
        while !rest.is_empty() {
            match self.receive(rest, RecvFlags::empty())? {
                0 => return Ok(None),
                count => rest = &mut rest[count..],
            }
        }
        Ok(Some((order, descriptors)))
    }

    /// Says what failed. Nobody is left to hear that this fails.
    pub(super) fn report(&self, error: &Error) {
        let bytes = error.encode();
        self.send(&bytes[..bytes.len().min(LONGEST)]).ok();
    }

    /// Fails if the parent is dead.
    pub(super) fn parent_lives(&self) -> io::Result<()> {
        match self.receive(&mut [0], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(0) | Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
            // It has given an order already.
            Ok(_) => Ok(()),
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
                // A side with unread words ends so; what it said itself comes after this.
                Err(Errno::CONNRESET | Errno::INTR) => {}
                result => return Ok(result?.0),
            }
        }
    }
}
