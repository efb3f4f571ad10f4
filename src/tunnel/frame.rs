//! Frames: cutting a byte stream into messages, log bytes and data, and back.

use std::io::{ErrorKind, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame accepted, kind and payload together: lists of a hundred thousand store paths
/// fit, a hostile length does not make us allocate.
pub const MAX_FRAME: usize = 64 << 20;
/// The largest frame of a log or of data in the tunnel: both ends cut what they send below it.
pub const MAX_PIECE: usize = 1 << 20;
/// The largest frame before both ends have greeted: a stranger is not listened to for longer.
pub const MAX_GREETING: usize = 64 << 10;

/// How long the frames of a stream may be, kind and payload together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Those of messages.
    pub message: usize,
    /// Those of logs and data.
    pub piece: usize,
}

impl Limits {
    /// Between processes that started each other.
    pub const PAIR: Self = Self {
        message: MAX_FRAME,
        piece: MAX_FRAME,
    };
    /// In the tunnel, until the other end has greeted.
    pub const GREETING: Self = Self {
        message: MAX_GREETING,
        piece: MAX_GREETING,
    };
    /// In the tunnel, from then on.
    pub const TUNNEL: Self = Self {
        message: MAX_FRAME,
        piece: MAX_PIECE,
    };

    /// The limit of a kind that may not be known yet.
    fn of(self, kind: Option<u8>) -> usize {
        match kind {
            Some(MESSAGE) => self.message,
            Some(_) => self.piece,
            None => self.message.max(self.piece),
        }
    }
}

/// How much is read at a time.
const READ: usize = 64 << 10;
/// Length and kind.
const HEAD: usize = 5;
const MESSAGE: u8 = 0;
const LOG: u8 = 1;
const DATA: u8 = 2;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// JSON of a message, not parsed yet.
    Message(Vec<u8>),
    /// Bytes of a log.
    Log(Vec<u8>),
    /// Bytes of a NAR; empty ends it.
    Data(Vec<u8>),
}

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length is zero, or beyond the limit.
    #[error("tunnel frame of {length} bytes is out of bounds: at most {limit} are expected")]
    Length {
        /// What the stream says.
        length: usize,
        /// What the [`Limits`] say.
        limit: usize,
    },
    /// The kind is none of ours.
    #[error("tunnel frame of unknown kind {kind}")]
    Kind {
        /// What the stream says.
        kind: u8,
    },
    /// A message frame that is not the expected JSON.
    #[error("tunnel message is not understood: `{text}`")]
    Message {
        /// Its beginning.
        text: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Returns a frame as bytes.
///
/// # Panics
///
/// When the frame is longer than [`MAX_FRAME`]; callers cut data and logs far below it.
pub fn encode(frame: &Frame) -> Vec<u8> {
    let (kind, payload) = match frame {
        Frame::Message(payload) => (MESSAGE, payload),
        Frame::Log(payload) => (LOG, payload),
        Frame::Data(payload) => (DATA, payload),
    };
    let head = head(kind, payload.len());
    let mut bytes = Vec::with_capacity(head.len() + payload.len());
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(payload);
    bytes
}

/// Returns what comes before the bytes of a data frame, for whom they are too many to be copied.
///
/// # Panics
///
/// As [`encode`].
pub fn data_head(length: usize) -> [u8; HEAD] {
    head(DATA, length)
}

fn head(kind: u8, payload: usize) -> [u8; HEAD] {
    let length = payload + 1;
    assert!(
        length <= MAX_FRAME,
        "a frame of {length} bytes is beyond the protocol's limit"
    );
    let [a, b, c, d] = u32::try_from(length).expect("bounded above").to_le_bytes();
    [a, b, c, d, kind]
}

impl Frame {
    /// Wraps a message.
    pub fn message<M: Serialize>(message: &M) -> Self {
        Self::Message(serde_json::to_vec(message).expect("messages have string keys only"))
    }
}

/// Parses the JSON of a message frame.
pub fn parse<M: DeserializeOwned>(payload: &[u8]) -> Result<M, FrameError> {
    serde_json::from_slice(payload).map_err(|source| FrameError::Message {
        text: String::from_utf8_lossy(&payload[..payload.len().min(200)]).into_owned(),
        source,
    })
}

/// Collects bytes as they come and yields whole frames. It holds one frame and what came with its
/// end, never more than a frame's limit before that is refused.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// Begins a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// From the next frame on these limits hold.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes bytes from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads once from the stream; returns how many bytes came, 0 at its end.
    pub fn read(&mut self, stream: &mut impl Read) -> std::io::Result<usize> {
        self.make_room();
        let before = self.buffer.len();
        self.buffer.resize(before + READ, 0);
        let count = loop {
            match stream.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer
            .truncate(before + count.as_ref().copied().unwrap_or(0));
        count
    }

    /// Forgets what was taken out, if that is cheap.
    fn make_room(&mut self) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 1 << 20 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    /// Returns the next whole frame, or none until more bytes come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*head) as usize;
        // Length and kind are checked as soon as they are there: a stream of noise fails at once
        // instead of being collected up to its claimed length.
        let kind = rest.get(4).copied().filter(|_| length > 0);
        let limit = self.limits.of(kind);
        if length == 0 || length > limit {
            return Err(FrameError::Length { length, limit });
        }
        if let Some(kind) = kind
            && kind > DATA
        {
            return Err(FrameError::Kind { kind });
        }
        if rest.len() < 4 + length {
            return Ok(None);
        }
        let payload = rest[5..4 + length].to_vec();
        let frame = match rest[4] {
            MESSAGE => Frame::Message(payload),
            LOG => Frame::Log(payload),
            _ => Frame::Data(payload),
        };
        self.start += 4 + length;
        Ok(Some(frame))
    }
}
