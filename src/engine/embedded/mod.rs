//! The embedded engine: Linux namespaces on this machine, no daemon and no container runtime.
//!
//! A small single-threaded process of ours, the *helper*, runs the ops: it alone forks, because
//! the conductor has threads. It gets marshalled definitions over a socket, decodes them
//! ([`container`]) and runs the agent as a fork of itself, anything else by exec. It ends with
//! the conductor, and every op ends with it.

pub mod container;
pub mod helper;
pub mod machine;
pub mod wire;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use machine::UserMapping;
use wire::{FromHelper, ToHelper};

use crate::engine::{Device, Engine, EngineEvent, Error, Op, OpEnd, OpExit};
use crate::tunnel::{Decoder, Frame, Limits, encode, frame};

/// What the engine is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// This executable.
    pub program: PathBuf,
    /// The conductor's listening socket, which becomes every op's tunnel.
    pub tunnel: PathBuf,
    /// An empty directory for the roots of ops to be mounted on.
    pub scratch: PathBuf,
    /// The directories that are cache mounts, by id.
    pub caches: BTreeMap<String, PathBuf>,
    /// What ops may ask for by CDI name.
    pub devices: Vec<Device>,
    /// Who ops are on the machine.
    pub users: UserMapping,
}

/// The embedded engine.
#[derive(Debug)]
pub struct Embedded {
    helper: Child,
    socket: UnixStream,
}

impl Embedded {
    /// Starts the helper. Its events go to `tell`, from a thread of their own.
    pub fn start(
        config: Config,
        tell: impl Fn(EngineEvent) + Send + 'static,
    ) -> Result<Self, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::Start)?;
        let helper = Command::new(&config.program)
            .arg("helper")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            // A Ctrl-C is the conductor's to answer: it ends builds and effects in good order.
            .process_group(0)
            .spawn()
            .map_err(Error::Start)?;
        let listening = ours.try_clone().map_err(Error::Start)?;
        let mut engine = Self {
            helper,
            socket: ours,
        };
        engine.say(&ToHelper::Configure {
            tunnel: config.tunnel,
            scratch: config.scratch,
            caches: config.caches,
            devices: config.devices,
            users: config.users,
        })?;
        let mut listener = Listener {
            stream: listening,
            decoder: Decoder::new(Limits::PAIR),
        };
        match listener.next() {
            Ok(FromHelper::Ready) => {}
            Ok(FromHelper::Unable { reason }) => return Err(Error::Unable { reason }),
            Ok(FromHelper::Ended { .. }) => {
                return Err(Error::Unable {
                    reason: "the helper speaks out of turn".to_owned(),
                });
            }
            Err(source) => return Err(Error::Gone(source)),
        }
        std::thread::spawn(move || listener.run(&tell));
        Ok(engine)
    }

    fn say(&mut self, message: &ToHelper) -> Result<(), Error> {
        self.write(&Frame::message(message))
    }

    fn write(&mut self, frame: &Frame) -> Result<(), Error> {
        self.socket.write_all(&encode(frame)).map_err(Error::Gone)
    }

    /// The helper's process id.
    pub fn helper_id(&self) -> u32 {
        self.helper.id()
    }
}

impl Engine for Embedded {
    fn start(&mut self, op: Op) -> Result<(), Error> {
        let names = op.secrets.keys().cloned().collect();
        self.say(&ToHelper::Run {
            nonce: op.nonce,
            secrets: names,
        })?;
        self.write(&Frame::Data(op.definition))?;
        for value in op.secrets.into_values() {
            self.write(&Frame::Data(value.0))?;
        }
        Ok(())
    }

    fn kill(&mut self, nonce: &str) -> Result<(), Error> {
        self.say(&ToHelper::Kill {
            nonce: nonce.to_owned(),
        })
    }

    /// It keeps nothing that would have to go.
    fn store_held(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn store_let_go(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Its ops run programs, and nothing else.
    fn can(&self, capability: &str) -> bool {
        capability.starts_with("exec.")
    }

    fn offer(&mut self, device: Device) -> Result<(), Error> {
        self.say(&ToHelper::Offer { device })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The helper ends when its socket does, and kills every op first.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.helper.wait();
    }
}

struct Listener {
    stream: UnixStream,
    decoder: Decoder,
}

impl Listener {
    fn next(&mut self) -> std::io::Result<FromHelper> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(std::io::Error::other)? {
                let Frame::Message(payload) = frame else {
                    return Err(std::io::Error::other("the helper sends no data"));
                };
                return frame::parse(&payload).map_err(std::io::Error::other);
            }
            let mut buffer = [0; 4096];
            let count = std::io::Read::read(&mut self.stream, &mut buffer)?;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(&buffer[..count]);
        }
    }

    fn run(mut self, tell: &dyn Fn(EngineEvent)) {
        loop {
            match self.next() {
                Ok(FromHelper::Ended { nonce, exit }) => {
                    let how = match exit {
                        wire::Exit::Code { code } => OpExit::Code(code),
                        wire::Exit::Signal { signal } => OpExit::Signal(signal),
                        wire::Exit::NotStarted { reason } => OpExit::NotStarted { reason },
                    };
                    // What an op of this machine writes, it writes to our own stderr.
                    let words = String::new();
                    tell(EngineEvent::Ended(OpEnd { nonce, how, words }));
                }
                Ok(_) => {}
                Err(error) => {
                    tell(EngineEvent::Gone {
                        reason: error.to_string(),
                    });
                    return;
                }
            }
        }
    }
}

/// Names this executable among agents: it changes when the file does.
pub fn agent_id(program: &Path) -> std::io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs_err::metadata(program)?;
    let identity = format!(
        "{} {} {} {} {}",
        env!("CARGO_PKG_VERSION"),
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        metadata.mtime_nsec() + metadata.mtime() * 1_000_000_000
    );
    let hash = crate::nix::hash_bytes(crate::nix::HashAlgorithm::Sha256, identity.as_bytes());
    Ok(crate::nix::base32(&hash.digest_as_bytes()[..20]))
}
