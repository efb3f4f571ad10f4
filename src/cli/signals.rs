//! SIGINT and SIGTERM: the first asks, the second ends at once.
//!
//! Both are counted by handlers that only touch atomics, so nothing here needs a thread and the
//! helper process can be started at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::error::{Error, Kind};

/// Which signal asked the command to stop, if one did.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    signal: Arc<AtomicUsize>,
}

impl Asked {
    /// The flag: 0, or the number of the last signal. What runs long looks at it.
    pub fn flag(&self) -> Arc<AtomicUsize> {
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
        self.signal().map_or(Ok(()), |signal| Err(Error::signal(signal)))
    }
}

/// Begins to watch for both signals.
///
/// # Errors
///
/// If the kernel refuses handlers.
pub fn watch() -> Result<Asked, Error> {
    let asked = Asked::default();
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let number = usize::try_from(signal).expect("signal numbers are positive");
        let code = 128 + signal;
        // Handlers run in this order: the first signal finds `again` unset, arms it, and returns.
        flag::register_conditional_shutdown(signal, code, Arc::clone(&again))
            .and_then(|_| flag::register(signal, Arc::clone(&again)))
            .and_then(|_| flag::register_usize(signal, asked.flag(), number))
            .map_err(|source| Error::new(Kind::Other, source))?;
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sets_the_flag_and_its_exit_code() {
        let asked = watch().unwrap();
        assert!(asked.check().is_ok());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert_eq!(asked.signal(), Some(15));
        assert_eq!(asked.check().unwrap_err().kind.code(), 143);
    }
}
