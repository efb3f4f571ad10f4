//! What the parts promise together, by example; `golden` and `arbitrary` do so by vector and by
//! property.

mod arbitrary;
mod golden;

use prost::Message;

use super::*;

/// Makes an op with nothing but a root.
pub(super) fn exec<const N: usize>(args: [&str; N]) -> Exec {
    Exec {
        args: args.map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: "/".into(),
        user: String::new(),
        hostname: None,
        mounts: vec![scratch("/", 0)],
        network: Network::Default,
        security: Security::Sandbox,
        devices: Vec::new(),
        inputs: Vec::new(),
    }
}

pub(super) fn mount(dest: &str, kind: MountKind) -> Mount {
    let access = Access::ReadWrite;
    Mount {
        dest: dest.into(),
        kind,
        access,
        selector: None,
        input: None,
        output: None,
    }
}

pub(super) fn scratch(dest: &str, output: usize) -> Mount {
    Mount {
        output: Some(output),
        ..mount(dest, MountKind::Scratch)
    }
}

pub(super) fn cache(dest: &str, selector: Option<&str>, access: Access) -> Mount {
    let kind = MountKind::Cache {
        id: "pontoon-store".into(),
        sharing: Sharing::Shared,
    };
    Mount {
        selector: selector.map(str::to_owned),
        access,
        ..mount(dest, kind)
    }
}

pub(super) fn metadata() -> Metadata {
    let caps = std::collections::BTreeSet::new();
    Metadata {
        custom_name: None,
        progress_group: None,
        cache: CachePolicy::Use,
        caps,
    }
}

fn fault(change: impl FnOnce(&mut Exec, &mut Metadata)) -> Fault {
    let (mut exec, mut metadata) = (exec(["true"]), metadata());
    change(&mut exec, &mut metadata);
    match Definition::new().exec(exec, metadata) {
        Err(Error::Op(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

/// Wraps one op as a definition, whatever it is.
fn wrap(op: pb::Op) -> Vec<u8> {
    let bytes = encode::canonical(op);
    let terminal = encode::terminal(&Digest::of(&bytes).output(0));
    pb::Definition {
        def: vec![bytes, terminal],
        ..Default::default()
    }
    .encode_to_vec()
}

#[test]
fn refuses_ignored_cache_with_cache_mount() {
    let found = fault(|exec, metadata| {
        exec.mounts.push(cache("/nix", None, Access::ReadWrite));
        metadata.cache = CachePolicy::Ignore;
    });
    assert_eq!(
        found,
        Fault::IgnoreCacheWithCacheMount {
            dest: "/nix".into()
        }
    );
    assert!(found.to_string().contains("nonce"));
}

#[test]
fn refuses_ignored_cache_with_cache_mount_when_reading() {
    let mut exec = exec(["true"]);
    exec.mounts.push(cache("/nix", None, Access::ReadWrite));
    let mut definition = Definition::new();
    let digest = definition.exec(exec, metadata()).unwrap();
    let bytes = definition.marshal(&digest.output(0)).unwrap();
    let mut message = pb::Definition::decode(&*bytes).unwrap();
    message
        .metadata
        .values_mut()
        .for_each(|metadata| metadata.ignore_cache = true);
    let source = Fault::IgnoreCacheWithCacheMount {
        dest: "/nix".into(),
    };
    assert_eq!(
        decode(&message.encode_to_vec()),
        Err(DecodeError::Fault { digest, source })
    );
}

#[test]
fn refuses_what_buildkit_refuses() {
    assert_eq!(fault(|exec, _| exec.args.clear()), Fault::NoArguments);
    assert_eq!(fault(|exec, _| exec.mounts.clear()), Fault::NoRoot);
    let root = mount("/", MountKind::Tmpfs { size: None });
    assert_eq!(fault(|exec, _| exec.mounts.push(root)), Fault::NoRoot);
    let no_output = Fault::ScratchWithoutOutput { dest: "/".into() };
    assert_eq!(fault(|exec, _| exec.mounts[0].output = None), no_output);
    let bind = Mount {
        input: Some(1),
        ..mount("/in", MountKind::Bind)
    };
    let expected = Fault::NoSuchInput {
        dest: "/in".into(),
        input: 1,
        count: 0,
    };
    assert_eq!(fault(|exec, _| exec.mounts.push(bind)), expected);
}

#[test]
fn refuses_outputs_out_of_order() {
    let expected = Fault::OutputOrder {
        dest: "/b".into(),
        found: 2,
        expected: 1,
    };
    assert_eq!(
        fault(|exec, _| exec.mounts.push(scratch("/b", 2))),
        expected
    );
    let memory = Mount {
        output: Some(1),
        ..mount("/m", MountKind::Tmpfs { size: None })
    };
    let expected = Fault::OutputOfTransient { dest: "/m".into() };
    assert_eq!(fault(|exec, _| exec.mounts.push(memory)), expected);
}

#[test]
fn refuses_paths_that_leave_their_place() {
    for dest in ["", "a", "/a/../b", "/a//b", "/a/", "/./a", "/a\0"] {
        let found = fault(|exec, _| exec.mounts.push(cache(dest, None, Access::ReadOnly)));
        assert!(
            matches!(found, Fault::BadPath { .. }),
            "{dest:?}: {found:?}"
        );
    }
    for selector in ["..", "store/../..", "/", "//", "a/./b"] {
        let mount = cache("/c", Some(selector), Access::ReadOnly);
        let found = fault(|exec, _| exec.mounts.push(mount));
        assert!(
            matches!(found, Fault::BadSelector { .. }),
            "{selector:?}: {found:?}"
        );
    }
}

#[test]
fn refuses_values_that_would_come_back_as_others() {
    let variable = |name: &str| vec![(name.to_owned(), String::new())];
    assert_eq!(
        fault(|exec, _| exec.env = variable("a=b")),
        Fault::BadVariable { name: "a=b".into() }
    );
    assert_eq!(
        fault(|exec, _| exec.env = variable("")),
        Fault::Empty {
            field: "variable name"
        }
    );
    assert_eq!(
        fault(|exec, _| exec.hostname = Some(String::new())),
        Fault::Empty { field: "hostname" }
    );
    let image = Source {
        attributes: [("image.checksum".to_owned(), String::new())].into(),
        ..Source::image("a")
    };
    let found = Definition::new().source(image, metadata());
    assert_eq!(
        found,
        Err(Error::Op(Fault::Empty {
            field: "attribute value"
        }))
    );
}

#[test]
fn refuses_inputs_that_were_not_added() {
    let mut definition = Definition::new();
    let missing = Digest::of(b"");
    let with_input = |input| Exec {
        inputs: vec![input],
        ..exec(["b"])
    };
    assert_eq!(
        definition.exec(with_input(missing.output(0)), metadata()),
        Err(Error::NoSuchOp {
            digest: missing.clone()
        })
    );
    let digest = definition.exec(exec(["a"]), metadata()).unwrap();
    assert_eq!(
        definition.exec(with_input(digest.output(1)), metadata()),
        Err(Error::NoSuchOutput {
            digest,
            index: 1,
            count: 1
        })
    );
    assert_eq!(
        definition.marshal(&missing.output(0)),
        Err(Error::NoSuchOp { digest: missing })
    );
}

#[test]
fn writes_only_what_the_result_needs() {
    let mut definition = Definition::new();
    let a = definition.exec(exec(["a"]), metadata()).unwrap();
    definition.exec(exec(["stray"]), metadata()).unwrap();
    let again = definition.exec(exec(["a"]), metadata()).unwrap();
    assert_eq!(a, again);
    let decoded = decode(&definition.marshal(&a.output(0)).unwrap()).unwrap();
    assert_eq!(decoded.ops.len(), 1);
}

#[test]
fn refuses_definitions_no_engine_takes() {
    let mut definition = Definition::new();
    let large = definition
        .exec(exec([&"x".repeat(5 << 20)]), metadata())
        .unwrap();
    assert!(definition.marshal(&large.output(0)).is_ok());
    let found = definition.marshal_within(&large.output(0), OLD_MESSAGE_LIMIT);
    assert!(matches!(
        found,
        Err(Error::TooLarge {
            limit: OLD_MESSAGE_LIMIT,
            ..
        })
    ));
    let found = decode(&vec![0; MESSAGE_LIMIT + 1]);
    assert!(matches!(found, Err(DecodeError::TooLarge { .. })));
}

#[test]
fn reads_chains_longer_than_the_stack() {
    let mut definition = Definition::new();
    let mut last = definition.exec(exec(["first"]), metadata()).unwrap();
    for _ in 0..20_000 {
        let next = Exec {
            inputs: vec![last.output(0)],
            ..exec(["next"])
        };
        last = definition.exec(next, metadata()).unwrap();
    }
    let decoded = decode(&definition.marshal(&last.output(0)).unwrap()).unwrap();
    assert_eq!(decoded.ops.len(), 20_001);
    assert_eq!(decoded.ops[0].op, Op::Exec(exec(["first"])));
}

#[test]
fn names_kinds_it_does_not_run() {
    let kind = pb::op::Op::File(pb::FileOp::default());
    let found = decode(&wrap(pb::Op {
        op: Some(kind),
        ..Default::default()
    }));
    assert!(
        matches!(
            found,
            Err(DecodeError::UnsupportedKind { kind: "file", .. })
        ),
        "{found:?}"
    );
    let found = decode(&wrap(pb::Op::default()));
    assert!(
        matches!(
            found,
            Err(DecodeError::UnsupportedKind { kind: "none", .. })
        ),
        "{found:?}"
    );
}

#[test]
fn names_fields_it_does_not_know() {
    let with_meta = |change: &dyn Fn(&mut pb::Meta)| {
        let mut op = encode::op(&Op::Exec(exec(["true"])));
        if let Some(pb::op::Op::Exec(exec)) = &mut op.op {
            change(exec.meta.as_mut().unwrap());
        }
        decode(&wrap(op))
    };
    assert!(with_meta(&|_| ()).is_ok());
    for (name, change) in [
        (
            "meta.validExitCodes",
            &(|meta: &mut pb::Meta| meta.valid_exit_codes = vec![1]) as &_,
        ),
        ("meta.cgroupParent", &|meta: &mut pb::Meta| {
            meta.cgroup_parent = "x".into();
        }),
        ("meta.proxy_env", &|meta: &mut pb::Meta| {
            meta.proxy_env = Some(pb::ProxyEnv::default());
        }),
    ] as [(&str, &dyn Fn(&mut pb::Meta)); 3]
    {
        match with_meta(change) {
            Err(DecodeError::UnsupportedField { field, .. }) => assert_eq!(field, name),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn shows_fields_that_protobuf_would_skip() {
    let mut bytes = encode::canonical(encode::op(&Op::Exec(exec(["true"]))));
    // Field 100, of length 0.
    bytes.extend([0xa2, 0x06, 0x00]);
    let digest = Digest::of(&bytes);
    let def = vec![bytes, encode::terminal(&digest.output(0))];
    let found = decode(
        &pb::Definition {
            def,
            ..Default::default()
        }
        .encode_to_vec(),
    );
    assert_eq!(found, Err(DecodeError::NotCanonical { digest }));
}

#[test]
fn names_what_a_definition_lacks() {
    assert_eq!(decode(&[]), Err(DecodeError::NoOps));
    let op = encode::canonical(encode::op(&Op::Exec(exec(["true"]))));
    let digest = Digest::of(&op);
    let read = |def: Vec<Vec<u8>>| {
        decode(
            &pb::Definition {
                def,
                ..Default::default()
            }
            .encode_to_vec(),
        )
    };
    assert_eq!(
        read(vec![op.clone()]),
        Err(DecodeError::NoTerminal {
            digest: digest.clone()
        })
    );
    let terminal = encode::terminal(&digest.output(0));
    assert_eq!(
        read(vec![terminal]),
        Err(DecodeError::NoSuchOp {
            digest: digest.clone()
        })
    );
    assert_eq!(
        read(vec![op.clone(), encode::terminal(&digest.output(3))]),
        Err(DecodeError::NoSuchOutput {
            digest,
            index: 3,
            count: 1
        })
    );
    assert_eq!(read(vec![op, Vec::new()]), Err(DecodeError::NoResult));
}

#[test]
fn digests_have_one_form() {
    let digest = Digest::of(b"");
    assert_eq!(Digest::parse(digest.as_str()), Ok(digest.clone()));
    for text in [
        "",
        "sha256:",
        &digest.as_str().to_uppercase(),
        &format!("{digest}0"),
    ] {
        assert!(Digest::parse(text).is_err(), "{text}");
    }
}
