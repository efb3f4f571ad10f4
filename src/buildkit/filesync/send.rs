//! The sender's side of the protocol.
//!
//! | we | the daemon |
//! |---|---|
//! | a STAT for everything, the n-th of which has the number n | REQ for a number, as soon as it has seen it |
//! | an empty STAT: that was all | |
//! | DATA for a number until an empty one | FIN when it has what it wants |
//! | FIN | |
//!
//! What cannot be read ends the transfer with ERR: a file that is silently empty would be worse.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use super::walk::{self, Entry, Failure};
use super::{Narrowing, Tree};
use crate::buildkit::protocol::fsutil::types::packet::PacketType;
use crate::buildkit::protocol::fsutil::types::{Packet, Stat};

/// How much of a file goes into one packet: the protocol's own limit.
const CHUNK: usize = 32 << 10;
/// How many files are read at once.
const READERS: usize = 4;

/// The daemon is not listening any more.
pub(super) struct Deaf;

/// The way to the daemon, from threads that may wait.
#[derive(Clone)]
struct Answers {
    packets: Sender<Result<Packet, Status>>,
    /// What the numbers mean that were given out.
    files: Arc<Mutex<Vec<Option<PathBuf>>>>,
}

/// Serves one transfer to its end.
pub(super) async fn serve(
    tree: Tree,
    narrowing: Narrowing,
    mut incoming: Streaming<Packet>,
    packets: Sender<Result<Packet, Status>>,
) -> Result<(), Deaf> {
    let answers = Answers {
        packets,
        files: Arc::default(),
    };
    let listing = answers.clone();
    tokio::task::spawn_blocking(move || listing.list(&tree, &narrowing));
    let readers = Arc::new(Semaphore::new(READERS));
    while let Ok(Some(asked)) = incoming.message().await {
        match asked.r#type() {
            PacketType::PacketReq => {
                let reader = Arc::clone(&readers).acquire_owned().await;
                let reader = reader.map_err(|_| Deaf)?;
                let answers = answers.clone();
                tokio::task::spawn_blocking(move || {
                    // Where nobody listens there is nobody to tell.
                    let _ = answers.send(asked.id);
                    drop(reader);
                });
            }
            PacketType::PacketFin => {
                let fin = Ok(packet(PacketType::PacketFin));
                return answers.packets.send(fin).await.map_err(|_| Deaf);
            }
            PacketType::PacketErr => return Err(Deaf),
            PacketType::PacketStat | PacketType::PacketData => {}
        }
    }
    Err(Deaf)
}

impl Answers {
    fn list(&self, tree: &Tree, narrowing: &Narrowing) {
        let listed = match tree {
            Tree::File { name, path } => file(name, path)
                .map_err(Failure::Io)
                .and_then(|entry| self.tell(entry).map_err(Failure::Enough)),
            Tree::Directory(root) => walk::walk(root, narrowing, &mut |entry| self.tell(entry)),
        };
        // Where nobody listens there is nobody to tell.
        let _ = match listed {
            Ok(()) => self.say(packet(PacketType::PacketStat)),
            Err(Failure::Io(error)) => self.fail(&error),
            Err(Failure::Enough(deaf)) => Err(deaf),
        };
    }

    fn tell(&self, entry: Entry) -> Result<(), Deaf> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.push(entry.file);
        drop(files);
        let mut packet = packet(PacketType::PacketStat);
        packet.stat = Some(entry.stat);
        self.say(packet)
    }

    fn send(&self, id: u32) -> Result<(), Deaf> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let number = usize::try_from(id).unwrap_or(usize::MAX);
        let path = files.get(number).cloned().flatten();
        drop(files);
        let Some(path) = path else {
            let text = format!("number {id} is no file");
            return self.fail(&std::io::Error::other(text));
        };
        match self.send_file(id, &path) {
            Ok(sent) => sent,
            Err(error) => self.fail(&error),
        }
    }

    fn send_file(&self, id: u32, path: &Path) -> std::io::Result<Result<(), Deaf>> {
        let mut file = fs_err::File::open(path)?;
        loop {
            let mut data = vec![0; CHUNK];
            let count = file.read(&mut data)?;
            data.truncate(count);
            let mut packet = packet(PacketType::PacketData);
            packet.id = id;
            packet.data = Bytes::from(data);
            // An empty one is the end of the file.
            if self.say(packet).is_err() {
                return Ok(Err(Deaf));
            }
            if count == 0 {
                return Ok(Ok(()));
            }
        }
    }

    fn fail(&self, error: &std::io::Error) -> Result<(), Deaf> {
        let mut packet = packet(PacketType::PacketErr);
        packet.data = Bytes::from(error.to_string());
        self.say(packet)
    }

    fn say(&self, packet: Packet) -> Result<(), Deaf> {
        self.packets.blocking_send(Ok(packet)).map_err(|_| Deaf)
    }
}

/// The one file there is, whatever a daemon asks for.
fn file(name: &str, path: &Path) -> std::io::Result<Entry> {
    let size = fs_err::metadata(path)?.len();
    Ok(Entry {
        stat: Stat {
            path: name.to_owned(),
            mode: 0o755,
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..Stat::default()
        },
        file: Some(path.to_owned()),
    })
}

fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}
