//! The conductor's end of the tunnel: one listening socket, one reading thread for each agent.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::EngineEvent;
use crate::tunnel::{self, Decoder, Frame, FrameError, FromAgent, Limits, ToAgent, encode, frame};

/// What the conductor's loop hears of.
#[derive(Debug)]
pub(super) enum Happening {
    /// An agent said hello: from now on it is known by its op's nonce.
    Connected {
        nonce: String,
        /// The copy of the store it woke up in.
        instance: String,
        /// The way to it.
        speaker: Speaker,
    },
    /// An agent of another version said hello.
    WrongVersion,
    /// An agent said something.
    Said { nonce: String, message: FromAgent },
    /// A builder wrote.
    Logged { nonce: String, bytes: Vec<u8> },
    /// An agent's stream ended, or cannot be understood any more.
    Closed {
        nonce: String,
        reason: Option<String>,
    },
    /// The engine has news.
    Engine(EngineEvent),
}

impl Happening {
    /// Whether it is about this op's agent.
    pub(super) fn is_of(&self, agent: &str) -> bool {
        match self {
            Self::Connected { nonce, .. }
            | Self::Said { nonce, .. }
            | Self::Logged { nonce, .. }
            | Self::Closed { nonce, .. } => nonce == agent,
            Self::WrongVersion | Self::Engine(_) => false,
        }
    }
}

/// The way to an agent.
#[derive(Debug)]
pub(super) struct Speaker {
    stream: UnixStream,
}

impl Speaker {
    pub(super) fn say(&mut self, message: &ToAgent) -> std::io::Result<()> {
        self.write(&Frame::message(message))
    }

    /// Sends bytes of frames.
    pub(super) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends the lifeline.
    pub(super) fn hang_up(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn write(&mut self, frame: &Frame) -> std::io::Result<()> {
        self.stream.write_all(&encode(frame))
    }
}

/// The socket where agents are accepted; dropped, no more are, and it is removed.
#[derive(Debug)]
pub(super) struct Listening {
    listener: UnixListener,
    place: PathBuf,
}

impl Listening {
    /// Accepts agents, each nonce once. Who says no hello is never heard of, nor is who says that of
    /// another.
    pub(super) fn start(place: PathBuf, tell: Sender<Happening>) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&place)?;
        let accepting = listener.try_clone()?;
        let met = Met::default();
        std::thread::spawn(move || {
            loop {
                match accepting.accept() {
                    Ok((stream, _)) => {
                        let (tell, met) = (tell.clone(), met.clone());
                        std::thread::spawn(move || Reader::new(stream, met).run(&tell));
                    }
                    // It was shut down.
                    Err(error) if error.kind() == ErrorKind::InvalidInput => return,
                    Err(_) => {}
                }
            }
        });
        Ok(Self { listener, place })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // The thread that waits in it is woken; the process goes on without it in any case.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = fs_err::remove_file(&self.place);
    }
}

/// The nonces of agents that have said hello.
type Met = Arc<Mutex<BTreeSet<String>>>;

struct Reader {
    stream: UnixStream,
    decoder: Decoder,
    met: Met,
}

impl Reader {
    fn new(stream: UnixStream, met: Met) -> Self {
        Self {
            stream,
            decoder: Decoder::new(Limits::GREETING),
            met,
        }
    }

    fn run(mut self, tell: &Sender<Happening>) {
        let Some(nonce) = self.greet(tell) else {
            return;
        };
        let reason = loop {
            let happening = match self.next() {
                Ok(Some(Frame::Message(payload))) => match frame::parse(&payload) {
                    Ok(message) => Happening::Said {
                        nonce: nonce.clone(),
                        message,
                    },
                    Err(error) => break Some(error.to_string()),
                },
                Ok(Some(Frame::Log(bytes))) => Happening::Logged {
                    nonce: nonce.clone(),
                    bytes,
                },
                Ok(Some(Frame::Data(_))) => break Some("an agent sends no data".to_owned()),
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            };
            if tell.send(happening).is_err() {
                return;
            }
        };
        // An agent that cannot be understood is ended: its lifeline goes.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = tell.send(Happening::Closed { nonce, reason });
    }

    fn greet(&mut self, tell: &Sender<Happening>) -> Option<String> {
        let Ok(Some(Frame::Message(payload))) = self.next() else {
            return None;
        };
        let Ok(FromAgent::Hello {
            version,
            nonce,
            instance,
            ..
        }) = frame::parse(&payload)
        else {
            return Self::greet_unfit(&payload, tell);
        };
        if version != tunnel::VERSION {
            let _ = tell.send(Happening::WrongVersion);
            return None;
        }
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        if !met.insert(nonce.clone()) {
            return None;
        }
        drop(met);
        self.decoder.limit(Limits::TUNNEL);
        let mut speaker = Speaker {
            stream: self.stream.try_clone().ok()?,
        };
        speaker
            .say(&ToAgent::Welcome {
                version: tunnel::VERSION,
            })
            .ok()?;
        tell.send(Happening::Connected {
            nonce: nonce.clone(),
            instance,
            speaker,
        })
        .ok()?;
        Some(nonce)
    }

    /// An agent that cannot open its store says so in place of a hello.
    fn greet_unfit(payload: &[u8], tell: &Sender<Happening>) -> Option<String> {
        if let Ok(message @ FromAgent::Unfit { .. }) = frame::parse(payload) {
            let _ = tell.send(Happening::Said {
                nonce: String::new(),
                message,
            });
        }
        None
    }

    /// A stream that breaks has ended: who is killed with something unread resets it.
    fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            if matches!(self.decoder.read(&mut self.stream), Ok(0) | Err(_)) {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn an_agent_that_dies_with_something_unread_has_only_closed_its_end() {
        let place = tempfile::tempdir().unwrap();
        let (tell, heard) = channel();
        let _listening = Listening::start(place.path().join("tunnel"), tell).unwrap();
        let mut agent = UnixStream::connect(place.path().join("tunnel")).unwrap();
        let hello = FromAgent::Hello {
            version: tunnel::VERSION,
            nonce: "n".to_owned(),
            store: String::new(),
            instance: String::new(),
        };
        agent.write_all(&encode(&Frame::message(&hello))).unwrap();
        let connected = heard.recv().unwrap();
        assert!(
            matches!(connected, Happening::Connected { .. }),
            "{connected:?}"
        );
        // The welcome is not read.
        drop(agent);
        let closed = heard.recv().unwrap();
        assert!(
            matches!(closed, Happening::Closed { reason: None, .. }),
            "{closed:?}"
        );
    }
}
