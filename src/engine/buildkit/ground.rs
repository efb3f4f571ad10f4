//! What is to be at the `/` of an op, where only the daemon can say it ([`OpRoot`]).
//!
//! | root | asked of the daemon | then at `/` |
//! |---|---|---|
//! | an image | what its registry says of it | that very image, by digest |
//! | an image in a layout | nothing; it is offered by the session ([`super::layout`]) | the same |
//! | a Dockerfile | its frontend, with the directory as context | the ops it makes |
//!
//! The root is solved by itself first, so that what is wrong with it is not taken for the end of
//! the op; it is cached as in any build. The op above it never is: it has its nonce.

use std::collections::BTreeMap;
use std::path::Path;

use prost::bytes::Bytes;
use serde::Deserialize;

use super::layout::Place;
use super::line::{Failed, Line};
use crate::agent;
use crate::buildkit::{Job, Kind};
use crate::engine::{Op, OpRoot, root};
use crate::llb::graft::{self, Cut};

/// What frontends call the configuration of what they make.
const CONFIG: &str = "containerimage.config";

/// A configuration of an image, as far as it matters to an effect.
#[derive(Debug, Default, Deserialize)]
struct Image {
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    env: Option<Vec<String>>,
}

/// What is to be at the `/` of an op.
struct Made {
    definition: Vec<u8>,
    /// The configuration of the image that it is, as JSON.
    config: Bytes,
    /// What must stay until the daemon has it.
    kept: Option<tempfile::TempDir>,
}

impl Line {
    /// Makes the root of an op, and returns the definition of the op on it.
    pub(super) async fn ground(&self, job: &Job, op: &Op) -> Result<Vec<u8>, Failed> {
        if op.root == OpRoot::Defined {
            return Ok(op.definition.clone());
        }
        let made = self.make_root(job, op).await;
        made.map_err(|mut failed| {
            let error = &mut failed.error;
            error.message = format!("cannot make its root: {}", error.message);
            // An exit code would be taken for that of the op itself.
            if !matches!(error.kind, Kind::Gone | Kind::Cancelled) {
                error.kind = Kind::Other;
            }
            failed
        })
    }

    async fn make_root(&self, job: &Job, op: &Op) -> Result<Vec<u8>, Failed> {
        let other = |text: String| Failed::of(text, Kind::Other);
        let cut = graft::cut(&op.definition).map_err(|error| other(error.to_string()))?;
        let made = match &op.root {
            OpRoot::Defined => return Ok(op.definition.clone()),
            OpRoot::Image(name) => {
                let image = job.image(name).await.map_err(Failed::from)?;
                let definition = root::image(&pinned(name, &image.digest));
                Made {
                    definition: definition.map_err(|error| other(error.to_string()))?,
                    config: image.config,
                    kept: None,
                }
            }
            OpRoot::Layout(here) => {
                let exported = cut.root.clone().unwrap_or_default();
                self.layout(job, &op.nonce, exported, here.as_deref())
                    .await?
            }
            OpRoot::Dockerfile(options) => self.build(job, &cut, options.clone()).await?,
        };
        self.solve(job, &op.nonce, made.definition.clone()).await?;
        // From here on the daemon has it.
        drop(made.kept);
        joined(cut, &made.definition, &made.config).map_err(other)
    }

    /// Lets the daemon read a Dockerfile.
    async fn build(
        &self,
        job: &Job,
        cut: &Cut,
        options: BTreeMap<String, String>,
    ) -> Result<Made, Failed> {
        let context = Bytes::from(cut.root.clone().unwrap_or_default());
        let inputs = ["context", "dockerfile"].map(|name| (name.to_owned(), context.clone()));
        let solved = job.frontend("dockerfile.v0", options, inputs.into()).await;
        let mut solved = solved.map_err(Failed::from)?;
        if solved.definition.is_empty() {
            let text = "the daemon does not say what it makes of the Dockerfile: it is empty, or \
                        the daemon too old";
            return Err(Failed::of(text.to_owned(), Kind::Other));
        }
        let config = solved.metadata.remove(CONFIG).unwrap_or_default();
        Ok(Made {
            definition: solved.definition.to_vec(),
            config,
            kept: None,
        })
    }

    /// Offers the image of a layout to the daemon.
    async fn layout(
        &self,
        job: &Job,
        nonce: &str,
        exported: Vec<u8>,
        here: Option<&Path>,
    ) -> Result<Made, Failed> {
        let other = |text: String| Failed::of(text, Kind::Other);
        let (directory, image, kept) = if let Some(here) = here {
            (here.to_owned(), Place::Here(here).image().await, None)
        } else {
            let kept = tempfile::tempdir_in(self.temporary());
            let kept = kept.map_err(|error| other(error.to_string()))?;
            let solved = self.solve(job, nonce, exported).await?;
            let place = Place::There {
                job,
                reference: solved.reference.as_deref().unwrap_or_default(),
                into: kept.path(),
            };
            (kept.path().to_owned(), place.image().await, Some(kept))
        };
        let image = image.map_err(|error| other(error.to_string()))?;
        // By its content: the same image is the same op, and read once.
        let store = image.digest.replace(':', "-");
        let definition = root::layout(&image.digest, &store);
        self.layouts().offer(store, directory);
        Ok(Made {
            definition: definition.map_err(|error| other(error.to_string()))?,
            config: Bytes::from(image.config),
            kept,
        })
    }
}

/// Names an image by what it is now.
fn pinned(name: &str, digest: &str) -> String {
    if digest.is_empty() || name.contains('@') {
        name.to_owned()
    } else {
        format!("{name}@{digest}")
    }
}

/// Puts an op on a root, with the environment that its configuration has.
fn joined(mut cut: Cut, root: &[u8], config: &[u8]) -> Result<Vec<u8>, String> {
    let image: Image = if config.is_empty() {
        Image::default()
    } else {
        serde_json::from_slice(config)
            .map_err(|error| format!("its configuration cannot be read: {error}"))?
    };
    if let Some(variables) = image.config.env {
        let text = serde_json::to_string(&variables).expect("a list of texts is JSON");
        cut.exec.env.push((agent::IMAGE.to_owned(), text));
    }
    graft::join(cut, root).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llb::{self, Op};

    #[test]
    fn an_image_is_named_by_its_content_once_it_is_known() {
        assert_eq!(pinned("a/b:1", "sha256:00"), "a/b:1@sha256:00");
        assert_eq!(pinned("a/b@sha256:11", "sha256:00"), "a/b@sha256:11");
    }

    #[test]
    fn an_op_gets_its_root_and_the_environment_of_its_image() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lowered-image.pb");
        let cut = graft::cut(&fs_err::read(place).unwrap()).unwrap();
        let root = root::image("docker.io/library/busybox:1.36@sha256:00").unwrap();
        let config = br#"{"architecture":"amd64","config":{"Env":["PATH=/x","A=b=c"]}}"#;
        let definition = joined(cut.clone(), &root, config).unwrap();
        let ops = llb::decode(&definition).unwrap().ops;
        let [source, exec] = &ops[..] else {
            panic!("{} ops", ops.len())
        };
        let Op::Source(source) = &source.op else {
            panic!("no source")
        };
        assert!(source.identifier.ends_with("busybox:1.36@sha256:00"));
        let Op::Exec(exec) = &exec.op else {
            panic!("no exec")
        };
        let variables = r#"["PATH=/x","A=b=c"]"#.to_owned();
        assert_eq!(exec.env.last(), Some(&(agent::IMAGE.to_owned(), variables)));
        for config in [&b""[..], b"{}", br#"{"config":{"Env":null}}"#] {
            let definition = joined(cut.clone(), &root, config).unwrap();
            assert_eq!(llb::decode(&definition).unwrap().ops.len(), 2);
        }
        assert!(joined(cut, &root, b"<html>").is_err());
    }
}
