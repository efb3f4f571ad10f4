//! Jobs of a real daemon, driven by the client alone: ops end one by one, errors arrive whole, and
//! a directory is pulled as it is here.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use pontoon::buildkit::address::{Address, Service};
use pontoon::buildkit::auth::Keychain;
use pontoon::buildkit::content::Layouts;
use pontoon::buildkit::filesync::{Directories, Tree};
use pontoon::buildkit::gateway::Opening;
use pontoon::buildkit::secrets::Vault;
use pontoon::buildkit::ssh::Forward;
use pontoon::buildkit::{self, Job, Services, Session};
use pontoon::llb::{
    Access, CachePolicy, Definition, Exec, Metadata, Mount, MountKind, Network, Security, Source,
};

use super::support::{Daemon, Kind, Place, processes_with};

/// A job on a daemon, with a directory that has a static busybox in it.
struct Scene {
    runtime: tokio::runtime::Runtime,
    daemon: buildkit::Daemon,
    session: String,
    job: Job,
}

impl Scene {
    fn new(place: &Place, daemon: &Daemon<'_>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let service = if daemon.kind().is_docker() {
            Service::Dockerd
        } else {
            Service::BuildKitd
        };
        let address = Address::parse(service, &daemon.address()).unwrap();
        let tools = place.at("tools");
        fs_err::create_dir_all(tools.join("bin")).unwrap();
        fs_err::copy("/bin/busybox", tools.join("bin/busybox")).unwrap();
        fs_err::hard_link(tools.join("bin/busybox"), tools.join("bin/sh")).unwrap();
        std::os::unix::fs::symlink("sh", tools.join("bin/sleep")).unwrap();
        let directories = Directories::default();
        directories.offer("tools".to_owned(), Tree::Directory(tools));
        let services = Services {
            forward: Forward {
                id: String::new(),
                socket: PathBuf::new(),
            },
            vault: Vault::default(),
            directories,
            layouts: Layouts::default(),
            keychain: Keychain::default(),
        };
        let session = "0123456789abcdefghijklmno".to_owned();
        let (daemon, job) = runtime.block_on(async {
            let daemon = buildkit::Daemon::connect(&address).await.unwrap();
            Session::open(&daemon, session.clone(), services)
                .await
                .unwrap();
            let job = Job::open(&daemon, opening("job", &session, &[])).await;
            (daemon, job.unwrap())
        });
        Self {
            runtime,
            daemon,
            session,
            job,
        }
    }
}

fn opening(name: &str, session: &str, entitlements: &[&str]) -> Opening {
    Opening {
        reference: name.to_owned(),
        session: session.to_owned(),
        entitlements: entitlements.iter().map(|&one| one.to_owned()).collect(),
    }
}

fn metadata() -> Metadata {
    Metadata {
        custom_name: None,
        progress_group: None,
        cache: CachePolicy::Use,
        caps: std::collections::BTreeSet::new(),
    }
}

/// An op that runs a script.
fn op(script: &str, marker: &str) -> Vec<u8> {
    let mut definition = Definition::new();
    let tools = Source::local("tools", "tools");
    let tools = definition.source(tools, metadata()).unwrap();
    let mount = |dest: &str, kind, access, input, output| Mount {
        dest: dest.to_owned(),
        kind,
        access,
        selector: None,
        input,
        output,
    };
    let exec = Exec {
        args: ["/tools/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("MARKER".to_owned(), marker.to_owned())],
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: None,
        mounts: vec![
            mount("/", MountKind::Scratch, Access::ReadWrite, None, Some(0)),
            mount("/tools", MountKind::Bind, Access::ReadOnly, Some(0), None),
        ],
        network: Network::None,
        security: Security::Sandbox,
        devices: Vec::new(),
        inputs: vec![tools.output(0)],
    };
    let exec = definition.exec(exec, metadata()).unwrap();
    definition.marshal(&exec.output(0)).unwrap()
}

fn runs(marker: &str) -> bool {
    let found = processes_with(&format!("MARKER={marker}"));
    found.values().any(|line| line.contains("sleep 6"))
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

fn ops_end_one_by_one(kind: Kind) {
    let place = Place::new();
    let daemon = Daemon::of(kind, &place);
    let scene = Scene::new(&place, &daemon);
    let id = std::process::id();
    let marker = |name: &str| format!("{name}-{id}-{kind:?}");
    scene.runtime.block_on(async {
        let job = &scene.job;
        let long = |name: &str| job.solve(op("exec /tools/bin/sleep 60", &marker(name)));
        let (killed, other) = (marker("killed"), marker("other"));
        let mut sibling = Box::pin(long("other"));
        {
            let mut doomed = Box::pin(long("killed"));
            tokio::select! {
                ended = &mut doomed => panic!("{ended:?}"),
                ended = &mut sibling => panic!("{ended:?}"),
                _ = until("both run", || runs(&killed) && runs(&other)) => {}
            }
        }
        tokio::select! {
            ended = &mut sibling => panic!("{ended:?}"),
            took = until("the killed one is gone", || !runs(&killed)) => {
                assert!(took < Duration::from_secs(3), "{took:?}");
            }
        }
        // Another one that fails is nothing to the sibling either.
        let failed = tokio::select! {
            ended = &mut sibling => panic!("{ended:?}"),
            failed = job.solve(op("exit 3", &marker("failed"))) => failed.unwrap_err(),
        };
        assert_eq!(failed.kind, buildkit::Kind::Exit(3), "{failed}");
        assert!(runs(&other), "the sibling ended with another op");

        let long_words = format!("exit 4 # {}", "long ".repeat(8 << 10));
        let failed = tokio::select! {
            ended = &mut sibling => panic!("{ended:?}"),
            failed = job.solve(op(&long_words, &marker("long"))) => failed.unwrap_err(),
        };
        assert_eq!(failed.kind, buildkit::Kind::Exit(4));
        let (got, whole) = (failed.message.len(), long_words.len());
        assert!(got > whole, "{got} of {whole} bytes arrived");

        tokio::select! {
            ended = &mut sibling => panic!("{ended:?}"),
            () = files_are_read(job, &killed) => {}
        }

        // The job's end is that of all its ops.
        drop(sibling);
        until("nothing is left", || !runs(&other)).await;

        let refused = Job::open(
            &scene.daemon,
            opening("greedy", &scene.session, &["security.insecure"]),
        );
        let refused = refused.await.unwrap_err();
        assert!(refused.message.contains("security.insecure"), "{refused}");
    });
}

/// Reads a file of an op's root: all of it, a part, what there is of a part; and one that is not
/// there.
async fn files_are_read(job: &Job, marker: &str) {
    let solved = job.solve(op("echo hello > /greeting", marker)).await;
    let root = solved.unwrap().reference.unwrap();
    for (part, expected) in [
        (None, "hello\n"),
        (Some(1..4), "ell"),
        (Some(4..100), "o\n"),
    ] {
        let read = job.read_file(&root, "/greeting", part).await;
        assert_eq!(read.unwrap(), expected.as_bytes());
    }
    let missing = job.read_file(&root, "/farewell", None).await.unwrap_err();
    assert_eq!(missing.kind, buildkit::Kind::Other, "{missing}");
    assert!(missing.message.contains("farewell"), "{missing}");
}

#[test]
fn ops_end_one_by_one_on_buildkitd() {
    ops_end_one_by_one(Kind::BuildKit);
}

#[test]
fn ops_end_one_by_one_on_dockerd_20() {
    ops_end_one_by_one(Kind::Docker20Bare);
}

#[test]
fn ops_end_one_by_one_on_dockerd_29() {
    ops_end_one_by_one(Kind::Docker29);
}
