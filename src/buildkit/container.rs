//! A container of a job, and a process in it that is spoken with (spec §13.3).
//!
//! It is no op: nothing of it is cached, and it leaves no record. It goes with its job; a process
//! goes when [`Process`] is dropped.

use prost::bytes::Bytes;
use protocol::exec_message::Input as Message;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::errors::SolveError;
use super::gateway::Job;
use super::protocol::moby::buildkit::v1::frontend as protocol;

/// A process's file descriptors: what it reads, and the two it writes to.
pub const DESCRIPTORS: [u32; 3] = [0, 1, 2];
/// How many messages may wait for the daemon.
const AHEAD: usize = 4;
/// The code of a process that was never there, as of one that ended so.
const UNKNOWN: u32 = 255;

/// A process in a container.
#[derive(Debug)]
pub struct Process {
    incoming: Streaming<protocol::ExecMessage>,
    input: Input,
}

/// What a process reads.
#[derive(Debug, Clone)]
pub struct Input {
    outgoing: Sender<protocol::ExecMessage>,
    id: String,
}

/// What comes of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It wrote something.
    Wrote {
        /// Where: one of [`DESCRIPTORS`].
        descriptor: u32,
        /// What.
        data: Bytes,
    },
    /// It ended with this code.
    Ended(u8),
}

impl Job {
    /// Makes a container; no other of the daemon has the name. Mounts are marshalled, as ops have them, and
    /// none has an input; the network is the number that an op has for it.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn container(
        &self,
        name: &str,
        mounts: Vec<Vec<u8>>,
        network: i32,
    ) -> Result<(), SolveError> {
        let request = protocol::NewContainerRequest {
            container_id: name.to_owned(),
            mounts: mounts.into_iter().map(Bytes::from).collect(),
            network,
            ..protocol::NewContainerRequest::default()
        };
        let mut bridge = self.bridge();
        let call = bridge.new_container(self.named(request));
        self.answer(call).await?;
        Ok(())
    }

    /// Starts a process in a container; what it is is marshalled, as ops have it.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn process(&self, container: &str, what: Vec<u8>) -> Result<Process, SolveError> {
        let (outgoing, stream) = channel(AHEAD);
        let input = Input {
            outgoing,
            id: format!("{container}-process"),
        };
        let begin = protocol::InitMessage {
            container_id: container.to_owned(),
            meta: Bytes::from(what),
            fds: DESCRIPTORS.to_vec(),
            ..protocol::InitMessage::default()
        };
        input.say(Message::Init(begin)).await;
        let mut bridge = self.bridge();
        let call = bridge.exec_process(self.named(ReceiverStream::new(stream)));
        let incoming = self.answer(call).await?;
        Ok(Process { incoming, input })
    }
}

impl Process {
    /// Where what it shall read goes.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Waits for what it does next.
    ///
    /// # Errors
    ///
    /// It could not be started, or nobody knows how it ended.
    pub async fn next(&mut self) -> Result<Told, SolveError> {
        loop {
            let message = self.incoming.message().await;
            let message = message.map_err(|status| SolveError::of(&status))?;
            match message.ok_or_else(SolveError::gone)?.input {
                Some(Message::File(file)) if !file.data.is_empty() => {
                    return Ok(Told::Wrote {
                        descriptor: file.fd,
                        data: file.data,
                    });
                }
                Some(Message::Exit(exit)) => return ended(exit),
                _ => {}
            }
        }
    }
}

impl Input {
    /// Gives the process something to read; none is the end of it. A process that has ended reads
    /// nothing, which is no error.
    pub async fn give(&self, data: Option<Bytes>) {
        let file = protocol::FdMessage {
            fd: DESCRIPTORS[0],
            eof: data.is_none(),
            data: data.unwrap_or_default(),
        };
        self.say(Message::File(file)).await;
    }

    async fn say(&self, message: Message) {
        let message = protocol::ExecMessage {
            process_id: self.id.clone(),
            input: Some(message),
        };
        // Whoever listens no more has told why, or tells it.
        let _ = self.outgoing.send(message).await;
    }
}

/// A code that is not zero comes with an error, which says so; any other error is the daemon's.
fn ended(exit: protocol::ExitMessage) -> Result<Told, SolveError> {
    let error = exit.error.filter(|_| exit.code == UNKNOWN);
    match error {
        Some(error) if !error.message.contains("exit code: ") => {
            let status = Status::new(Code::from(error.code), error.message);
            Err(SolveError::of(&status))
        }
        // The kernel has no other codes.
        _ => Ok(Told::Ended(u8::try_from(exit.code).unwrap_or(u8::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::protocol::google::rpc;

    fn exit(code: u32, message: &str) -> Result<Told, SolveError> {
        ended(protocol::ExitMessage {
            code,
            error: (!message.is_empty()).then(|| rpc::Status {
                code: 2,
                message: message.to_owned(),
                details: Vec::new(),
            }),
        })
    }

    #[test]
    fn a_code_is_told_from_a_failure() {
        assert_eq!(exit(0, "").unwrap(), Told::Ended(0));
        assert_eq!(exit(3, "exit code: 3").unwrap(), Told::Ended(3));
        assert_eq!(exit(255, "exit code: 255").unwrap(), Told::Ended(255));
        let error = exit(255, "runc run failed: no such file").unwrap_err();
        assert!(error.message.contains("no such file"), "{error}");
    }
}
