//! What the program in a container hangs on: connections from it that are held, and ended all at once.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A socket whose connections last as long as this, unless they are ended before.
#[derive(Debug)]
pub struct Lifeline {
    /// Its socket.
    pub socket: PathBuf,
    /// None once it has ended.
    held: Arc<Mutex<Option<Vec<UnixStream>>>>,
}

impl Lifeline {
    /// Begins, with a socket that is made.
    pub fn begin(socket: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let held = Arc::new(Mutex::new(Some(Vec::new())));
        let lifeline = Self {
            socket,
            held: Arc::clone(&held),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who comes too late is not held.
                if let Some(held) = &mut *held.lock().unwrap_or_else(PoisonError::into_inner) {
                    held.push(stream);
                }
            }
        });
        Ok(lifeline)
    }

    /// Ends all of it.
    pub fn end(&self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = None;
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn everybody_is_held_until_the_end_and_nobody_after_it() {
        let place = tempfile::tempdir().unwrap();
        let lifeline = Lifeline::begin(place.path().join("lifeline")).unwrap();
        let mut early = UnixStream::connect(&lifeline.socket).unwrap();
        let short = Some(Duration::from_millis(200));
        early.set_read_timeout(short).unwrap();
        let waits = early.read(&mut [0]).unwrap_err();
        assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
        lifeline.end();
        early.set_read_timeout(None).unwrap();
        assert_eq!(early.read(&mut [0]).unwrap(), 0);
        let mut late = UnixStream::connect(&lifeline.socket).unwrap();
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
    }
}
