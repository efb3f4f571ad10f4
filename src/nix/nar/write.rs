//! Writing: calls in the order of the tree become the one valid archive.

use std::io::{Read, Write};

use super::{Error, MAGIC, MAX_DEPTH_WRITE, is_name, is_target, padding};

/// How much of a file is held at once.
const CHUNK: usize = 128 * 1024;

/// Writes one archive, node by node.
///
/// A tree is one call of [`regular`](Self::regular), [`symlink`](Self::symlink), or
/// [`directory`](Self::directory) followed by [`entry`](Self::entry) and a node for each child, in
/// byte order of the names, and [`end_directory`](Self::end_directory).
///
/// The caller keeps to that grammar (it is code, not input); names, order, targets and depth come
/// from a tree, and are errors.
pub struct Writer<W> {
    out: W,
    offset: u64,
    directories: Vec<Option<Vec<u8>>>,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Result<Self, Error> {
        let mut writer = Self {
            out,
            offset: 0,
            directories: Vec::new(),
            buffer: Vec::new(),
        };
        writer.strings(&[MAGIC])?;
        Ok(writer)
    }

    /// Writes a file of exactly `size` bytes from `contents`.
    pub fn regular(
        &mut self,
        executable: bool,
        size: u64,
        contents: &mut impl Read,
    ) -> Result<(), Error> {
        self.strings(&[b"(", b"type", b"regular"])?;
        if executable {
            self.strings(&[b"executable", b""])?;
        }
        self.strings(&[b"contents"])?;
        self.raw(&size.to_le_bytes())?;
        self.contents(size, contents)?;
        self.raw(&[0; 8][..padding(size)])?;
        self.end_node()
    }

    fn contents(&mut self, size: u64, contents: &mut impl Read) -> Result<(), Error> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
            let got = match contents.read(&mut buffer[..want]) {
                Ok(0) => return Err(Error::Size { announced: size }),
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(Error::Read {
                        offset: self.offset,
                        source,
                    });
                }
            };
            self.raw(&buffer[..got])?;
            left -= got as u64;
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Writes a symbolic link.
    pub fn symlink(&mut self, target: &[u8]) -> Result<(), Error> {
        if !is_target(target) {
            return Err(Error::Target {
                offset: self.offset,
            });
        }
        self.strings(&[b"(", b"type", b"symlink", b"target", target])?;
        self.end_node()
    }

    /// Begins a directory.
    pub fn directory(&mut self) -> Result<(), Error> {
        if self.directories.len() >= MAX_DEPTH_WRITE {
            return Err(Error::Depth {
                offset: self.offset,
                limit: MAX_DEPTH_WRITE,
            });
        }
        self.directories.push(None);
        self.strings(&[b"(", b"type", b"directory"])
    }

    /// Names the node that is written next.
    pub fn entry(&mut self, name: &[u8]) -> Result<(), Error> {
        let offset = self.offset;
        let shown = || name.escape_ascii().to_string();
        if !is_name(name) {
            return Err(Error::Name {
                offset,
                name: shown(),
            });
        }
        let last = self
            .directories
            .last_mut()
            .expect("an entry is named inside a directory");
        if last.as_deref().is_some_and(|last| last >= name) {
            return Err(Error::Order {
                offset,
                name: shown(),
            });
        }
        *last = Some(name.to_vec());
        self.strings(&[b"entry", b"(", b"name", name, b"node"])
    }

    /// Ends the directory begun last.
    pub fn end_directory(&mut self) -> Result<(), Error> {
        self.directories
            .pop()
            .expect("a directory ends after it began");
        self.end_node()
    }

    /// Returns the destination; the whole archive has been written to it.
    pub fn finish(self) -> W {
        debug_assert!(
            self.directories.is_empty(),
            "every directory has been ended"
        );
        self.out
    }

    /// Closes a node, and the entry it belongs to.
    fn end_node(&mut self) -> Result<(), Error> {
        self.strings(&[b")"])?;
        if self.directories.is_empty() {
            Ok(())
        } else {
            self.strings(&[b")"])
        }
    }

    fn strings(&mut self, strings: &[&[u8]]) -> Result<(), Error> {
        for bytes in strings {
            self.raw(&(bytes.len() as u64).to_le_bytes())?;
            self.raw(bytes)?;
            self.raw(&[0; 8][..padding(bytes.len() as u64)])?;
        }
        Ok(())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let offset = self.offset;
        self.out
            .write_all(bytes)
            .map_err(|source| Error::Write { offset, source })?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}
