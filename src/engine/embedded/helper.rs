//! The helper process: single-threaded, because it forks; it lives and dies with the conductor.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

use crate::agent::{self, Orders};
use crate::engine::embedded::container::{Container, Machine};
use crate::engine::embedded::machine::UserMapping;
use crate::engine::embedded::wire::{Exit, FromHelper, ToHelper};
use crate::engine::{SecretValue, lower};
use crate::sandbox::{self, Child, ids};
use crate::tunnel::{Decoder, Frame, Limits, encode, frame};

/// Serves the conductor at the other end of `socket` until it is gone.
pub fn serve(socket: OwnedFd) -> i32 {
    let mut helper = Helper {
        socket: UnixStream::from(socket),
        decoder: Decoder::new(Limits::PAIR),
        machine: Machine::default(),
        ops: Vec::new(),
        expected: None,
    };
    // An error is the end of the conversation: the ops go with it.
    let _ = helper.converse();
    for op in &mut helper.ops {
        let _ = op.child.kill();
    }
    for op in &mut helper.ops {
        let _ = op.child.wait();
    }
    0
}

struct Running {
    nonce: String,
    child: Child,
}

/// A `Run` whose data frames have not all come.
struct Expected {
    nonce: String,
    names: Vec<String>,
    definition: Option<Vec<u8>>,
    secrets: BTreeMap<String, SecretValue>,
}

struct Helper {
    socket: UnixStream,
    decoder: Decoder,
    machine: Machine,
    ops: Vec<Running>,
    expected: Option<Expected>,
}

impl Helper {
    fn converse(&mut self) -> std::io::Result<()> {
        loop {
            let (hears, ended) = self.wait()?;
            for index in ended.into_iter().rev() {
                self.reap(index)?;
            }
            if !hears {
                continue;
            }
            let mut buffer = [0; 64 << 10];
            let count = self.socket.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.decoder.push(&buffer[..count]);
            while let Some(frame) = self.decoder.next_frame().map_err(std::io::Error::other)? {
                self.hear(frame)?;
            }
        }
    }

    /// Waits for the conductor or for ops to end.
    fn wait(&self) -> std::io::Result<(bool, Vec<usize>)> {
        let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(&self.socket, PollFlags::IN)];
        fds.extend(
            self.ops
                .iter()
                .map(|op| PollFd::from_borrowed_fd(op.child.as_fd(), PollFlags::IN)),
        );
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, Vec::new())),
            Err(error) => return Err(error.into()),
        }
        let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let ended = fds[1..]
            .iter()
            .enumerate()
            .filter(|(_, fd)| ready(fd))
            .map(|(index, _)| index);
        Ok((ready(&fds[0]), ended.collect()))
    }

    fn reap(&mut self, index: usize) -> std::io::Result<()> {
        let mut op = self.ops.swap_remove(index);
        let exit = match op.child.wait() {
            Ok(sandbox::Exit::Code(code)) => Exit::Code { code },
            Ok(sandbox::Exit::Signal(signal)) => Exit::Signal { signal },
            Err(error) => Exit::NotStarted {
                reason: text(&error),
            },
        };
        self.say(&FromHelper::Ended {
            nonce: op.nonce,
            exit,
        })
    }

    fn hear(&mut self, frame: Frame) -> std::io::Result<()> {
        match frame {
            Frame::Message(payload) => {
                match frame::parse(&payload).map_err(std::io::Error::other)? {
                    ToHelper::Configure {
                        tunnel,
                        scratch,
                        caches,
                        devices,
                        users,
                    } => {
                        self.machine = Machine {
                            tunnel,
                            scratch,
                            caches,
                            devices,
                        };
                        self.become_root(users)
                    }
                    ToHelper::Offer { device } => {
                        self.machine.devices.push(device);
                        Ok(())
                    }
                    ToHelper::Run { nonce, secrets } => {
                        self.expected = Some(Expected {
                            nonce,
                            names: secrets,
                            definition: None,
                            secrets: BTreeMap::new(),
                        });
                        Ok(())
                    }
                    ToHelper::Kill { nonce } => {
                        if let Some(op) = self.ops.iter_mut().find(|op| op.nonce == nonce) {
                            let _ = op.child.kill();
                        }
                        Ok(())
                    }
                }
            }
            Frame::Data(bytes) => self.hear_data(bytes),
            Frame::Log(_) => Err(std::io::Error::other("the conductor sends no log")),
        }
    }

    fn become_root(&mut self, users: UserMapping) -> std::io::Result<()> {
        let entered = match users {
            UserMapping::Root => Ok(()),
            UserMapping::Single { uid, gid } => {
                ids::enter_user_namespace(&ids::UserMap::Single { uid, gid })
            }
            UserMapping::Subordinate {
                uid,
                gid,
                uids,
                gids,
            } => {
                let range = |(start, count)| ids::Range { start, count };
                ids::enter_user_namespace(&ids::UserMap::Subordinate {
                    uid,
                    gid,
                    uids: range(uids),
                    gids: range(gids),
                })
            }
        };
        match entered {
            Ok(()) => self.say(&FromHelper::Ready),
            Err(error) => {
                let why = ids::obstacle().unwrap_or_else(|| {
                    "user namespaces must be allowed for ordinary users".to_owned()
                });
                self.say(&FromHelper::Unable {
                    reason: format!("{}; {why}", text(&error)),
                })?;
                Err(std::io::Error::other("unable"))
            }
        }
    }

    fn hear_data(&mut self, bytes: Vec<u8>) -> std::io::Result<()> {
        let Some(mut expected) = self.expected.take() else {
            return Err(std::io::Error::other("data without an op"));
        };
        if expected.definition.is_none() {
            expected.definition = Some(bytes);
        } else {
            let name = expected.names[expected.secrets.len()].clone();
            expected.secrets.insert(name, SecretValue(bytes));
        }
        if expected.secrets.len() < expected.names.len() {
            self.expected = Some(expected);
            return Ok(());
        }
        let definition = expected.definition.expect("set above");
        match self.start(&definition, &expected.secrets) {
            Ok(child) => {
                self.ops.push(Running {
                    nonce: expected.nonce,
                    child,
                });
                Ok(())
            }
            Err(reason) => self.say(&FromHelper::Ended {
                nonce: expected.nonce,
                exit: Exit::NotStarted { reason },
            }),
        }
    }

    fn start(
        &self,
        definition: &[u8],
        secrets: &BTreeMap<String, SecretValue>,
    ) -> Result<Child, String> {
        let container = self
            .machine
            .container(definition, secrets)
            .map_err(|error| text(&error))?;
        if lower::is_agent(&container.arguments[0]) {
            let orders = Orders::read(&container.arguments[1..], &container.environment)
                .ok_or_else(|| "the op's arguments or environment make no sense".to_owned())?;
            return sandbox::spawn_call(&container.cage, &[], move || agent::run(&orders))
                .map_err(|error| text(&error));
        }
        exec(&container).map_err(|error| text(&error))
    }

    fn say(&mut self, message: &FromHelper) -> std::io::Result<()> {
        self.socket.write_all(&encode(&Frame::message(message)))
    }
}

/// Runs a program that is not the agent.
fn exec(container: &Container) -> Result<Child, sandbox::Error> {
    let process = sandbox::Process {
        program: container.arguments[0].as_bytes().to_vec(),
        arguments: container
            .arguments
            .iter()
            .map(|word| word.as_bytes().to_vec())
            .collect(),
        environment: container
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}").into_bytes())
            .collect(),
        directory: container.directory.clone(),
        identity: sandbox::Identity::Same,
        output: std::io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| sandbox::Error::Exec {
                program: container.arguments[0].clone(),
                source,
            })?,
        personality: sandbox::Personality { linux32: false },
        filter: sandbox::Filter::None,
    };
    sandbox::spawn(Some(&container.cage), process)
}

fn text(error: &dyn std::error::Error) -> String {
    crate::tunnel::MachineError::of(error).text
}
