//! The agent's end of the tunnel, which is also its lifeline.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::nix::StorePath;
use crate::tunnel::{
    BuildJob, Decoder, Frame, FrameError, FromAgent, Limits, ToAgent, encode, frame,
};

/// The conductor is gone, or speaks nonsense: whatever runs must be ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The stream ended.
    #[error("the tunnel was closed")]
    Closed,
    /// The stream broke.
    #[error("the tunnel broke")]
    Broken(#[source] std::io::Error),
    /// What came is not the protocol.
    #[error("the tunnel carries something else")]
    Protocol(#[source] FrameError),
    /// A frame came where it has no meaning.
    #[error("the tunnel carries {what} out of place")]
    OutOfPlace {
        /// What came.
        what: &'static str,
    },
}

/// The most bytes of a log in one frame.
const PIECE: usize = 256 << 10;

/// The agent's end of the tunnel.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    decoder: Decoder,
    /// What is to be built after a build, of which it came to be known meanwhile.
    ahead: Option<(StorePath, BuildJob)>,
    /// A message that was looked at, and is still to be heard.
    aside: Option<ToAgent>,
}

impl Link {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> Result<Self, Lost> {
        let stream = UnixStream::connect(path).map_err(Lost::Broken)?;
        Ok(Self {
            stream,
            decoder: Decoder::new(Limits::GREETING),
            ahead: None,
            aside: None,
        })
    }

    /// The other end has greeted: it may say more at a time.
    pub fn greeted(&mut self) {
        self.decoder.limit(Limits::TUNNEL);
    }

    /// Sends a message.
    pub fn say(&mut self, message: &FromAgent) -> Result<(), Lost> {
        self.write(&Frame::message(message))
    }

    /// Sends messages at once, so that the other end wakes once.
    pub fn say_all(&mut self, messages: &[&FromAgent]) -> Result<(), Lost> {
        let bytes: Vec<u8> = messages
            .iter()
            .flat_map(|message| encode(&Frame::message(*message)))
            .collect();
        self.stream.write_all(&bytes).map_err(Lost::Broken)
    }

    /// Tells which lock is waited for, for as long as anybody hears it.
    pub fn waiting(&mut self) -> impl FnMut(&Path) -> ControlFlow<()> {
        |lock| {
            let lock = lock.display().to_string();
            match self.say(&FromAgent::Waiting { lock }) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        }
    }

    /// Sends bytes of a log.
    pub fn log(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        for piece in bytes.chunks(PIECE) {
            self.write(&Frame::Log(piece.to_vec()))?;
        }
        Ok(())
    }

    /// Waits for the next message.
    pub fn hear(&mut self) -> Result<ToAgent, Lost> {
        match self.aside.take() {
            Some(message) => Ok(message),
            None => message(self.next_frame()?),
        }
    }

    /// Notes what is to be built after a build.
    pub fn note(&mut self, after: StorePath, next: BuildJob) {
        self.ahead = Some((after, next));
    }

    /// Takes what is to be built after the last build; what was noted for another is forgotten.
    pub fn next_after(&mut self, last: Option<&StorePath>) -> Option<BuildJob> {
        let (after, next) = self.ahead.take()?;
        (last == Some(&after)).then_some(next)
    }

    /// Takes notice of what is to be built next, if that has come.
    pub fn look_ahead(&mut self) -> Result<(), Lost> {
        let mut come = [PollFd::new(&self.stream, PollFlags::IN)];
        let at_once = Timespec::default();
        if self.ahead.is_none() && poll(&mut come, Some(&at_once)).is_ok_and(|count| count > 0) {
            self.pump()?;
        }
        while self.ahead.is_none() && self.aside.is_none() {
            match self.heard()? {
                Some(ToAgent::Then { after, job }) => self.note(after, job),
                Some(other) => self.aside = Some(other),
                None => break,
            }
        }
        Ok(())
    }

    /// Waits for the next frame.
    pub fn next_frame(&mut self) -> Result<Frame, Lost> {
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(frame);
            }
            self.pump()?;
        }
    }

    /// Reads once: call it when the descriptor is readable, or to wait.
    pub fn pump(&mut self) -> Result<(), Lost> {
        match self.decoder.read(&mut self.stream) {
            Ok(0) => Err(Lost::Closed),
            Ok(_) => Ok(()),
            Err(error) => Err(Lost::Broken(error)),
        }
    }

    /// Takes a message that has come already, without waiting.
    pub fn heard(&mut self) -> Result<Option<ToAgent>, Lost> {
        match self.aside.take() {
            Some(message) => Ok(Some(message)),
            None => self.frame()?.map(message).transpose(),
        }
    }

    /// Takes a frame that has come already. How long one may be is asked only now: what follows a
    /// greeting may have come with it, and may be longer.
    fn frame(&mut self) -> Result<Option<Frame>, Lost> {
        self.decoder.next_frame().map_err(Lost::Protocol)
    }

    fn write(&mut self, frame: &Frame) -> Result<(), Lost> {
        self.stream.write_all(&encode(frame)).map_err(Lost::Broken)
    }
}

fn message(frame: Frame) -> Result<ToAgent, Lost> {
    match frame {
        Frame::Message(payload) => frame::parse(&payload).map_err(Lost::Protocol),
        Frame::Data(_) => Err(Lost::OutOfPlace { what: "data" }),
        Frame::Log(_) => Err(Lost::OutOfPlace { what: "a log" }),
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Reads the data frames of one NAR as a byte stream that ends at the empty frame.
#[derive(Debug)]
pub struct Data<'a> {
    link: &'a mut Link,
    chunk: Vec<u8>,
    at: usize,
    ended: bool,
    /// Something else came: where the next message begins is not known.
    broken: bool,
    /// Bytes read so far.
    pub count: u64,
}

impl<'a> Data<'a> {
    /// Begins to read.
    pub fn new(link: &'a mut Link) -> Self {
        Self {
            link,
            chunk: Vec::new(),
            at: 0,
            ended: false,
            broken: false,
            count: 0,
        }
    }

    /// Reads and forgets what is left, so that the next message is in its place.
    pub fn skip_rest(&mut self) -> Result<(), Lost> {
        while !self.ended {
            self.next_piece()?;
        }
        Ok(())
    }

    fn next_piece(&mut self) -> Result<Vec<u8>, Lost> {
        let out_of_place = Lost::OutOfPlace {
            what: "something in the middle of a NAR",
        };
        if self.broken {
            return Err(out_of_place);
        }
        match self.link.next_frame()? {
            Frame::Data(bytes) => {
                self.ended = bytes.is_empty();
                self.count += bytes.len() as u64;
                Ok(bytes)
            }
            Frame::Message(_) | Frame::Log(_) => {
                self.broken = true;
                Err(out_of_place)
            }
        }
    }
}

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.chunk.len() && !self.ended {
            self.chunk = self.next_piece().map_err(std::io::Error::other)?;
            self.at = 0;
        }
        let rest = &self.chunk[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::tunnel::{self, MAX_GREETING};

    #[test]
    fn what_follows_a_greeting_may_come_with_it_and_be_longer() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("tunnel");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut link = Link::connect(&socket).unwrap();
        let version = tunnel::VERSION;
        let welcome = encode(&Frame::message(&ToAgent::Welcome { version }));
        let links = vec!["long".repeat(MAX_GREETING)];
        let keep = encode(&Frame::message(&ToAgent::Keep { links }));
        let conductor = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[welcome, keep].concat()).unwrap();
        });
        assert!(matches!(link.hear().unwrap(), ToAgent::Welcome { .. }));
        link.greeted();
        assert!(matches!(link.hear().unwrap(), ToAgent::Keep { .. }));
        conductor.join().unwrap();
    }
}
