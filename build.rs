//! Compiles the `BuildKit` messages in `proto/` without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let messages = protox::compile(["proto/ops.proto"], ["proto"])?;
    prost_build::Config::new()
        // Maps are written in key order: the digest of an op is that of its bytes.
        .btree_map(["."])
        // Comments on fields are facts for readers of the `.proto`, not rustdoc in our style.
        .disable_comments(["."])
        .compile_fds(messages)?;
    Ok(())
}
