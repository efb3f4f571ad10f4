//! Ops that find out what an engine allows: a real one for each question, the smallest that tells.
//!
//! | question | the op has |
//! |---|---|
//! | does anything run? | [`Probe::Plain`]: the store's cache mount, no network, no privilege |
//! | what network is there? | [`Probe::Network`]: the default one; [`Probe::HostNetwork`]: the host's |
//! | may an op be privileged? | [`Probe::Insecure`]: `security.insecure` |
//! | is the store a device? | [`Probe::Strong`]: that, and the device |
//!
//! On a daemon the program is this executable, pulled for these ops, and not delivered into the
//! store; embedded it is the agent as always. It answers over the tunnel ([`agent::probe`]).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::agent::probe::Seen;
use crate::agent::{self, PLAIN_STORE};
use crate::buildkit::auth::Keychain;
use crate::buildkit::content::Layouts;
use crate::buildkit::filesync::{Directories, Tree};
use crate::buildkit::secrets::Vault;
use crate::buildkit::ssh::Forward;
use crate::buildkit::workers::CdiAccess;
use crate::buildkit::{Daemon, Services, Session, control};
use crate::engine::lower::{
    AGENT, AGENT_FILE, AGENT_SOURCE, DELIVERY, STORE_DEVICE, TUNNEL, cache, metadata, mount, socket,
};
use crate::llb::{
    Access, Definition, Error as LoweringError, Exec, MountKind, Network, Security, Source,
};
use crate::tunnel;

/// How long an op may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long after the end of its op an answer may come.
const LATE: Duration = Duration::from_secs(2);

/// What to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether an op without any privilege runs and has the store.
    Plain,
    /// Whether there is a network for those that may have one.
    Network,
    /// The same with the network of the host.
    HostNetwork,
    /// Whether an op may be privileged.
    Insecure,
    /// The same with the device that is a store, which may need an entitlement.
    Strong(CdiAccess),
}

impl Probe {
    fn entitlements(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Plain | Self::Network => &[],
            Self::HostNetwork => &["network.host"],
            Self::Insecure | Self::Strong(CdiAccess::Everyone) => &["security.insecure"],
            Self::Strong(CdiAccess::Entitled) => &["security.insecure", "device"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn exec(self, args: &[String], nonce: &str) -> Exec {
        let is_strong = matches!(self, Self::Insecure | Self::Strong(_));
        let shape = if is_strong { "strong" } else { "plain" };
        let mut mounts = vec![
            mount("/", MountKind::Scratch, Access::ReadWrite, None, Some(0)),
            mount(tunnel::SOCKET, socket(), Access::ReadWrite, None, None),
        ];
        if self == Self::Plain {
            let store = mount(PLAIN_STORE, cache(), Access::ReadWrite, None, None);
            mounts.push(store);
        }
        Exec {
            args: args.to_vec(),
            env: vec![
                (agent::NONCE.to_owned(), nonce.to_owned()),
                (agent::SHAPE.to_owned(), shape.to_owned()),
            ],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: None,
            mounts,
            network: match self {
                Self::Plain | Self::Insecure | Self::Strong(_) => Network::None,
                Self::Network => Network::Default,
                Self::HostNetwork => Network::Host,
            },
            security: if is_strong {
                Security::Insecure
            } else {
                Security::Sandbox
            },
            devices: if matches!(self, Self::Strong(_)) {
                vec![STORE_DEVICE.to_owned()]
            } else {
                Vec::new()
            },
            inputs: Vec::new(),
        }
    }
}

/// Lowers a probe for the embedded engine.
pub fn embedded(probe: Probe, nonce: &str) -> Result<Vec<u8>, LoweringError> {
    let args = [AGENT, "probe"].map(str::to_owned);
    let mut definition = Definition::new();
    let exec = probe.exec(&args, nonce);
    let op = definition.exec(exec, metadata("pontoon: probe", "probe"))?;
    definition.marshal(&op.output(0))
}

/// Lowers a probe for a daemon, which pulls the program.
fn delivered(probe: Probe, nonce: &str) -> Result<Vec<u8>, LoweringError> {
    let mut definition = Definition::new();
    let source = Source::local(AGENT_SOURCE, nonce);
    let source = definition.source(source, metadata("pontoon: agent", "agent"))?;
    let program = format!("{DELIVERY}/{AGENT_FILE}");
    let args = [&program, "agent", "probe"].map(str::to_owned);
    let mut exec = probe.exec(&args, nonce);
    let mut delivery = mount(DELIVERY, MountKind::Bind, Access::ReadOnly, None, None);
    delivery.input = Some(0);
    exec.mounts.push(delivery);
    exec.inputs.push(source.output(0));
    let op = definition.exec(exec, metadata("pontoon: probe", "probe"))?;
    definition.marshal(&op.output(0))
}

/// Where the answers of probes arrive.
#[derive(Debug)]
pub struct Answers {
    /// The socket at the end of the tunnel.
    pub socket: PathBuf,
    heard: Receiver<Seen>,
}

impl Answers {
    /// Listens on a socket that is made.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn listen(socket: PathBuf) -> std::io::Result<Self> {
        let listener = UnixListener::bind(&socket)?;
        let (tell, heard) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let tell = tell.clone();
                // One that says nothing must not keep the others waiting.
                std::thread::spawn(move || receive(&stream, &tell));
            }
        });
        Ok(Self { socket, heard })
    }

    /// Waits a moment for the answer of an op.
    pub fn of(&self, nonce: &str) -> Option<Seen> {
        let end = Instant::now() + LATE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok(seen) if seen.nonce == nonce => return Some(seen),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

fn receive(stream: &UnixStream, tell: &Sender<Seen>) -> Option<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    let seen = serde_json::from_str(&line).ok()?;
    let mut writing = stream;
    writing.write_all(b"\n").ok()?;
    tell.send(seen).ok()
}

/// A daemon that is probed.
pub struct Prober {
    daemon: Daemon,
    session: Session,
    answers: Answers,
    /// Begins the names of its solves: nobody else has it.
    id: String,
    probes: u32,
}

impl Prober {
    /// Opens a session that serves `program`.
    ///
    /// # Errors
    ///
    /// The daemon's refusal, in words.
    pub async fn open(
        daemon: Daemon,
        answers: Answers,
        program: &Path,
        id: String,
    ) -> Result<Self, String> {
        let directories = Directories::default();
        let own = Tree::File {
            name: AGENT_FILE.to_owned(),
            path: program.to_owned(),
        };
        directories.offer(AGENT_SOURCE.to_owned(), own);
        let services = Services {
            forward: Forward {
                id: TUNNEL.to_owned(),
                socket: answers.socket.clone(),
            },
            vault: Vault::default(),
            directories,
            layouts: Layouts::default(),
            keychain: Keychain { config: None },
        };
        let name = super::buildkit::unique(&["probes", &id]);
        let session = Session::open(&daemon, name, services).await?;
        Ok(Self {
            daemon,
            session,
            answers,
            id,
            probes: 0,
        })
    }

    /// Runs a probe.
    ///
    /// # Errors
    ///
    /// Why it could not be run, or gave no answer, in words.
    pub async fn run(&mut self, probe: Probe) -> Result<Seen, String> {
        self.probes += 1;
        let nonce = format!("{}-probe-{}", self.id, self.probes);
        let definition = delivered(probe, &nonce).map_err(|error| error.to_string())?;
        let solve = control::Solve {
            reference: super::buildkit::unique(&["probe", &nonce]),
            definition,
            session: self.session.id.clone(),
            entitlements: probe.entitlements(),
        };
        let solved = tokio::time::timeout(PATIENCE, self.daemon.solve(solve)).await;
        match solved {
            Err(_) => Err(format!("the op has not ended in {} s", PATIENCE.as_secs())),
            Ok(Err(error)) => Err(error.message),
            Ok(Ok(())) => {
                let silent = || "the op ended without a word: its tunnel leads nowhere".to_owned();
                self.answers.of(&nonce).ok_or_else(silent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_a_definition_that_can_be_read() {
        for probe in [
            Probe::Plain,
            Probe::Network,
            Probe::HostNetwork,
            Probe::Insecure,
            Probe::Strong(CdiAccess::Everyone),
        ] {
            let text =
                |bytes: Vec<u8>| crate::llb::text::render(&crate::llb::decode(&bytes).unwrap());
            let (here, there) = (
                embedded(probe, "n").unwrap(),
                delivered(probe, "n").unwrap(),
            );
            let (here, there) = (text(here), text(there));
            assert!(
                here.contains("/.pontoon/agent") && there.contains(DELIVERY),
                "{here}{there}"
            );
            assert_eq!(
                here.contains(STORE_DEVICE),
                matches!(probe, Probe::Strong(_))
            );
        }
    }

    #[test]
    fn an_answer_is_that_of_its_op() {
        let place = tempfile::tempdir().unwrap();
        let answers = Answers::listen(place.path().join("s")).unwrap();
        let seen = |nonce: &str| Seen {
            nonce: nonce.to_owned(),
            boot: String::new(),
            network: String::new(),
            interfaces: Vec::new(),
            namespaces: Ok(()),
            store: None,
            ids: 1,
        };
        for nonce in ["one", "two"] {
            let mut stream = UnixStream::connect(&answers.socket).unwrap();
            let line = serde_json::to_string(&seen(nonce)).unwrap() + "\n";
            stream.write_all(line.as_bytes()).unwrap();
            std::io::Read::read_exact(&mut stream, &mut [0]).unwrap();
        }
        assert_eq!(answers.of("two"), Some(seen("two")));
        assert_eq!(answers.of("three"), None);
    }
}
