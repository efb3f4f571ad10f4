//! Compiles the `BuildKit` messages in `proto/` without `protoc`.

use std::error::Error;

/// The services of a daemon, and those it asks of its client.
const SERVICES: [&str; 10] = [
    "proto/auth.proto",
    "proto/content.proto",
    "proto/control.proto",
    "proto/filesync.proto",
    "proto/fsutil.proto",
    "proto/gateway.proto",
    "proto/health.proto",
    "proto/secrets.proto",
    "proto/ssh.proto",
    "proto/status.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let messages = protox::compile(["proto/ops.proto"], ["proto"])?;
    prost_build::Config::new()
        // Maps are written in key order: the digest of an op is that of its bytes.
        .btree_map(["."])
        // Comments on fields are facts for readers of the `.proto`, not rustdoc in our style.
        .disable_comments(["."])
        .compile_fds(messages)?;
    let services = protox::compile(SERVICES, ["proto"])?;
    tonic_prost_build::configure()
        // Connections are made by `buildkit::connection` alone.
        .build_transport(false)
        .bytes(".")
        .disable_comments(["."])
        .include_file("services.rs")
        .compile_fds(services)?;
    Ok(())
}
