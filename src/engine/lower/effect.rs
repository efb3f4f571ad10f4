//! An effect: what it finds at `/`, how much of the store it sees, and its secrets.
//!
//! One with a root of its own has that at `/`, read-only, so that nothing it writes becomes a layer of
//! the daemon's; `/.pontoon` is the scratch then. What lies in the store, a layout or a Dockerfile's
//! context, an op before it copies to where the daemon can see it; the effect's op has that one at `/`,
//! and the engine puts what is made of it there ([`OpRoot`](crate::engine::OpRoot)).

use super::mounts::{cache, mount, secret_file, secret_id};
use super::{Lowering, Reach, metadata};
use crate::agent::{self, Shape};
use crate::engine::root::set_root;
use crate::llb::{Access, Definition, Error, Input, MountKind, Source};
use crate::nix::{InStore, StorePath};
use crate::pipeline::{Root, StoreView};

/// Bytes of the memory that hides an image's own store: enough for mount points and links.
const STORE_SIZE: i64 = 64 << 20;

/// What an effect has mounted.
#[derive(Debug, Clone)]
pub struct EffectInputs<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it finds at `/`.
    pub root: &'a Root,
    /// How much of the store it sees.
    pub store: StoreView,
    /// The paths of the closure it sees that a mount can bring; none if it sees all.
    pub closure: Vec<&'a StorePath>,
    /// The names of its secrets.
    pub secrets: Vec<&'a str>,
}

impl Lowering {
    /// Lowers an effect.
    pub fn effect(&self, effect: &EffectInputs<'_>, nonce: &str) -> Result<Vec<u8>, Error> {
        let node = format!("effect:{}", effect.name);
        let name = format!("effect {}", effect.name);
        let mut definition = Definition::new();
        let mut exec = self.exec(&["effect", effect.name], nonce, Reach::Network);
        let root = match effect.root {
            Root::Empty => None,
            Root::Image(reference) => {
                let source = Source::image(reference.as_str());
                let name = format!("{name}: image {reference}");
                let op = definition.source(source, metadata(&name, &node))?;
                Some(op.output(0))
            }
            Root::Layout(place) => Some(self.export(&mut definition, place, nonce, &node)?),
            Root::Dockerfile(build) => {
                Some(self.export(&mut definition, &build.context, nonce, &node)?)
            }
        };
        if let Some(root) = root {
            set_root(&mut exec, root, nonce);
        }
        if self.shape == Shape::Plain {
            match (effect.store, effect.root) {
                (StoreView::Whole, _) => {
                    let whole = mount("/nix", cache(), Access::ReadWrite, None, None);
                    exec.mounts.push(whole);
                }
                (StoreView::Closure, Root::Empty) => {}
                // An image's own store is hidden.
                (StoreView::Closure, _) => exec.mounts.push(self.memory("/nix/store", STORE_SIZE)),
            }
            self.add_plain_room(&mut exec, None, &effect.closure);
            // An image has a shell of its own, or none.
            if *effect.root == Root::Empty {
                self.add_sandbox_paths(&mut exec);
            }
        }
        for secret in &effect.secrets {
            let dest = format!("{}/{secret}", agent::SECRETS);
            exec.mounts
                .push(secret_file(&dest, secret_id(nonce, secret)));
        }
        let op = definition.exec(exec, metadata(&name, &node))?;
        definition.marshal(&op.output(0))
    }

    /// Adds an op that copies a directory of the store to where a daemon can use it.
    fn export(
        &self,
        definition: &mut Definition,
        place: &InStore,
        nonce: &str,
        node: &str,
    ) -> Result<Input, Error> {
        let mut exec = self.exec(&["export", &place.to_string()], nonce, Reach::Nothing);
        exec.mounts.push(mount(
            agent::EXPORT,
            MountKind::Scratch,
            Access::ReadWrite,
            None,
            Some(1),
        ));
        let op = definition.exec(exec, metadata(&format!("read {place}"), node))?;
        Ok(op.output(1))
    }
}
