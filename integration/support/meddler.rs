//! Somebody hostile in the tunnel: it passes frames between agents and conductor, and puts
//! something else in the place of some. A while after the first of these it ends that connection,
//! as whoever waits for what was left out would wait for ever.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pontoon::tunnel::{Decoder, Frame, Limits, encode};
use serde_json::Value;

/// How long a connection lasts after its first frame that is not as it was.
const GRACE: Duration = Duration::from_secs(2);

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Agent,
    Conductor,
}

/// A frame on its way.
pub(crate) struct Passing<'f> {
    /// Who said it.
    pub(crate) side: Side,
    /// Which connection of the run it is on; 0 is that of the store's agent.
    pub(crate) connection: usize,
    /// What it is.
    pub(crate) frame: &'f Frame,
}

impl Passing<'_> {
    /// What kind of message it is, with the side that says it: `agent hello`, `conductor data`.
    pub(crate) fn name(&self) -> String {
        let side = match self.side {
            Side::Agent => "agent",
            Side::Conductor => "conductor",
        };
        let kind = match self.frame {
            Frame::Log(_) => "log".to_owned(),
            Frame::Data(_) => "data".to_owned(),
            Frame::Message(_) => self.message()["say"].as_str().unwrap_or("?").to_owned(),
        };
        format!("{side} {kind}")
    }

    /// The message, as JSON.
    pub(crate) fn message(&self) -> Value {
        match self.frame {
            Frame::Message(payload) => serde_json::from_slice(payload).unwrap_or_default(),
            Frame::Log(_) | Frame::Data(_) => Value::Null,
        }
    }
}

/// What comes in the place of a frame; none is the frame itself.
pub(crate) type Meddle = dyn Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync;

/// It stands in the tunnel until the test ends.
pub(crate) struct Meddler {
    front: PathBuf,
    back: PathBuf,
    meddled: Arc<AtomicUsize>,
}

impl Meddler {
    /// Listens in a directory that has no other.
    pub(crate) fn start(
        directory: &Path,
        meddle: impl Fn(&Passing<'_>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (front, back) = (directory.join("front"), directory.join("back"));
        let listener = UnixListener::bind(&front).unwrap();
        // Agents are other users.
        fs_err::set_permissions(&front, std::fs::Permissions::from_mode(0o777)).unwrap();
        let meddled = Arc::new(AtomicUsize::new(0));
        let (target, count) = (back.clone(), meddled.clone());
        let meddle: Arc<Meddle> = Arc::new(meddle);
        std::thread::spawn(move || {
            for (connection, agent) in listener.incoming().enumerate() {
                let Ok(conductor) = UnixStream::connect(&target) else {
                    continue;
                };
                let ends = [agent.unwrap(), conductor];
                carry(&ends, connection, &meddle, &count);
            }
        });
        Self {
            front,
            back,
            meddled,
        }
    }

    /// What `PONTOON_TUNNEL_PROXY` is to be.
    pub(crate) fn variable(&self) -> String {
        format!("{}:{}", self.front.display(), self.back.display())
    }

    /// How many frames were replaced.
    pub(crate) fn meddled(&self) -> usize {
        self.meddled.load(Ordering::Relaxed)
    }
}

/// Passes frames both ways, each on a thread of its own.
fn carry(
    [agent, conductor]: &[UnixStream; 2],
    connection: usize,
    meddle: &Arc<Meddle>,
    meddled: &Arc<AtomicUsize>,
) {
    let ending = Arc::new(AtomicBool::new(false));
    let ways = [
        (Side::Agent, agent, conductor),
        (Side::Conductor, conductor, agent),
    ];
    for (side, from, to) in ways {
        let mut way = Way {
            side,
            connection,
            from: from.try_clone().unwrap(),
            to: to.try_clone().unwrap(),
            ending: ending.clone(),
            meddled: meddled.clone(),
        };
        let meddle = meddle.clone();
        std::thread::spawn(move || {
            way.pass(&*meddle);
            way.end();
        });
    }
}

struct Way {
    side: Side,
    connection: usize,
    from: UnixStream,
    to: UnixStream,
    ending: Arc<AtomicBool>,
    meddled: Arc<AtomicUsize>,
}

impl Way {
    /// Passes frames until either end is gone.
    fn pass(&mut self, meddle: &Meddle) -> Option<()> {
        let mut decoder = Decoder::new(Limits::PAIR);
        let mut buffer = vec![0; 64 << 10];
        loop {
            while let Some(frame) = decoder.next_frame().ok()? {
                let passing = Passing {
                    side: self.side,
                    connection: self.connection,
                    frame: &frame,
                };
                let instead = meddle(&passing);
                if instead.is_some() {
                    self.meddled.fetch_add(1, Ordering::Relaxed);
                    self.end_soon();
                }
                let bytes = instead.unwrap_or_else(|| encode(&frame));
                self.to.write_all(&bytes).ok()?;
            }
            let count = self
                .from
                .read(&mut buffer)
                .ok()
                .filter(|count| *count > 0)?;
            decoder.push(&buffer[..count]);
        }
    }

    fn end_soon(&self) {
        if self.ending.swap(true, Ordering::Relaxed) {
            return;
        }
        let ends = [&self.from, &self.to].map(|stream| stream.try_clone().unwrap());
        std::thread::spawn(move || {
            std::thread::sleep(GRACE);
            for end in ends {
                // It may be closed already.
                end.shutdown(Shutdown::Both).ok();
            }
        });
    }

    fn end(&self) {
        for end in [&self.from, &self.to] {
            end.shutdown(Shutdown::Both).ok();
        }
    }
}
