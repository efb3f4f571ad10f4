//! Waiting for a lock: who is told what, and when it has been long enough.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::holders::{Holder, holder};

/// How long it is waited in silence: most locks are free again by then.
const SILENCE: Duration = Duration::from_secs(2);

/// Somebody waits for a lock, from now on.
#[derive(Debug)]
pub struct Wait {
    lock: PathBuf,
    since: Instant,
    limit: Option<Duration>,
    told: bool,
}

/// A lock that another program holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The file that is locked.
    pub lock: PathBuf,
    /// Who locked it, if that can be seen.
    pub holder: Option<Holder>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is locked by ", self.lock.display())?;
        match &self.holder {
            Some(holder) => holder.fmt(f),
            None => f.write_str("a process that cannot be seen from here"),
        }
    }
}

impl std::error::Error for Held {}

/// What is to be done about a wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// Nothing yet, or nothing new.
    Quiet,
    /// Say so, once.
    Tell(Held),
    /// It has been too long.
    GiveUp(Held),
}

impl Wait {
    /// For a lock, and for this long; without a limit for ever.
    pub fn new(lock: &Path, limit: Option<Duration>) -> Self {
        Self {
            lock: lock.to_owned(),
            since: Instant::now(),
            limit,
            told: false,
        }
    }

    /// To be asked again and again while the lock is held.
    pub fn look(&mut self) -> Notice {
        let elapsed = self.since.elapsed();
        if self.limit.is_some_and(|limit| elapsed >= limit) {
            return Notice::GiveUp(self.held());
        }
        if self.told || elapsed < SILENCE {
            return Notice::Quiet;
        }
        self.told = true;
        Notice::Tell(self.held())
    }

    fn held(&self) -> Held {
        Held {
            lock: self.lock.clone(),
            holder: holder(&self.lock),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(seconds: u64, limit: Option<u64>) -> Wait {
        let mut wait = Wait::new(Path::new("/none/gc.lock"), limit.map(Duration::from_secs));
        let now = Instant::now();
        wait.since = now.checked_sub(Duration::from_secs(seconds)).unwrap_or(now);
        wait
    }

    #[test]
    fn tells_once_and_gives_up_in_time() {
        assert_eq!(waiting(1, None).look(), Notice::Quiet);
        let mut long = waiting(3, Some(60));
        let Notice::Tell(held) = long.look() else {
            panic!("nothing is told")
        };
        let text = "`/none/gc.lock` is locked by a process that cannot be seen from here";
        assert_eq!(held.to_string(), text);
        assert_eq!(long.look(), Notice::Quiet);
        assert!(matches!(waiting(61, Some(60)).look(), Notice::GiveUp(_)));
        assert!(matches!(waiting(1, Some(0)).look(), Notice::GiveUp(_)));
    }
}
