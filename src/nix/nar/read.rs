//! Reading: one valid archive becomes events; anything else an error with its place.

use std::io::{self, Read};

use super::{Error, MAGIC, MAX_DEPTH_READ, MAX_NAME, MAX_TARGET, is_name, is_target, padding};

/// What comes next in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file; its bytes are then taken with [`Reader::read_contents`], or skipped.
    Regular {
        /// Whether its owner may execute it.
        executable: bool,
        /// How many bytes it claims to have. A claim: nothing may be allocated by it.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A directory begins.
    Directory,
    /// The name of the node that comes next.
    Entry {
        /// A valid name, greater than the one before it in this directory.
        name: Vec<u8>,
    },
    /// The directory that began last ends.
    EndDirectory,
}

/// Where the reader stands.
enum State {
    Start,
    Node,
    Contents { left: u64, padding: usize },
    Entries,
    End,
}

/// Reads one archive strictly, as a sequence of [`Event`]s.
///
/// It reads no byte beyond the archive, so archives may follow each other in one stream. The source
/// is read in small pieces: give it a buffered one.
pub struct Reader<R> {
    input: R,
    offset: u64,
    state: State,
    directories: Vec<Option<Vec<u8>>>,
}

impl<R: Read> Reader<R> {
    /// Reads an archive from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            state: State::Start,
            directories: Vec::new(),
        }
    }

    /// Returns the next event; nothing after the archive's end. Contents not taken are skipped.
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        loop {
            match self.state {
                State::Start => {
                    self.token(MAGIC, "`nix-archive-1`")?;
                    self.state = State::Node;
                }
                State::Contents { .. } => {
                    let mut sink = [0; 8192];
                    while self.read_contents(&mut sink)? > 0 {}
                }
                State::Node => return self.node().map(Some),
                State::Entries => return self.entry_or_end().map(Some),
                State::End => return Ok(None),
            }
        }
    }

    /// Reads bytes of the file last announced; 0 at its end.
    pub fn read_contents(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let State::Contents { left, padding } = self.state else {
            return Ok(0);
        };
        if left == 0 {
            self.zeros(padding)?;
            self.end_node()?;
            return Ok(0);
        }
        let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = loop {
            match self.input.read(&mut buffer[..want]) {
                Ok(0) if want > 0 => {
                    return Err(Error::Truncated {
                        offset: self.offset,
                    });
                }
                Ok(got) => break got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read {
                        offset: self.offset,
                        source,
                    });
                }
            }
        };
        self.offset += got as u64;
        self.state = State::Contents {
            left: left - got as u64,
            padding,
        };
        Ok(got)
    }

    /// Returns how many bytes have been read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Checks that the source ends where the archive ended.
    pub fn expect_end(&mut self) -> Result<(), Error> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    return Err(Error::Trailing {
                        offset: self.offset,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Read {
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
    }

    /// Returns the source, at the first byte after what has been read.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn node(&mut self) -> Result<Event, Error> {
        self.token(b"(", "`(`")?;
        self.token(b"type", "`type`")?;
        let offset = self.offset;
        match self.string(16, "file type")?.as_slice() {
            b"regular" => self.regular(),
            b"symlink" => self.symlink(),
            b"directory" => {
                if self.directories.len() >= MAX_DEPTH_READ {
                    return Err(Error::Depth {
                        offset,
                        limit: MAX_DEPTH_READ,
                    });
                }
                self.directories.push(None);
                self.state = State::Entries;
                Ok(Event::Directory)
            }
            _ => Err(Error::Unexpected {
                offset,
                expected: "file type",
            }),
        }
    }

    fn regular(&mut self) -> Result<Event, Error> {
        let offset = self.offset;
        let mut word = self.string(16, "`contents`")?;
        let executable = word == b"executable";
        if executable {
            self.token(b"", "empty string")?;
            word = self.string(16, "`contents`")?;
        }
        if word != b"contents" {
            return Err(Error::Unexpected {
                offset,
                expected: "`contents`",
            });
        }
        let size = self.integer()?;
        self.state = State::Contents {
            left: size,
            padding: padding(size),
        };
        Ok(Event::Regular { executable, size })
    }

    fn symlink(&mut self) -> Result<Event, Error> {
        self.token(b"target", "`target`")?;
        let offset = self.offset;
        let target = self.string(MAX_TARGET, "link target of at most 4095 bytes")?;
        if !is_target(&target) {
            return Err(Error::Target { offset });
        }
        self.end_node()?;
        Ok(Event::Symlink { target })
    }

    fn entry_or_end(&mut self) -> Result<Event, Error> {
        let offset = self.offset;
        match self.string(16, "`entry` or `)`")?.as_slice() {
            b")" => {
                self.directories.pop();
                self.close_entry()?;
                Ok(Event::EndDirectory)
            }
            b"entry" => self.entry(),
            _ => Err(Error::Unexpected {
                offset,
                expected: "`entry` or `)`",
            }),
        }
    }

    fn entry(&mut self) -> Result<Event, Error> {
        self.token(b"(", "`(`")?;
        self.token(b"name", "`name`")?;
        let offset = self.offset;
        let name = self.string(MAX_NAME, "file name of at most 255 bytes")?;
        let shown = || name.escape_ascii().to_string();
        if !is_name(&name) {
            return Err(Error::Name {
                offset,
                name: shown(),
            });
        }
        let last = self
            .directories
            .last_mut()
            .expect("entries are read inside a directory");
        if last.as_ref().is_some_and(|last| *last >= name) {
            return Err(Error::Order {
                offset,
                name: shown(),
            });
        }
        *last = Some(name.clone());
        self.token(b"node", "`node`")?;
        self.state = State::Node;
        Ok(Event::Entry { name })
    }

    /// Reads the end of a file or link.
    fn end_node(&mut self) -> Result<(), Error> {
        self.token(b")", "`)`")?;
        self.close_entry()
    }

    /// Reads the end of the entry that the node just ended belongs to, if it belongs to one.
    fn close_entry(&mut self) -> Result<(), Error> {
        if self.directories.is_empty() {
            self.state = State::End;
        } else {
            self.token(b")", "`)`")?;
            self.state = State::Entries;
        }
        Ok(())
    }

    fn token(&mut self, token: &[u8], expected: &'static str) -> Result<(), Error> {
        let offset = self.offset;
        if self.string(token.len(), expected)? == token {
            Ok(())
        } else {
            Err(Error::Unexpected { offset, expected })
        }
    }

    /// Reads a string of at most `limit` bytes, a small number.
    fn string(&mut self, limit: usize, expected: &'static str) -> Result<Vec<u8>, Error> {
        let offset = self.offset;
        let length = self.integer()?;
        let Some(length) = usize::try_from(length)
            .ok()
            .filter(|length| *length <= limit)
        else {
            return Err(Error::Unexpected { offset, expected });
        };
        let mut bytes = vec![0; length];
        self.exact(&mut bytes)?;
        self.zeros(padding(length as u64))?;
        Ok(bytes)
    }

    fn integer(&mut self) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        self.exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn zeros(&mut self, count: usize) -> Result<(), Error> {
        let offset = self.offset;
        let mut bytes = [0; 8];
        self.exact(&mut bytes[..count])?;
        if bytes == [0; 8] {
            Ok(())
        } else {
            Err(Error::Padding { offset })
        }
    }

    fn exact(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        let offset = self.offset;
        self.input
            .read_exact(bytes)
            .map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => Error::Truncated { offset },
                _ => Error::Read { offset, source },
            })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
