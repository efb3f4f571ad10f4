//! Byte streams out of ops: what `BuildKit` means for SSH agents carries anything (spec §2.7).
//!
//! Each connection an op makes becomes one stream, and one connection to a Unix socket of ours.
//! A half-close does not reach an op, so the end of one direction ends both.

use std::path::PathBuf;
use std::pin::Pin;

use prost::bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::PIECE;
use super::protocol::moby::sshforward::v1::ssh_server::Ssh;
use super::protocol::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};

/// How many pieces may wait for the daemon.
const WAITING: usize = 32;

/// Leads every connection to a socket.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The id ops know it by.
    pub id: String,
    /// The socket.
    pub socket: PathBuf,
}

impl Forward {
    fn check(&self, id: &str) -> Result<(), Status> {
        if id == self.id {
            return Ok(());
        }
        Err(Status::not_found(format!("there is no socket `{id}`")))
    }
}

type Outgoing = Pin<Box<dyn tokio_stream::Stream<Item = Result<BytesMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Ssh for Forward {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.check(&request.get_ref().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    type ForwardAgentStream = Outgoing;

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Outgoing>, Status> {
        let id = request.metadata().get("buildkit.ssh.id");
        self.check(id.and_then(|id| id.to_str().ok()).unwrap_or_default())?;
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| Status::unavailable(error.to_string()))?;
        let (reading, writing) = stream.into_split();
        let (tell, outgoing) = channel(WAITING);
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            let mut writing = writing;
            let inward = async {
                while let Ok(Some(message)) = incoming.message().await {
                    if writing.write_all(&message.data).await.is_err() {
                        break;
                    }
                }
            };
            // Whichever ends first: to drop both halves closes the socket.
            tokio::select! {
                () = inward => {}
                () = outward(reading, &tell) => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

async fn outward(mut reading: OwnedReadHalf, tell: &Sender<Result<BytesMessage, Status>>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match reading.read_buf(&mut (&mut buffer).limit(PIECE)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let data = buffer.split().freeze();
                if tell.send(Ok(BytesMessage { data })).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost::bytes::Bytes;

    use super::*;

    #[test]
    fn a_piece_and_what_is_around_it_are_a_message_of_32_kib_at_most() {
        let data = Bytes::from(vec![0; PIECE]);
        assert!(BytesMessage { data }.encoded_len() <= 32 << 10);
    }
}
