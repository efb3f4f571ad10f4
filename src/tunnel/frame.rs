//! Frames: cutting a byte stream into messages, log bytes and data, and back.

use std::io::{ErrorKind, Read};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame accepted, kind and payload together: lists of a hundred thousand store paths
/// fit, a hostile length does not make us allocate.
pub const MAX_FRAME: usize = 64 << 20;

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
    /// The length is zero or beyond [`MAX_FRAME`].
    #[error("tunnel frame of {length} bytes is out of bounds")]
    Length {
        /// What the stream says.
        length: usize,
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

/// Collects bytes as they come and yields whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
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
        if length == 0 || length > MAX_FRAME {
            return Err(FrameError::Length { length });
        }
        // The kind is checked as soon as it is there: a stream of noise fails at once instead of
        // being collected up to its claimed length.
        if let Some(kind) = rest.get(4)
            && *kind > DATA
        {
            return Err(FrameError::Kind { kind: *kind });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        (0..3, bytes).prop_map(|(kind, bytes)| match kind {
            0 => Frame::Message(bytes),
            1 => Frame::Log(bytes),
            _ => Frame::Data(bytes),
        })
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in proptest::collection::vec(frame(), 0..12),
            cuts in proptest::collection::vec(1_usize..50, 1..40),
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                decoder.push(head);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
                rest = tail;
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&noise);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn bytes_that_are_not_copied_are_the_same_frame() {
        let bytes = b"nix-archive-1".to_vec();
        let mut stream = data_head(bytes.len()).to_vec();
        stream.extend_from_slice(&bytes);
        assert_eq!(stream, encode(&Frame::Data(bytes)));
    }

    #[test]
    fn a_stream_longer_than_what_is_read_at_a_time_is_read_whole() {
        let frames = [Frame::Data(vec![7; 3 * READ]), Frame::Data(Vec::new())];
        let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
        let (mut rest, mut decoder) = (stream.as_slice(), Decoder::default());
        let mut seen = Vec::new();
        while decoder.read(&mut rest).unwrap() > 0 {
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame);
            }
        }
        assert_eq!(seen, frames);
    }

    #[test]
    fn rejects_a_frame_beyond_the_limit_before_it_comes() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(
            decoder.next_frame(),
            Err(FrameError::Length { .. })
        ));
    }

    #[test]
    fn rejects_an_unknown_kind_before_its_payload_comes() {
        let mut decoder = Decoder::default();
        decoder.push(&[200, 0, 0, 0, 9]);
        assert!(matches!(
            decoder.next_frame(),
            Err(FrameError::Kind { kind: 9 })
        ));
    }
}
