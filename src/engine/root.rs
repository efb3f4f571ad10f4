//! What an effect has at `/`, where that is not empty: the part of lowering that knows roots.
//!
//! The root is read-only, so that nothing an effect writes becomes a layer of the daemon's;
//! `/.pontoon` is the op's scratch instead. Who users are is in files of ours, over those of the
//! image: whoever an effect runs as has a name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::OpRoot;
use super::lower::{metadata, mount, secret_file, secret_id};
use crate::agent;
use crate::llb::{Access, Definition, Error, Exec, Input, MountKind, Network, Source};
use crate::pipeline::Root;

/// The files in which an image reads who users are; ours name those of every op.
const ACCOUNTS: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// What a daemon must know for an image in a layout.
pub const LAYOUTS: &str = "source.ocilayout";

/// Says what the engine is to make of what is at the `/` of an effect's op; `here` is where that
/// lies on this machine, if it does, and `outside` the network of what is made.
pub fn op_root(root: &Root, here: Option<PathBuf>, outside: Network) -> OpRoot {
    match root {
        Root::Empty => OpRoot::Defined,
        Root::Image(reference) => OpRoot::Image(reference.to_string()),
        Root::Layout(_) => OpRoot::Layout(here),
        Root::Dockerfile(build) => {
            let mut options: BTreeMap<String, String> = build
                .args
                .iter()
                .map(|(name, value)| (format!("build-arg:{name}"), value.clone()))
                .collect();
            options.insert("filename".to_owned(), build.file.clone());
            let target = build
                .target
                .clone()
                .map(|stage| ("target".to_owned(), stage));
            options.extend(target);
            if outside == Network::Host {
                options.insert("force-network-mode".to_owned(), "host".to_owned());
            }
            OpRoot::Dockerfile(options)
        }
    }
}

/// Lowers an image to be at the `/` of an op.
pub fn image(reference: &str) -> Result<Vec<u8>, Error> {
    let mut definition = Definition::new();
    let name = format!("image {reference}");
    let op = definition.source(Source::image(reference), metadata(&name, "image"))?;
    definition.marshal(&op.output(0))
}

/// Lowers the image of a layout, which the session offers as `store`, to be at the `/` of an op.
pub fn layout(digest: &str, store: &str) -> Result<Vec<u8>, Error> {
    let mut definition = Definition::new();
    let source = Source::oci_layout(&format!("pontoon/root@{digest}"), store);
    let op = definition.source(source, metadata(&format!("image {digest}"), "image"))?;
    definition.marshal(&op.output(0))
}

/// The files that an op needs besides its secrets where its root is an image, by their ids.
pub fn accounts(nonce: &str) -> [(String, Vec<u8>); 2] {
    let [passwd, group] = ACCOUNTS.map(|dest| secret_id(nonce, dest));
    [
        (passwd, agent::image::passwd().into_bytes()),
        (group, agent::image::group().into_bytes()),
    ]
}

/// Puts something else than an empty directory at `/`.
pub(super) fn set_root(exec: &mut Exec, root: Input, nonce: &str) {
    exec.inputs.push(root);
    let mut at_root = mount("/", MountKind::Bind, Access::ReadOnly, None, None);
    at_root.input = Some(0);
    exec.mounts[0] = at_root;
    let own = mount(
        agent::OWN,
        MountKind::Scratch,
        Access::ReadWrite,
        None,
        Some(0),
    );
    exec.mounts.insert(1, own);
    for dest in ACCOUNTS {
        exec.mounts.push(secret_file(dest, secret_id(nonce, dest)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::InStore;
    use crate::pipeline::Dockerfile;

    #[test]
    fn a_dockerfile_is_told_by_the_options_of_its_frontend() {
        let context = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-deploy";
        let build = Root::Dockerfile(Dockerfile {
            context: InStore::parse(context).unwrap(),
            file: "ci/Dockerfile".to_owned(),
            target: Some("last".to_owned()),
            args: [("A".to_owned(), "1".to_owned())].into(),
        });
        let options = [
            ("build-arg:A", "1"),
            ("filename", "ci/Dockerfile"),
            ("target", "last"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut options = BTreeMap::from(options);
        let root = |root, outside| op_root(root, None, outside);
        let made = OpRoot::Dockerfile(options.clone());
        assert_eq!(root(&build, Network::Default), made);
        options.insert("force-network-mode".to_owned(), "host".to_owned());
        let made = OpRoot::Dockerfile(options);
        assert_eq!(root(&build, Network::Host), made);
        assert_eq!(root(&Root::Empty, Network::Host), OpRoot::Defined);
    }
}
