//! SIGINT and SIGTERM: the first asks, the second ends at once.
//!
//! Both are counted by handlers that only touch atomics, so nothing here needs a thread and the
//! helper process can be started at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

use super::error::{Error, Kind};

/// Which signal asked the command to stop, if one did.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    signal: Arc<AtomicUsize>,
    cancel: Arc<AtomicBool>,
}

impl Asked {
    /// The flag that everything that runs long looks at.
    pub fn cancel(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancel)
    }

    /// The signal's number as it comes, 0 before.
    pub fn number(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.signal)
    }

    /// The signal's number.
    pub fn signal(&self) -> Option<u8> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(signal).ok(),
        }
    }

    /// An error if a signal has come.
    pub fn check(&self) -> Result<(), Error> {
        self.signal()
            .map_or(Ok(()), |signal| Err(Error::signal(signal)))
    }
}

/// Begins to watch for both signals.
///
/// # Errors
///
/// If the kernel refuses handlers.
pub fn watch() -> Result<Asked, Error> {
    let asked = Asked::default();
    for signal in [SIGINT, SIGTERM] {
        let number = usize::try_from(signal).expect("signal numbers are positive");
        let code = 128 + signal;
        // Handlers run in this order: the first signal finds `cancel` unset, sets it, and returns.
        flag::register_conditional_shutdown(signal, code, asked.cancel())
            .and_then(|_| flag::register_usize(signal, Arc::clone(&asked.signal), number))
            .and_then(|_| flag::register(signal, asked.cancel()))
            .map_err(|source| Error::new(Kind::Other, source))?;
    }
    Ok(asked)
}

/// Lets the signals that end a command pass by: for a process that lives and dies with another one,
/// which they reach too.
///
/// # Errors
///
/// If the kernel refuses handlers.
pub fn endure() -> Result<(), Error> {
    for signal in [SIGINT, SIGTERM, SIGHUP, SIGQUIT] {
        flag::register(signal, Arc::default()).map_err(|source| Error::new(Kind::Other, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sets_the_flag_and_its_exit_code() {
        let asked = watch().unwrap();
        assert!(asked.check().is_ok());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(asked.cancel().load(Ordering::SeqCst));
        assert_eq!(asked.signal(), Some(15));
        assert_eq!(asked.check().unwrap_err().kind.code(), 143);
    }
}
