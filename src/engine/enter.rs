//! A program of a daemon's store, run there in a container that is no op.
//!
//! It is spoken with as with any child: it reads what we read, we write what it writes, and its
//! exit code is told. The container lives in a job of its own and ends with it, however that ends.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::buildkit::container::{Process, Told};
use crate::buildkit::gateway::Opening;
use crate::buildkit::{Address, Daemon, Job, SolveError};
use crate::engine::Error;
use crate::engine::offer::{cancelled, reference};
use crate::llb::{self, Exec};

/// How much is read at once.
const CHUNK: usize = 32 << 10;
/// How long the daemon may take to clear away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which of its streams a program wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its standard output.
    Output,
    /// Its standard error.
    Error,
}

/// Takes what a program writes; it is ended where that fails.
pub type Write<'a> = &'a mut dyn FnMut(Stream, &[u8]) -> io::Result<()>;

/// How a program ended.
#[derive(Debug)]
pub enum End {
    /// With this code.
    Code(u8),
    /// It was ended: nobody takes what it writes.
    Unheard(io::Error),
}

/// Runs a program in a container until it ends, or `cancel` is set, which ends it.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Daemon`], [`Error::Start`]; [`Error::Cancelled`].
pub fn run(
    address: &Address,
    entitlements: &[String],
    exec: &Exec,
    input: impl Read + Send + 'static,
    write: Write<'_>,
    cancel: &Arc<AtomicBool>,
) -> Result<End, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let refused = |error: SolveError| Error::Daemon {
        address: address.to_string(),
        reason: error.message,
    };
    runtime.block_on(async {
        let job = tokio::select! {
            job = open(address, entitlements) => job?.map_err(refused)?,
            () = cancelled(cancel) => return Err(Error::Cancelled),
        };
        let ended = tokio::select! {
            ended = enter(&job, exec, input, write) => ended.map_err(refused),
            () = cancelled(cancel) => Err(Error::Cancelled),
        };
        // It holds the store for as long as it is there.
        let _ = tokio::time::timeout(PATIENCE, job.close()).await;
        ended
    })
}

async fn open(
    address: &Address,
    entitlements: &[String],
) -> Result<Result<Job, SolveError>, Error> {
    let daemon = Daemon::connect(address).await?;
    if daemon.version.is_none() {
        // It was seen on Docker 20.10.
        let reason = "it is older than BuildKit 0.11, and would leave a program running that the \
            command has ended";
        return Err(Error::Daemon {
            address: address.to_string(),
            reason: reason.to_owned(),
        });
    }
    let opening = Opening {
        reference: reference("enter"),
        session: String::new(),
        entitlements: entitlements.to_vec(),
    };
    Ok(Job::open(&daemon, opening).await)
}

async fn enter(
    job: &Job,
    exec: &Exec,
    input: impl Read + Send + 'static,
    write: Write<'_>,
) -> Result<End, SolveError> {
    let parts = llb::parts(exec);
    // A daemon may take the name as it is for `runc`, which all jobs share.
    let container = reference("container");
    job.container(&container, parts.mounts, parts.network)
        .await?;
    let process = job.process(&container, parts.meta).await?;
    let (read, given) = channel(1);
    // It may wait for ever; the process does not wait for it.
    std::thread::spawn(move || pour(input, &read));
    speak(process, given, write).await
}

/// Passes on what is read, and that there is no more.
fn pour(mut input: impl Read, read: &Sender<Bytes>) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(count) => {
                let data = Bytes::copy_from_slice(&buffer[..count]);
                if read.blocking_send(data).is_err() {
                    return;
                }
            }
        }
    }
}

async fn speak(
    mut process: Process,
    mut given: Receiver<Bytes>,
    write: Write<'_>,
) -> Result<End, SolveError> {
    let input = process.input();
    let giving = async {
        while let Some(data) = given.recv().await {
            input.give(Some(data)).await;
        }
        input.give(None).await;
        std::future::pending::<()>().await;
    };
    let hearing = async {
        loop {
            match process.next().await? {
                Told::Ended(code) => return Ok(End::Code(code)),
                Told::Wrote { descriptor, data } => {
                    let stream = if descriptor == 2 {
                        Stream::Error
                    } else {
                        Stream::Output
                    };
                    if let Err(error) = write(stream, &data) {
                        return Ok(End::Unheard(error));
                    }
                }
            }
        }
    };
    tokio::select! {
        ended = hearing => ended,
        () = giving => unreachable!("it waits for the end of the process"),
    }
}
