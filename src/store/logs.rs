//! Build logs at Nix's place: `drvs/<first two characters>/<rest>.bz2` (Nix spec §4.11).

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;

use bzip2::Compression;
use bzip2::read::MultiBzDecoder;
use bzip2::write::BzEncoder;

use super::{Error, NixDir};
use crate::nix::StorePath;

/// Where the log of a derivation is written.
pub fn place(dir: &NixDir, drv: &StorePath) -> PathBuf {
    let name = drv.to_basename();
    dir.logs()
        .join("drvs")
        .join(&name[..2])
        .join(format!("{}.bz2", &name[2..]))
}

/// Writes one build's log, raw bytes.
///
/// The file exists from the start and replaces an older build's. A log that was never
/// [finished](Self::finish) is ended when the writer is dropped, as far as that works.
pub struct LogWriter {
    output: Output,
    place: PathBuf,
}

/// A silent build is not worth the megabytes that a compressor takes.
enum Output {
    Silent(fs_err::File),
    Packed(BzEncoder<fs_err::File>),
    /// Only while one becomes the other, or the end was written.
    Ended,
}

/// What a compressor makes of nothing.
const EMPTY: &[u8] = b"BZh9\x17rE8P\x90\0\0\0\0";

impl LogWriter {
    /// Begins the log of a derivation.
    pub fn create(dir: &NixDir, drv: &StorePath) -> Result<Self, Error> {
        let place = place(dir, drv);
        if let Some(parent) = place.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let file = fs_err::File::create(&place)?;
        Ok(Self {
            output: Output::Silent(file),
            place,
        })
    }

    /// Where the log is.
    pub fn place(&self) -> &std::path::Path {
        &self.place
    }

    /// Ends the log; also of a silent build it is a valid file.
    pub fn finish(mut self) -> Result<(), Error> {
        self.end().map_err(Error::Io)
    }

    fn end(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.output, Output::Ended) {
            Output::Silent(mut file) => file.write_all(EMPTY),
            Output::Packed(encoder) => encoder.finish().map(drop),
            Output::Ended => Ok(()),
        }
    }

    fn encoder(&mut self) -> io::Result<&mut BzEncoder<fs_err::File>> {
        if let Output::Silent(_) = self.output
            && let Output::Silent(file) = std::mem::replace(&mut self.output, Output::Ended)
        {
            self.output = Output::Packed(BzEncoder::new(file, Compression::best()));
        }
        match &mut self.output {
            Output::Packed(encoder) => Ok(encoder),
            Output::Silent(_) | Output::Ended => Err(ErrorKind::WriteZero.into()),
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Packed(encoder) => encoder.flush(),
            Output::Silent(_) | Output::Ended => Ok(()),
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // As far as that works: nobody is left to be told.
        let _ = self.end();
    }
}

/// Opens the log of a derivation, whichever of Nix's names and forms it has; nothing if there is
/// none. A build that was killed leaves a log that ends with an error.
pub fn open(dir: &NixDir, drv: &StorePath) -> Result<Option<Box<dyn Read>>, Error> {
    let name = drv.to_basename();
    let drvs = dir.logs().join("drvs");
    for stem in [drvs.join(&name[..2]).join(&name[2..]), drvs.join(&name)] {
        let mut packed = stem.clone().into_os_string();
        packed.push(".bz2");
        if let Some(file) = open_file(packed.into())? {
            return Ok(Some(Box::new(MultiBzDecoder::new(file))));
        }
        if let Some(file) = open_file(stem)? {
            return Ok(Some(Box::new(file)));
        }
    }
    Ok(None)
}

fn open_file(path: PathBuf) -> Result<Option<fs_err::File>, Error> {
    match fs_err::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
