//! A directory that a daemon pulls from us; here it holds exactly one file (spec §5.4).

use std::io::Read;
use std::path::PathBuf;
use std::pin::Pin;

use prost::bytes::Bytes;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::protocol::fsutil::types::packet::PacketType;
use super::protocol::fsutil::types::{Packet, Stat};
use super::protocol::moby::filesync::v1::file_sync_server::FileSync;

/// How much of a file goes into one packet: the protocol's own limit.
const CHUNK: usize = 32 << 10;
/// How many packets may wait for the daemon.
const WAITING: usize = 16;

/// A directory with one executable file in it.
#[derive(Debug, Clone)]
pub struct Directory {
    /// What a `local://` source calls the directory.
    pub name: String,
    /// What the file is called in it.
    pub file: String,
    /// Where the file is here.
    pub path: PathBuf,
}

type Outgoing = Pin<Box<dyn tokio_stream::Stream<Item = Result<Packet, Status>> + Send>>;
type Answers = Sender<Result<Packet, Status>>;

/// The daemon is not listening any more.
struct Deaf;

#[tonic::async_trait]
impl FileSync for Directory {
    type DiffCopyStream = Outgoing;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Outgoing>, Status> {
        let name = request.metadata().get("dir-name");
        if name.is_none_or(|name| name.as_bytes() != self.name.as_bytes()) {
            return Err(Status::not_found(format!(
                "the only directory here is `{}`",
                self.name
            )));
        }
        let (answers, outgoing) = channel(WAITING);
        let directory = self.clone();
        let incoming = request.into_inner();
        tokio::spawn(async move {
            // Where nobody listens there is nobody to tell.
            let _ = directory.serve(incoming, &answers).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl Directory {
    async fn serve(&self, mut incoming: Streaming<Packet>, answers: &Answers) -> Result<(), Deaf> {
        match self.stat() {
            Ok(stat) => {
                let mut packet = packet(PacketType::PacketStat);
                packet.stat = Some(stat);
                say(answers, packet).await?;
            }
            Err(error) => return fail(answers, &error).await,
        }
        // The end of the list.
        say(answers, packet(PacketType::PacketStat)).await?;
        while let Ok(Some(asked)) = incoming.message().await {
            match asked.r#type() {
                PacketType::PacketReq => match self.send(asked.id, answers).await? {
                    Ok(()) => {}
                    Err(error) => return fail(answers, &error).await,
                },
                PacketType::PacketFin => return say(answers, packet(PacketType::PacketFin)).await,
                PacketType::PacketErr => return Err(Deaf),
                PacketType::PacketStat | PacketType::PacketData => {}
            }
        }
        Err(Deaf)
    }

    fn stat(&self) -> std::io::Result<Stat> {
        let size = fs_err::metadata(&self.path)?.len();
        Ok(Stat {
            path: self.file.clone(),
            mode: 0o755,
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ..Stat::default()
        })
    }

    async fn send(&self, id: u32, answers: &Answers) -> Result<std::io::Result<()>, Deaf> {
        let mut file = match fs_err::File::open(&self.path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let mut data = vec![0; CHUNK];
            let count = match file.read(&mut data) {
                Ok(count) => count,
                Err(error) => return Ok(Err(error)),
            };
            data.truncate(count);
            let mut packet = packet(PacketType::PacketData);
            packet.id = id;
            packet.data = Bytes::from(data);
            say(answers, packet).await?;
            // An empty one is the end of the file.
            if count == 0 {
                return Ok(Ok(()));
            }
        }
    }
}

fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}

async fn say(answers: &Answers, packet: Packet) -> Result<(), Deaf> {
    answers.send(Ok(packet)).await.map_err(|_| Deaf)
}

async fn fail(answers: &Answers, error: &std::io::Error) -> Result<(), Deaf> {
    let mut packet = packet(PacketType::PacketErr);
    packet.data = Bytes::from(error.to_string());
    say(answers, packet).await
}
