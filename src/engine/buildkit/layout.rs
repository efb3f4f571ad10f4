//! An image in an OCI layout: which it is, and its blobs where the daemon can ask for them.
//!
//! A layout in a store of this machine is read where it is. One that the daemon's own store has, as
//! the output of a build, is read through the daemon: an op copies the directory out of the store,
//! and what the image consists of comes here. Either way it goes to the daemon by the session, as
//! `oci-layout://` sources do, and only what it does not have yet.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::buildkit::{Job, SolveError};

/// How much of a blob is read at a time: less than what daemons send in a message.
const CHUNK: u64 = 2 << 20;
/// How deep indexes may lie in one another.
const DEPTH: usize = 4;

/// Where a layout is.
pub(super) enum Place<'a> {
    /// In a directory of this machine.
    Here(&'a Path),
    /// In a result of a job, from where what is read is kept in a directory.
    There {
        /// The job.
        job: &'a Job,
        /// The result.
        reference: &'a str,
        /// The directory.
        into: &'a Path,
    },
}

/// The image of a layout.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// The digest of its manifest.
    pub(super) digest: String,
    /// Its configuration, as JSON.
    pub(super) config: Vec<u8>,
}

/// Why a layout is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The daemon cannot read it.
    #[error("{}", .0.message)]
    Daemon(SolveError),
    /// A file of it cannot be read or kept.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// A file of it is not what it should be.
    #[error("`{path}` of the layout is none: {source}")]
    Json {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// There is no image, or not one alone.
    #[error("the layout has {count} images for {platform}, and must have one")]
    Count {
        /// How many there are.
        count: usize,
        /// Which were looked for.
        platform: String,
    },
    /// A digest that is none.
    #[error("`{digest}` is no digest")]
    Digest {
        /// What there is instead.
        digest: String,
    },
}

/// An index or a manifest: what they have in common with neither is left out.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Place<'_> {
    /// Finds the image for this machine's kind, and brings all of it here.
    pub(super) async fn image(&self) -> Result<Image, Error> {
        let mut path = "index.json".to_owned();
        let mut digest = String::new();
        for _ in 0..DEPTH {
            let document = self.document(&path).await?;
            if let Some(config) = document.config {
                for layer in &document.layers {
                    self.bring(&blob(&layer.digest)?).await?;
                }
                let config = self.read(&blob(&config.digest)?).await?;
                return Ok(Image { digest, config });
            }
            digest = pick(document.manifests)?.digest;
            path = blob(&digest)?;
        }
        Err(count(0))
    }

    async fn document(&self, path: &str) -> Result<Document, Error> {
        let bytes = self.read(path).await?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json {
            path: path.to_owned(),
            source,
        })
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.bring(path).await?;
        let directory = match self {
            Self::Here(directory) => directory,
            Self::There { into, .. } => into,
        };
        Ok(fs_err::read(directory.join(path))?)
    }

    /// Makes a file be here.
    async fn bring(&self, path: &str) -> Result<(), Error> {
        let Self::There {
            job,
            reference,
            into,
        } = self
        else {
            return Ok(());
        };
        let place: PathBuf = into.join(path);
        if let Some(parent) = place.parent() {
            fs_err::create_dir_all(parent)?;
        }
        let mut file = fs_err::File::create(place)?;
        let mut offset = 0;
        loop {
            let part = Some(offset..offset + CHUNK);
            let bytes = job.read_file(reference, path, part).await;
            let bytes = bytes.map_err(Error::Daemon)?;
            file.write_all(&bytes)?;
            let count = u64::try_from(bytes.len()).unwrap_or(CHUNK);
            offset += count;
            if count < CHUNK {
                return Ok(());
            }
        }
    }
}

/// Chooses among the images, or indexes, of an index: the only one, or that for this machine.
fn pick(mut all: Vec<Descriptor>) -> Result<Descriptor, Error> {
    // What tools attach to images is for no platform.
    all.retain(|one| {
        let attached = "vnd.docker.reference.type";
        !one.annotations.contains_key(attached)
    });
    if all.len() > 1 {
        let (os, architecture) = platform();
        all.retain(|one| {
            let is_ours = |it: &Platform| it.os == os && it.architecture == architecture;
            one.platform.as_ref().is_some_and(is_ours)
        });
    }
    match all.len() {
        1 => Ok(all.remove(0)),
        found => Err(count(found)),
    }
}

fn count(count: usize) -> Error {
    let (os, architecture) = platform();
    Error::Count {
        count,
        platform: format!("{os}/{architecture}"),
    }
}

/// This machine's kind, in Go's words.
fn platform() -> (&'static str, &'static str) {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        other => other,
    };
    (std::env::consts::OS, architecture)
}

/// Where a blob is in a layout.
fn blob(digest: &str) -> Result<String, Error> {
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    match digest.split_once(':') {
        Some((algorithm, hash)) if plain(algorithm) && plain(hash) => {
            Ok(format!("blobs/{algorithm}/{hash}"))
        }
        _ => Err(Error::Digest {
            digest: digest.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Layout(tempfile::TempDir);

    impl Layout {
        fn new(files: &[(&str, &str)]) -> Self {
            let layout = Self(tempfile::tempdir().unwrap());
            fs_err::create_dir_all(layout.0.path().join("blobs/sha256")).unwrap();
            for (path, content) in files {
                fs_err::write(layout.0.path().join(path), content).unwrap();
            }
            layout
        }

        fn image(&self) -> Result<Image, String> {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let place = Place::Here(self.0.path());
            let image = runtime.unwrap().block_on(place.image());
            image.map_err(|error| error.to_string())
        }
    }

    const MANIFEST: &str = r#"{"config":{"digest":"sha256:c0"},"layers":[{"digest":"sha256:1a"}]}"#;

    #[test]
    fn an_image_is_found_by_its_platform_also_in_an_index() {
        let (os, architecture) = platform();
        let attached = r#"{"vnd.docker.reference.type":"attestation-manifest"}"#;
        let inner = format!(
            r#"{{"manifests":[
                {{"digest":"sha256:bad","platform":{{"os":"plan9","architecture":"mips"}}}},
                {{"digest":"sha256:bad","annotations":{attached}}},
                {{"digest":"sha256:3a","platform":{{"os":"{os}","architecture":"{architecture}"}}}}]}}"#
        );
        let layout = Layout::new(&[
            ("index.json", r#"{"manifests":[{"digest":"sha256:2d"}]}"#),
            ("blobs/sha256/2d", &inner),
            ("blobs/sha256/3a", MANIFEST),
            ("blobs/sha256/c0", "{}"),
        ]);
        let expected = Image {
            digest: "sha256:3a".to_owned(),
            config: b"{}".to_vec(),
        };
        assert_eq!(layout.image().unwrap(), expected);
    }

    #[test]
    fn says_what_is_wrong_with_a_layout() {
        let image = |files: &[(&str, &str)]| Layout::new(files).image().unwrap_err();
        assert!(image(&[]).contains("index.json"));
        assert!(image(&[("index.json", "[")]).contains("`index.json` of the layout is none"));
        assert!(image(&[("index.json", "{}")]).contains("has 0 images"));
        let two = r#"{"manifests":[{"digest":"sha256:1"},{"digest":"sha256:2"}]}"#;
        assert!(image(&[("index.json", two)]).contains("has 0 images for"));
        let up = r#"{"manifests":[{"digest":"sha256:../x"}]}"#;
        assert!(image(&[("index.json", up)]).contains("`sha256:../x` is no digest"));
        let round = r#"{"manifests":[{"digest":"sha256:0"}]}"#;
        let files = [("index.json", round), ("blobs/sha256/0", round)];
        assert!(image(&files).contains("has 0 images"));
    }
}
