//! A program of a daemon's store, run there in a container that is no op.
//!
//! It is spoken with as with any child: it reads what we read, we write what it writes, and its
//! exit code is told. The container lives in a job of its own. Not every daemon ends it with the job,
//! and none does when it dies, so the program hangs on a [`Lifeline`].

use std::io::{self, Read};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::buildkit::auth::Keychain;
use crate::buildkit::container::{Process, Told};
use crate::buildkit::content::Layouts;
use crate::buildkit::filesync::Directories;
use crate::buildkit::gateway::Opening;
use crate::buildkit::secrets::Vault;
use crate::buildkit::ssh::Forward;
use crate::buildkit::{Address, Daemon, Job, Services, Session, SolveError};
use crate::engine::Error;
use crate::engine::lifeline::Lifeline;
use crate::engine::lower::TUNNEL;
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

/// Where a program runs.
#[derive(Debug, Clone, Copy)]
pub struct Where<'a> {
    /// The daemon.
    pub address: &'a Address,
    /// What the container takes of it beyond a sandbox.
    pub entitlements: &'a [String],
    /// Where the lifeline's socket is made.
    pub lifeline: &'a Path,
}

/// Runs a program in a container until it ends, or `cancel` is set, which ends it.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Daemon`], [`Error::Start`], [`Error::Lifeline`];
/// [`Error::Cancelled`].
pub fn run(
    place: Where<'_>,
    exec: &Exec,
    input: impl Read + Send + 'static,
    write: Write<'_>,
    cancel: &Arc<AtomicBool>,
) -> Result<End, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Start)?;
    let refused = |error: SolveError| place.refused(error.message);
    let lifeline = Lifeline::begin(place.lifeline.to_owned()).map_err(Error::Lifeline)?;
    runtime.block_on(async {
        let (job, _session) = tokio::select! {
            opened = open(place, &lifeline) => opened?,
            () = cancelled(cancel) => return Err(Error::Cancelled),
        };
        let mut entered = pin!(enter(&job, exec, input, write));
        let ended = tokio::select! {
            ended = &mut entered => ended.map_err(refused),
            () = cancelled(cancel) => {
                lifeline.end();
                let _ = tokio::time::timeout(PATIENCE, entered).await;
                Err(Error::Cancelled)
            }
        };
        lifeline.end();
        // It holds the store for as long as it is there.
        let _ = tokio::time::timeout(PATIENCE, job.close()).await;
        ended
    })
}

impl Where<'_> {
    fn refused(&self, reason: String) -> Error {
        Error::Daemon {
            address: self.address.to_string(),
            reason,
        }
    }
}

/// Opens a job, and the session that leads the lifeline to us.
async fn open(place: Where<'_>, lifeline: &Lifeline) -> Result<(Job, Session), Error> {
    let daemon = Daemon::connect(place.address).await?;
    let services = Services {
        forward: Forward {
            id: TUNNEL.to_owned(),
            socket: lifeline.socket.clone(),
        },
        vault: Vault::default(),
        directories: Directories::default(),
        layouts: Layouts::default(),
        keychain: Keychain { config: None },
    };
    let session = Session::open(&daemon, reference("lifeline"), services).await;
    let session = session.map_err(|reason| place.refused(reason))?;
    let opening = Opening {
        reference: reference("enter"),
        session: session.id.clone(),
        entitlements: place.entitlements.to_vec(),
    };
    let job = Job::open(&daemon, opening).await;
    let job = job.map_err(|error| place.refused(error.message))?;
    Ok((job, session))
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
