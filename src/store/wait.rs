//! Waiting for a lock: who is told what, and when it has been long enough.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::holders::{Holder, holder};

/// How long it is waited in silence: most locks are free again by then.
const SILENCE: Duration = Duration::from_secs(2);

/// Somebody waits for a lock, or for one after the other.
#[derive(Debug)]
pub struct Wait {
    limit: Option<Duration>,
    at: Option<At>,
}

/// The lock that is waited for now.
#[derive(Debug)]
struct At {
    lock: PathBuf,
    since: Instant,
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
    /// For this long for each lock; without a limit for ever.
    pub fn new(limit: Option<Duration>) -> Self {
        Self { limit, at: None }
    }

    /// To be asked again and again while the lock is held.
    pub fn look(&mut self, lock: &Path) -> Notice {
        if self.at.as_ref().is_none_or(|at| at.lock != lock) {
            self.at = Some(At::now(lock));
        }
        let at = self.at.as_mut().expect("it is set");
        let elapsed = at.since.elapsed();
        if self.limit.is_some_and(|limit| elapsed >= limit) {
            return Notice::GiveUp(held(lock));
        }
        if at.told || elapsed < SILENCE {
            return Notice::Quiet;
        }
        at.told = true;
        Notice::Tell(held(lock))
    }
}

impl At {
    fn now(lock: &Path) -> Self {
        Self {
            lock: lock.to_owned(),
            since: Instant::now(),
            told: false,
        }
    }
}

fn held(lock: &Path) -> Held {
    Held {
        lock: lock.to_owned(),
        holder: holder(lock),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "/none/gc.lock";

    fn waiting(seconds: u64, limit: Option<u64>) -> Wait {
        let mut wait = Wait::new(limit.map(Duration::from_secs));
        let mut at = At::now(Path::new(LOCK));
        let earlier = at.since.checked_sub(Duration::from_secs(seconds));
        at.since = earlier.unwrap_or(at.since);
        wait.at = Some(at);
        wait
    }

    #[test]
    fn tells_once_and_gives_up_in_time() {
        let look = |wait: &mut Wait| wait.look(Path::new(LOCK));
        assert_eq!(look(&mut waiting(1, None)), Notice::Quiet);
        let mut long = waiting(3, Some(60));
        let Notice::Tell(held) = look(&mut long) else {
            panic!("nothing is told")
        };
        let text = "`/none/gc.lock` is locked by a process that cannot be seen from here";
        assert_eq!(held.to_string(), text);
        assert_eq!(look(&mut long), Notice::Quiet);
        assert!(matches!(
            look(&mut waiting(61, Some(60))),
            Notice::GiveUp(_)
        ));
        assert!(matches!(look(&mut waiting(1, Some(0))), Notice::GiveUp(_)));
    }

    #[test]
    fn each_lock_has_its_own_time() {
        let mut wait = waiting(61, Some(60));
        assert_eq!(wait.look(Path::new("/none/big-lock")), Notice::Quiet);
    }
}
