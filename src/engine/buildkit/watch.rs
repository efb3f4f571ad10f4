//! What a daemon reports of the ops that are running: last words for whoever fails, and how far
//! images are.
//!
//! Ops are known by the digests of their definition, which are those the daemon counts: an op has
//! its nonce in its environment, so no two of a run are the same. What several of them share, as
//! the image below them, is told of for each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::buildkit::progress::{News, What};
use crate::engine::Fetch;
use crate::llb::{Digest, pb};

/// How much is kept of what an op writes.
const KEPT: usize = 16 << 10;
/// How much later than an op's end its last words may come.
const PATIENCE: Duration = Duration::from_millis(500);

/// The ops that are running.
#[derive(Debug)]
pub(super) struct Watch {
    ops: Mutex<BTreeMap<String, Seen>>,
    changed: Notify,
    fetches: UnboundedSender<Fetch>,
}

#[derive(Debug)]
struct Seen {
    digests: BTreeSet<String>,
    words: Vec<u8>,
    failed: bool,
}

/// An op that is watched, until this is dropped.
pub(super) struct Watched {
    watch: Arc<Watch>,
    nonce: String,
}

impl Watch {
    /// Watches nothing yet; what is fetched is told of to `fetches`.
    pub(super) fn new(fetches: UnboundedSender<Fetch>) -> Arc<Self> {
        Arc::new(Self {
            ops: Mutex::default(),
            changed: Notify::new(),
            fetches,
        })
    }

    /// Watches an op.
    pub(super) fn begin(self: &Arc<Self>, nonce: &str, definition: &[u8]) -> Watched {
        // The daemon will say what is wrong with one that cannot be read.
        let definition = pb::Definition::decode(definition).unwrap_or_default();
        let digests = definition.def.iter();
        let seen = Seen {
            digests: digests
                .map(|op| Digest::of(op).as_str().to_owned())
                .collect(),
            words: Vec::new(),
            failed: false,
        };
        self.ops().insert(nonce.to_owned(), seen);
        Watched {
            watch: Arc::clone(self),
            nonce: nonce.to_owned(),
        }
    }

    /// Hears of an op, perhaps of one that is not watched.
    pub(super) fn hear(&self, news: &News) {
        let mut ops = self.ops();
        let concerned = ops
            .iter_mut()
            .filter(|(_, seen)| seen.digests.contains(&news.vertex));
        for (nonce, seen) in concerned {
            match &news.what {
                What::Wrote(bytes) => {
                    seen.words.extend_from_slice(bytes);
                    let excess = seen.words.len().saturating_sub(KEPT);
                    seen.words.drain(..excess);
                }
                What::Part {
                    name,
                    done,
                    total,
                    complete,
                } => {
                    // Without listeners there is nobody to tell.
                    let _ = self.fetches.send(Fetch {
                        nonce: nonce.clone(),
                        what: name.clone(),
                        done: *done,
                        total: *total,
                        complete: *complete,
                    });
                }
                What::Ended { error } => {
                    if error.is_some() {
                        seen.failed = true;
                        self.changed.notify_waiters();
                    }
                }
            }
        }
    }

    fn ops(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// What an op wrote that is known to have failed.
    pub(super) async fn last_words(&self) -> String {
        let failed = async {
            loop {
                let changed = self.watch.changed.notified();
                let mut changed = std::pin::pin!(changed);
                changed.as_mut().enable();
                if self.seen(|seen| seen.failed) {
                    return;
                }
                changed.await;
            }
        };
        // What comes later is lost: the op's end is told of all the same.
        let _ = tokio::time::timeout(PATIENCE, failed).await;
        self.seen(|seen| String::from_utf8_lossy(&seen.words).trim().to_owned())
    }

    fn seen<T: Default>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        self.watch
            .ops()
            .get(&self.nonce)
            .map(read)
            .unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.ops().remove(&self.nonce);
    }
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test]
    async fn an_op_is_known_by_its_digest() {
        let (tell, mut fetched) = unbounded_channel();
        let watch = Watch::new(tell);
        let definition = pb::Definition {
            def: vec![b"op".to_vec(), b"terminal".to_vec()],
            ..pb::Definition::default()
        };
        let op = watch.begin("one", &definition.encode_to_vec());
        let digest = Digest::of(b"op").as_str().to_owned();
        let hear = |vertex: &str, what: What| {
            watch.hear(&News {
                vertex: vertex.to_owned(),
                what,
            });
        };
        hear("sha256:0", What::Wrote(Bytes::from_static(b"another's")));
        hear(&digest, What::Wrote(Bytes::from(vec![b'x'; 2 * KEPT])));
        hear(
            &digest,
            What::Wrote(Bytes::from_static(b" exec format error\n")),
        );
        let error = Some("exit code: 1".to_owned());
        hear(&digest, What::Ended { error });
        let words = op.last_words().await;
        assert!(words.ends_with("x exec format error"), "{words}");
        assert!(words.len() < KEPT);

        let part = |complete| What::Part {
            name: "layer".to_owned(),
            done: 1,
            total: 2,
            complete,
        };
        hear(&digest, part(false));
        assert_eq!(fetched.recv().await.unwrap().nonce, "one");
        drop(op);
        hear(&digest, part(true));
        assert!(fetched.try_recv().is_err());
    }
}
