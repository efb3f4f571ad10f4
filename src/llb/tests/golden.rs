//! The same definitions as `integration/golden/definitions.go`, and the bytes `BuildKit` wrote.

use std::path::Path;

use prost::Message;

use super::super::*;
use super::{cache, exec, metadata, mount, scratch};

const HELLO: &str = "0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-hello-1.0";
const SHELL: &str = "5hyjpwvmyc8l6rgnhcgrq5pqdd54mf84-dash-0.5";

fn read(name: &str) -> Vec<u8> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    fs_err::read(golden.join(name)).unwrap()
}

fn digests(name: &str) -> Vec<Digest> {
    let json: serde_json::Value = serde_json::from_slice(&read(&format!("{name}.json"))).unwrap();
    let text = |value: &serde_json::Value| Digest::parse(value.as_str().unwrap()).unwrap();
    json["ops"].as_array().unwrap().iter().map(text).collect()
}

/// Says that our bytes and digests are `BuildKit`'s, and that reading them loses nothing.
fn check(name: &str, definition: &Definition, result: &Input) {
    let golden = read(&format!("{name}.pb"));
    let ours = definition.marshal(result).unwrap();
    let message = |bytes: &[u8]| pb::Definition::decode(bytes).unwrap();
    assert_eq!(message(&ours), message(&golden), "{name}");
    assert_eq!(ours, golden, "{name}");

    let decoded = decode(&golden).unwrap();
    let found = decoded.ops.iter().map(|node| node.digest.clone());
    let found: Vec<_> = found.chain([decoded.terminal.clone()]).collect();
    assert_eq!(found, digests(name), "{name}");
    assert_eq!(again(&decoded), golden, "{name}");
}

fn again(decoded: &Decoded) -> Vec<u8> {
    let mut definition = Definition::new();
    for node in &decoded.ops {
        assert_eq!(
            definition.add(&node.op, node.metadata.clone()).unwrap(),
            node.digest
        );
    }
    definition.marshal(&decoded.result).unwrap()
}

fn check_exec(name: &str, exec: Exec, metadata: Metadata) {
    let mut definition = Definition::new();
    let digest = definition.exec(exec, metadata).unwrap();
    check(name, &definition, &digest.output(0));
}

fn named(name: &str) -> Metadata {
    let group = ProgressGroup {
        id: format!("node-{name}"),
        name: name.into(),
    };
    Metadata {
        custom_name: Some(name.into()),
        progress_group: Some(group),
        ..metadata()
    }
}

fn with(args: &[&str], env: &[(&str, &str)], mounts: Vec<Mount>) -> Exec {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Exec {
        args: args.iter().copied().map(str::to_owned).collect(),
        env: env.iter().map(own).collect(),
        mounts,
        ..exec([])
    }
}

fn tmpfs(dest: &str, size: i64) -> Mount {
    mount(dest, MountKind::Tmpfs { size: Some(size) })
}

fn ssh(dest: &str, id: &str) -> Mount {
    let id = id.to_owned();
    mount(
        dest,
        MountKind::Ssh {
            id,
            uid: 0,
            gid: 0,
            mode: 0o600,
            optional: false,
        },
    )
}

fn secret(dest: &str, id: &str, uid: u32, gid: u32, optional: bool) -> Mount {
    let id = id.to_owned();
    mount(
        dest,
        MountKind::Secret {
            id,
            uid,
            gid,
            mode: 0o400,
            optional,
        },
    )
}

fn bind(dest: &str, input: usize, access: Access, output: Option<usize>) -> Mount {
    Mount {
        input: Some(input),
        access,
        output,
        ..mount(dest, MountKind::Bind)
    }
}

#[test]
fn plain() {
    let drv = format!("/nix/store/{HELLO}.drv");
    let shell = (format!("/nix/store/{SHELL}"), format!("store/{SHELL}"));
    let exec = with(
        &["/.pontoon/agent", "agent", "build", &drv],
        &[
            ("PONTOON_STORE_ID", "5f0c"),
            ("PONTOON_NONCE", &"0".repeat(32)),
        ],
        vec![
            scratch("/", 0),
            cache(
                "/.pontoon/agent",
                Some("pontoon/agent/0123abcd"),
                Access::ReadOnly,
            ),
            cache("/.pontoon/store", None, Access::ReadWrite),
            cache(
                "/nix/store",
                Some("pontoon/slots/3/store"),
                Access::ReadWrite,
            ),
            cache(&shell.0, Some(&shell.1), Access::ReadOnly),
            tmpfs("/build", 4 << 30),
            tmpfs("/tmp", 1 << 30),
            tmpfs("/dev/shm", 64 << 20),
            ssh("/.pontoon/tunnel", "tunnel-7"),
        ],
    );
    let exec = Exec {
        hostname: Some("localhost".into()),
        network: Network::None,
        ..exec
    };
    check_exec("plain", exec, named("hello"));
}

#[test]
fn strong() {
    let exec = with(
        &["/nix/pontoon/agent/0123abcd", "agent", "jobs"],
        &[("PONTOON_NONCE", "00000000000000000000000000000001")],
        vec![
            scratch("/", 0),
            tmpfs("/tmp", 1 << 30),
            ssh("/.pontoon/tunnel", "tunnel-8"),
        ],
    );
    let devices = vec!["pontoon.dev/store=main".to_owned()];
    let user = "0:0".to_owned();
    let exec = Exec {
        user,
        devices,
        security: Security::Insecure,
        ..exec
    };
    check_exec("strong", exec, named("jobs"));
}

#[test]
fn effect() {
    let hello = (format!("/nix/store/{HELLO}"), format!("store/{HELLO}"));
    let exec = with(
        &["/.pontoon/agent", "agent", "effect", "deploy"],
        &[
            ("PONTOON_NONCE", &"f".repeat(32)),
            ("EMPTY", ""),
            ("NOTE", "a=b"),
        ],
        vec![
            scratch("/", 0),
            cache("/.pontoon/store", None, Access::ReadWrite),
            cache(&hello.0, Some(&hello.1), Access::ReadOnly),
            secret("/run/secrets/token", "deploy.token", 1000, 100, false),
            secret("/run/secrets/extra", "deploy.extra", 1000, 100, true),
            ssh("/.pontoon/tunnel", "tunnel-9"),
        ],
    );
    check_exec("effect", exec, named("deploy"));
}

#[test]
fn ssh_mount() {
    let id = "default".to_owned();
    let kind = MountKind::Ssh {
        id,
        uid: 7,
        gid: 8,
        mode: 0o666,
        optional: true,
    };
    check_exec(
        "ssh",
        with(&["true"], &[], vec![scratch("/", 0), mount("/agent", kind)]),
        metadata(),
    );
}

#[test]
fn tmpfs_mount() {
    let unsized_mount = mount("/a", MountKind::Tmpfs { size: None });
    let mounts = vec![scratch("/", 0), unsized_mount, tmpfs("/b", 4096)];
    check_exec("tmpfs", with(&["true"], &[], mounts), metadata());
}

#[test]
fn secret_mount() {
    let mounts = vec![scratch("/", 0), secret("/s", "key", 0, 0, false)];
    check_exec("secret", with(&["true"], &[], mounts), metadata());
}

#[test]
fn cdi() {
    let devices = vec!["a.example/b=c".to_owned(), "a.example/b=d".to_owned()];
    check_exec(
        "cdi",
        Exec {
            devices,
            ..exec(["true"])
        },
        metadata(),
    );
}

#[test]
fn insecure() {
    let (security, network) = (Security::Insecure, Network::Host);
    check_exec(
        "insecure",
        Exec {
            network,
            security,
            ..exec(["true"])
        },
        metadata(),
    );
}

#[test]
fn sharing() {
    let kind = |id: &str, sharing| MountKind::Cache {
        id: id.into(),
        sharing,
    };
    let private = mount("/private", kind("pontoon-store", Sharing::Private));
    let locked = mount("/locked", kind("other", Sharing::Locked));
    check_exec(
        "sharing",
        with(&["true"], &[], vec![scratch("/", 0), private, locked]),
        metadata(),
    );
}

#[test]
fn source() {
    let mut definition = Definition::new();
    let root = "pontoon/root@sha256:\
                e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let image = definition
        .source(Source::oci_layout(root, "pontoon"), named("root"))
        .unwrap();
    let mut local = Source::local("agent", "pontoon-agent");
    local
        .attributes
        .insert("local.includepattern".into(), r#"["agent"]"#.into());
    let local = definition.source(local, metadata()).unwrap();
    let agent = Mount {
        selector: Some("/agent".into()),
        ..bind("/agent", 1, Access::ReadOnly, None)
    };
    let root = bind("/", 0, Access::ReadOnly, None);
    let mounts = vec![root, agent, scratch("/out", 0), scratch("/log", 1)];
    let first = Exec {
        inputs: vec![image.output(0), local.output(0)],
        ..with(&["/agent"], &[("LANG", "C"), ("NAME", "größe ✓")], mounts)
    };
    let first = definition.exec(first, metadata()).unwrap();
    let second = Exec {
        inputs: vec![first.output(1)],
        ..with(
            &["true"],
            &[],
            vec![bind("/", 0, Access::ReadWrite, Some(0))],
        )
    };
    let second = definition.exec(second, metadata()).unwrap();
    check("source", &definition, &second.output(0));
}

#[test]
fn ordering() {
    let mut definition = Definition::new();
    let mut step = |name: &str, inputs: &[&Digest], metadata| {
        let inputs = inputs.iter().map(|digest| digest.output(0)).collect();
        definition
            .exec(
                Exec {
                    inputs,
                    ..exec(["step", name])
                },
                metadata,
            )
            .unwrap()
    };
    let a = step("a", &[], metadata());
    let b = step("b", &[&a], metadata());
    let c = step("c", &[&a], metadata());
    let last = Metadata {
        cache: CachePolicy::Ignore,
        ..named("last")
    };
    let d = step("d", &[&b, &c], last);
    check("ordering", &definition, &d.output(0));
}

/// An ordinary Go client writes a platform, and output 0 for what cannot be an output.
#[test]
fn reads_what_the_go_client_writes() {
    let decoded = decode(&read("client.pb")).unwrap();
    let [node] = &decoded.ops[..] else {
        panic!("{decoded:?}")
    };
    assert_eq!(
        [node.digest.clone(), decoded.terminal.clone()][..],
        digests("client")[..]
    );
    assert_eq!(node.platform.as_ref().unwrap().architecture, "amd64");
    assert_eq!(node.metadata.custom_name.as_deref(), Some("by the client"));
    let Op::Exec(exec) = &node.op else {
        panic!("{node:?}")
    };
    assert_eq!(exec.network, Network::None);
    assert_eq!(exec.output_count(), 1);
    let mount = |dest: &str| exec.mounts.iter().find(|mount| mount.dest == dest).unwrap();
    let secret = mount("/run/secret");
    assert_eq!((secret.output, secret.makes_output()), (Some(0), false));
    assert_eq!(
        mount("/memory").kind,
        MountKind::Tmpfs {
            size: Some(1 << 20)
        }
    );
    let id = "id".to_owned();
    assert_eq!(
        mount("/cache").kind,
        MountKind::Cache {
            id,
            sharing: Sharing::Locked
        }
    );
    let platform = pb::Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..Default::default()
    };
    // With a platform the oneof is not last by number, so this holds its place.
    let message = pb::Definition::decode(&*read("client.pb")).unwrap();
    let op = pb::Op::decode(&*message.def[0]).unwrap();
    assert_eq!(op.platform, Some(platform));
    assert_eq!(encode::canonical(op.clone()), message.def[0]);
    assert_ne!(op.encode_to_vec(), message.def[0]);
}
