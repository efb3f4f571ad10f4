//! Properties: any op we can say survives the way there and back, and no bytes panic.

use std::path::Path;

use proptest::prelude::*;

use super::super::*;
use super::{metadata, scratch};

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::ReadOnly), Just(Access::ReadWrite)]
}

fn sharing() -> impl Strategy<Value = Sharing> {
    prop_oneof![
        Just(Sharing::Shared),
        Just(Sharing::Private),
        Just(Sharing::Locked)
    ]
}

/// What is no output and has no input: those are placed by `exec`.
fn transient() -> impl Strategy<Value = MountKind> {
    let owned = || ("[a-z.-]{1,9}", any::<(u32, u32, u32, bool)>());
    prop_oneof![
        ("[^\0]{1,9}", sharing()).prop_map(|(id, sharing)| MountKind::Cache { id, sharing }),
        proptest::option::of(1..i64::MAX).prop_map(|size| MountKind::Tmpfs { size }),
        owned().prop_map(|(id, (uid, gid, mode, optional))| {
            MountKind::Secret {
                id,
                uid,
                gid,
                mode,
                optional,
            }
        }),
        owned().prop_map(|(id, (uid, gid, mode, optional))| {
            MountKind::Ssh {
                id,
                uid,
                gid,
                mode,
                optional,
            }
        }),
    ]
}

fn mount() -> impl Strategy<Value = Mount> {
    let kind = prop_oneof![3 => transient(), 1 => Just(MountKind::Bind)];
    let selector = proptest::option::of("/?[a-z]{1,4}(/[a-z]{1,4}){0,2}");
    ("(/[a-zé]{1,6}){1,3}", kind, access(), selector).prop_map(|(dest, kind, access, selector)| {
        let input = (kind == MountKind::Bind).then_some(0);
        Mount {
            dest,
            kind,
            access,
            selector,
            input,
            output: None,
        }
    })
}

prop_compose! {
    fn exec()(
        args in proptest::collection::vec("[^\0]{0,12}", 1..4),
        env in proptest::collection::vec(("[^=\0]{1,6}", "[^\0]{0,12}"), 0..4),
        cwd in "/|(/[a-z]{1,5}){1,3}",
        user in "[a-z0-9:]{0,6}",
        hostname in proptest::option::of("[a-z]{1,9}"),
        mut mounts in proptest::collection::vec(mount(), 0..6),
        extra in proptest::collection::vec("(/[a-z]{1,6}){1,3}", 0..3),
        network in prop_oneof![Just(Network::Default), Just(Network::None), Just(Network::Host)],
        security in prop_oneof![Just(Security::Sandbox), Just(Security::Insecure)],
        devices in proptest::collection::vec("[a-z]{1,4}/[a-z]{1,4}=[a-z]{1,4}", 0..3),
    ) -> Exec {
        mounts.insert(0, scratch("/", 0));
        mounts.extend(extra.iter().enumerate().map(|(at, dest)| scratch(dest, at + 1)));
        let inputs = Vec::new();
        Exec { args, env, cwd, user, hostname, mounts, network, security, devices, inputs }
    }
}

/// A chain: each op has all earlier ones before it and mounts the first output of the one before.
fn definition(ops: Vec<Exec>) -> (Vec<(Digest, Op)>, Vec<u8>) {
    let mut definition = Definition::new();
    let mut added: Vec<(Digest, Op)> = Vec::new();
    for mut exec in ops {
        exec.inputs = added
            .iter()
            .rev()
            .map(|(digest, _)| digest.output(0))
            .collect();
        if exec.inputs.is_empty() {
            exec.mounts.retain(|mount| mount.kind != MountKind::Bind);
        }
        let op = Op::Exec(exec);
        let name = Some(format!("op {}", added.len()));
        let metadata = Metadata {
            custom_name: name,
            ..metadata()
        };
        added.push((definition.add(&op, metadata).unwrap(), op));
    }
    let result = added.last().unwrap().0.output(0);
    let bytes = definition.marshal(&result).unwrap();
    (added, bytes)
}

proptest! {
    #[test]
    fn survives_the_way_there_and_back(ops in proptest::collection::vec(exec(), 1..4)) {
        let (added, bytes) = definition(ops);
        let decoded = decode(&bytes).unwrap();
        let mut again = Definition::new();
        for (node, (digest, op)) in decoded.ops.iter().zip(&added) {
            prop_assert_eq!(&node.digest, digest);
            prop_assert_eq!(&node.op, op);
            again.add(&node.op, node.metadata.clone()).unwrap();
        }
        prop_assert_eq!(decoded.ops.len(), added.len());
        prop_assert_eq!(again.marshal(&decoded.result).unwrap(), bytes);
    }

    #[test]
    fn reads_any_bytes_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes);
    }

    /// Damage to an op changes its digest, so what is accepted has the ops of the original.
    #[test]
    fn reads_damaged_definitions_without_panic(
        name in proptest::sample::select(vec!["plain", "strong", "effect", "source", "ordering", "client"]),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut bytes = fs_err::read(golden.join(format!("{name}.pb"))).unwrap();
        let original = decode(&bytes).unwrap();
        for (at, value, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = value,
                1 => bytes.insert(at, value),
                _ => { bytes.remove(at); }
            }
        }
        if let Ok(decoded) = decode(&bytes) {
            for node in &decoded.ops {
                prop_assert!(original.ops.iter().any(|it| it.digest == node.digest && it.op == node.op));
            }
        }
    }

    /// The same inside one op, with the digests that follow from it, so that the types are reached.
    #[test]
    fn reads_damaged_ops_without_panic(
        exec in exec(),
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        use prost::Message;
        let mut exec = exec;
        exec.mounts.retain(|mount| mount.kind != MountKind::Bind);
        let mut op = encode::canonical(encode::op(&Op::Exec(exec)));
        let at = at.index(op.len());
        op[at] = value;
        let def = vec![op.clone(), encode::terminal(&Digest::of(&op).output(0))];
        if let Ok(decoded) = decode(&pb::Definition { def, ..Default::default() }.encode_to_vec()) {
            prop_assert_eq!(&decoded.ops[0].digest, &Digest::of(&op));
            prop_assert!(validate::op(&decoded.ops[0].op, &metadata()).is_ok());
        }
    }
}
