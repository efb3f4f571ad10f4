//! What an import sends over the tunnel.
//!
//! On a daemon each write becomes a message that passes through several hands. So small things are
//! sent together, however many paths they are; large ones go by themselves, without a copy.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::run::Error;
use crate::run::connection::Speaker;
use crate::run::material::Found;
use crate::tunnel::{Frame, ToAgent, encode, frame};

/// How much is collected, and the most bytes of a NAR in one frame.
const CHUNK: usize = 256 << 10;
/// What is large.
const LARGE: usize = 32 << 10;

/// Why an import was not sent.
pub(super) enum Unsent {
    /// What was to be read cannot be, or nobody wants it any more.
    Error(Box<Error>),
    /// Nobody reads it.
    Broken(std::io::Error),
}

impl From<Error> for Unsent {
    fn from(error: Error) -> Self {
        Self::Error(Box::new(error))
    }
}

impl From<std::io::Error> for Unsent {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

/// The way of an import to an agent. What is written to it becomes data frames.
pub(super) struct Sending<'a> {
    speaker: &'a mut Speaker,
    buffer: Vec<u8>,
    /// Why nothing more can be sent; whoever writes takes it for a fault of what he reads.
    broken: Option<std::io::Error>,
}

impl<'a> Sending<'a> {
    pub(super) fn to(speaker: &'a mut Speaker) -> Self {
        Self {
            speaker,
            buffer: Vec::with_capacity(CHUNK + LARGE),
            broken: None,
        }
    }

    /// Sends each path's header and NAR.
    pub(super) fn paths(&mut self, paths: &[Found<'_>], cancel: &AtomicBool) -> Result<(), Unsent> {
        for path in paths {
            if cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            let header = path.header();
            self.frame(&Frame::message(&ToAgent::Import { header }))?;
            let dumped = path.dump(self);
            if let Some(broken) = self.broken.take() {
                return Err(broken.into());
            }
            dumped?;
            self.frame(&Frame::Data(Vec::new()))?;
        }
        Ok(self.send()?)
    }

    fn frame(&mut self, frame: &Frame) -> std::io::Result<()> {
        self.collect(&encode(frame))
    }

    fn data(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.buffer
            .extend_from_slice(&frame::data_head(bytes.len()));
        if bytes.len() < LARGE {
            return self.collect(bytes);
        }
        self.send()?;
        self.speaker.send(bytes)
    }

    fn collect(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < CHUNK {
            return Ok(());
        }
        self.send()
    }

    fn send(&mut self) -> std::io::Result<()> {
        let sent = self.speaker.send(&self.buffer);
        self.buffer.clear();
        sent
    }
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // No bytes would be the end of the NAR.
        let piece = &bytes[..bytes.len().min(CHUNK)];
        if !piece.is_empty()
            && let Err(error) = self.data(piece)
        {
            let told = std::io::Error::from(error.kind());
            self.broken = Some(error);
            return Err(told);
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
