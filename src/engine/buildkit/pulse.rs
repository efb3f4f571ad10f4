//! Whether a daemon still answers. One that is frozen keeps its connections and says nothing: whoever
//! waits for its ops would wait for ever.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::buildkit::Daemon;
use crate::engine::EngineEvent;

/// How long nothing is asked after an answer.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take before the user is told.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much longer it may take then.
const MORE: Duration = Duration::from_secs(20);

/// Asks again and again; returns why the daemon counts as lost.
pub(super) async fn lost(daemon: &Daemon, tell: &impl Fn(EngineEvent)) -> String {
    loop {
        sleep(PAUSE).await;
        let mut answer = pin!(daemon.answer());
        if timeout(PATIENCE, &mut answer).await.is_ok() {
            continue;
        }
        tell(EngineEvent::Silent {
            silent: PATIENCE,
            longest: PATIENCE + MORE,
        });
        if timeout(MORE, answer).await.is_err() {
            let seconds = (PATIENCE + MORE).as_secs();
            return format!("the daemon has not answered for {seconds} s");
        }
    }
}
