//! The delivery of the agent, which no op of a run can do without.

use super::mounts::{cache, mount};
use super::{STORE_DEVICE, metadata};
use crate::agent::{self, Shape};
use crate::llb::{Access, Definition, Error, Exec, MountKind, Network, Security, Source};

/// The `local://` source that is the agent's directory.
pub const AGENT_SOURCE: &str = "pontoon-agent";
/// The agent's name in that directory.
pub const AGENT_FILE: &str = "pontoon";
/// Where the op that delivers the agent has that directory.
pub(in crate::engine) const DELIVERY: &str = "/.pontoon/delivery";

/// Lowers the delivery of an agent into the store of a daemon: it runs from the client's own copy
/// of its file and puts another into the cache mount, or the device. That takes no privilege.
pub fn install(id: &str, shape: Shape, nonce: &str) -> Result<Vec<u8>, Error> {
    let mut definition = Definition::new();
    let source = Source::local(AGENT_SOURCE, id);
    let source = definition.source(source, metadata("pontoon: agent", "agent"))?;
    let mut delivery = mount(DELIVERY, MountKind::Bind, Access::ReadOnly, None, None);
    delivery.input = Some(0);
    let mut exec = Exec {
        args: [&format!("{DELIVERY}/{AGENT_FILE}"), "agent", "install", id]
            .map(str::to_owned)
            .to_vec(),
        env: vec![
            (agent::NONCE.to_owned(), nonce.to_owned()),
            (agent::SHAPE.to_owned(), shape.to_string()),
        ],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: None,
        mounts: vec![
            mount("/", MountKind::Scratch, Access::ReadWrite, None, Some(0)),
            delivery,
        ],
        network: Network::None,
        security: Security::Sandbox,
        devices: Vec::new(),
        inputs: vec![source.output(0)],
    };
    match shape {
        Shape::Strong => exec.devices.push(STORE_DEVICE.to_owned()),
        Shape::Plain => {
            let store = mount(agent::PLAIN_STORE, cache(), Access::ReadWrite, None, None);
            exec.mounts.push(store);
        }
    }
    let op = definition.exec(exec, metadata("pontoon: install the agent", "install"))?;
    definition.marshal(&op.output(0))
}
