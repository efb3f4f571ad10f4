//! A small image, as the blobs of an OCI layout: a static busybox under many names.

use std::path::{Path, PathBuf};

use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Place, run, sandbox_paths};

/// An image's blobs, each under its digest, and which of them is the manifest.
pub(crate) struct Image {
    blobs: Vec<(String, Vec<u8>)>,
    manifest: String,
}

impl Image {
    /// Makes one with busybox, `/etc/image` that holds `mark`, and `environment` (`NAME=value`) in
    /// its configuration.
    pub(crate) fn busybox(place: &Place, mark: &str, environment: &[&str]) -> Self {
        let root = place.at(format!("image-{mark}"));
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("tmp")).unwrap();
        fs::write(root.join("etc/image"), mark).unwrap();
        for path in sandbox_paths() {
            let (name, busybox) = path.split_once('=').expect("it has a source");
            let target = root.join("bin/busybox");
            if !target.exists() {
                fs::copy(busybox, &target).unwrap();
            }
            let link = root.join(name.trim_start_matches('/'));
            std::os::unix::fs::symlink("busybox", link).unwrap();
        }
        let layer = place.at(format!("image-{mark}.tar"));
        run(place
            .command("tar")
            .args([
                "--create",
                "--sort=name",
                "--mtime=@1",
                "--owner=0",
                "--group=0",
            ])
            .arg("--file")
            .arg(&layer)
            .arg("--directory")
            .arg(&root)
            .arg("."))
        .ok();
        Self::of_layer(fs::read(layer).unwrap(), environment)
    }

    fn of_layer(layer: Vec<u8>, environment: &[&str]) -> Self {
        let mut image = Self {
            blobs: Vec::new(),
            manifest: String::new(),
        };
        let size = layer.len();
        let layer = image.add(layer);
        let configuration = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Env": environment, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [layer] },
        });
        let configuration = configuration.to_string().into_bytes();
        let length = configuration.len();
        let configuration = image.add(configuration);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": configuration,
                "size": length,
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": layer,
                "size": size,
            }],
        });
        image.manifest = image.add(manifest.to_string().into_bytes());
        image
    }

    /// The digest of its manifest, `sha256:…`.
    pub(crate) fn digest(&self) -> &str {
        &self.manifest
    }

    /// Writes it as an OCI layout, and returns the directory.
    pub(crate) fn layout(&self, place: &Place, name: &str) -> PathBuf {
        let directory = place.at(name);
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(hexadecimal(digest)), bytes).unwrap();
        }
        let version = json!({ "imageLayoutVersion": "1.0.0" });
        fs::write(directory.join("oci-layout"), version.to_string()).unwrap();
        let manifest = self.blobs.last().expect("the manifest is the last");
        let index: Value = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": self.manifest, "size": manifest.1.len(),
        }] });
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        directory
    }

    /// Puts it where a registry keeps its images, under a name and a tag.
    pub(super) fn store(&self, registry: &Path, name: &str, tag: &str) {
        let registry = registry.join("docker/registry/v2");
        let repository = registry.join("repositories").join(name);
        let write = |path: PathBuf, bytes: &[u8]| {
            fs::create_dir_all(path.parent().expect("it is below the registry")).unwrap();
            fs::write(path, bytes).unwrap();
        };
        for (digest, bytes) in &self.blobs {
            let hash = hexadecimal(digest);
            let blob = format!("blobs/sha256/{}/{hash}/data", &hash[..2]);
            write(registry.join(blob), bytes);
            let link = format!("_layers/sha256/{hash}/link");
            write(repository.join(link), digest.as_bytes());
        }
        let hash = hexadecimal(&self.manifest);
        for link in [
            format!("_manifests/revisions/sha256/{hash}/link"),
            format!("_manifests/tags/{tag}/current/link"),
            format!("_manifests/tags/{tag}/index/sha256/{hash}/link"),
        ] {
            write(repository.join(link), self.manifest.as_bytes());
        }
    }

    fn add(&mut self, bytes: Vec<u8>) -> String {
        let digest = format!("sha256:{:x}", Sha256::digest(&bytes));
        self.blobs.push((digest.clone(), bytes));
        digest
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn hexadecimal(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}
