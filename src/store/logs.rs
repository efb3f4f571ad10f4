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
    encoder: BzEncoder<fs_err::File>,
    place: PathBuf,
}

impl LogWriter {
    /// Begins the log of a derivation.
    pub fn create(dir: &NixDir, drv: &StorePath) -> Result<Self, Error> {
        let place = place(dir, drv);
        if let Some(parent) = place.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let file = fs_err::File::create(&place)?;
        Ok(Self {
            encoder: BzEncoder::new(file, Compression::best()),
            place,
        })
    }

    /// Where the log is.
    pub fn place(&self) -> &std::path::Path {
        &self.place
    }

    /// Ends the log; also of a silent build it is a valid file.
    pub fn finish(self) -> Result<(), Error> {
        self.encoder.finish()?;
        Ok(())
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
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
