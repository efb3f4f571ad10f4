//! What a peer said first: enough to tell what it is, when it is not what we came for.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How much is kept.
const KEPT: usize = 256;

/// The first bytes that came.
#[derive(Debug, Clone, Default)]
pub struct Overheard {
    bytes: Arc<Mutex<Vec<u8>>>,
}

/// What a peer speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Speech {
    /// It ends the connection without a word.
    Nothing,
    /// HTTP/1.
    Http,
    /// HTTP/2.
    Http2,
    /// TLS, or it says that it wants to.
    Tls,
    /// Its first line.
    Words(String),
    /// Nothing that could be shown.
    Bytes,
}

impl Overheard {
    /// Listens in on a stream.
    pub fn on<S>(&self, stream: S) -> Tapped<S> {
        Tapped {
            stream,
            heard: self.clone(),
            room: KEPT,
        }
    }

    /// Says what was heard so far.
    pub fn speech(&self) -> Speech {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        classify(&bytes)
    }
}

fn classify(bytes: &[u8]) -> Speech {
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    match bytes {
        [] => Speech::Nothing,
        // An alert, or the start of a handshake, of any version.
        [0x15 | 0x16, 3, ..] => Speech::Tls,
        // A SETTINGS frame on stream 0, which is how every HTTP/2 server begins.
        [_, _, _, 4, _, 0, 0, 0, 0, ..] => Speech::Http2,
        _ if bytes.starts_with(b"HTTP/1.") && holds(b"HTTPS") => Speech::Tls,
        _ if bytes.starts_with(b"HTTP/1.") => Speech::Http,
        _ => {
            let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if text.is_empty() || text.chars().any(|c| c.is_control() || c == '\u{fffd}') {
                return Speech::Bytes;
            }
            Speech::Words(text.to_owned())
        }
    }
}

/// A stream that is listened in on.
#[derive(Debug)]
pub struct Tapped<S> {
    stream: S,
    heard: Overheard,
    room: usize,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.keep(&buffer.filled()[before..]);
        polled
    }
}

impl<S: AsyncRead + Unpin> Tapped<S> {
    fn keep(&mut self, new: &[u8]) {
        let count = new.len().min(self.room);
        if count > 0 {
            self.room -= count;
            let bytes = self.heard.bytes.lock();
            let mut bytes = bytes.unwrap_or_else(PoisonError::into_inner);
            bytes.extend_from_slice(&new[..count]);
        }
    }

    /// A peer that spoke and left makes writing fail before anybody has read what it said.
    fn told<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if matches!(written, Poll::Ready(Err(_))) {
            let mut bytes = [0; KEPT];
            let mut buffer = ReadBuf::new(&mut bytes);
            // Nothing to read is as good an answer.
            let _ = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            self.keep(buffer.filled());
        }
        written
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.told(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_peers_by_their_first_bytes() {
        let of = |bytes: &[u8]| classify(bytes);
        assert_eq!(of(b""), Speech::Nothing);
        assert_eq!(of(b"\x15\x03\x01\x00\x02\x02\x46"), Speech::Tls);
        let https =
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.";
        assert_eq!(of(https), Speech::Tls);
        assert_eq!(of(b"HTTP/1.1 505 HTTP Version"), Speech::Http);
        assert_eq!(
            of(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00"),
            Speech::Http2
        );
        let words = Speech::Words("220 mail ESMTP".to_owned());
        assert_eq!(of(b"220 mail ESMTP\r\nmore"), words);
        assert_eq!(of(b"\xff\xfb\x01"), Speech::Bytes);
    }
}
