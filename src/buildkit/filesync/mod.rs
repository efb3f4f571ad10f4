//! Directories that a daemon pulls from us (spec §5.4).
//!
//! | file | what |
//! |---|---|
//! | here | what is offered, under which names, and to what a request is narrowed |
//! | [`send`] | the protocol: a list of everything, and the files that are asked for meanwhile |
//! | [`walk`] | what is in a directory, in the protocol's order |
//! | [`pattern`] | which of it a daemon asks for |
//! | [`follow`] | symlinks on the way to what it asks for |
//!
//! What is sent belongs to root, whoever owns it here: an owner is a fact of this machine. Sockets
//! are left out.

mod follow;
mod pattern;
mod send;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use pattern::Patterns;
use tokio::sync::mpsc::channel;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::protocol::fsutil::types::Packet;
use super::protocol::moby::filesync::v1::file_sync_server::FileSync;

/// How many packets may wait for the daemon.
const WAITING: usize = 16;

/// What is offered under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// One executable file.
    File {
        /// What it is called.
        name: String,
        /// Where it is here.
        path: PathBuf,
    },
    /// A directory with all that is in it.
    Directory(PathBuf),
}

/// Everything that is offered, by the names that `local://` sources use.
#[derive(Debug, Clone, Default)]
pub struct Directories {
    trees: Arc<Mutex<BTreeMap<String, Tree>>>,
}

impl Directories {
    /// Offers a tree from now on.
    pub fn offer(&self, name: String, tree: Tree) {
        let mut trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.insert(name, tree);
    }

    fn find(&self, name: &str) -> Option<Tree> {
        let trees = self.trees.lock().unwrap_or_else(PoisonError::into_inner);
        trees.get(name).cloned()
    }
}

/// To what a request is narrowed.
#[derive(Debug, Default)]
struct Narrowing {
    include: Option<Patterns>,
    exclude: Option<Patterns>,
}

impl Narrowing {
    fn read(headers: &MetadataMap, tree: &Tree) -> Result<Self, String> {
        let mut include = values(headers, "include-patterns")?;
        let follow = values(headers, "followpaths")?;
        if let Tree::Directory(root) = tree {
            let followed = follow::follow(root, &follow).map_err(|error| error.to_string())?;
            include.extend(followed);
        }
        Ok(Self {
            include: Patterns::new(&include)?,
            exclude: Patterns::new(&values(headers, "exclude-patterns")?)?,
        })
    }
}

/// The values of a header, which are percent-encoded if another one says so.
fn values(headers: &MetadataMap, key: &'static str) -> Result<Vec<String>, String> {
    let encoded = headers.get(format!("{key}-encoded")).is_some();
    let values = headers.get_all(key).iter().map(|value| {
        let text = value
            .to_str()
            .map_err(|_| format!("`{key}` is not ASCII"))?;
        if encoded {
            return unescape(text).ok_or_else(|| format!("`{text}` is not UTF-8"));
        }
        Ok(text.to_owned())
    });
    values.collect()
}

/// Takes the form of a URL's query back.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

type Outgoing = Pin<Box<dyn tokio_stream::Stream<Item = Result<Packet, Status>> + Send>>;

#[tonic::async_trait]
impl FileSync for Directories {
    type DiffCopyStream = Outgoing;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Outgoing>, Status> {
        let headers = request.metadata();
        let name = headers.get("dir-name").and_then(|name| name.to_str().ok());
        let name = name.unwrap_or_default();
        let tree = self.find(name);
        let tree =
            tree.ok_or_else(|| Status::not_found(format!("no directory `{name}` is offered")))?;
        let narrowing = Narrowing::read(headers, &tree).map_err(Status::invalid_argument)?;
        let (answers, outgoing) = channel(WAITING);
        let incoming = request.into_inner();
        tokio::spawn(async move {
            // Where nobody listens there is nobody to tell.
            let _ = send::serve(tree, narrowing, incoming, answers).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers_as_daemons_write_them() {
        let mut headers = MetadataMap::new();
        headers.append("include-patterns", "a+b%2Fc".parse().unwrap());
        assert_eq!(values(&headers, "include-patterns").unwrap(), ["a+b%2Fc"]);
        headers.append("include-patterns", "%C3%A4".parse().unwrap());
        headers.append("include-patterns-encoded", "1".parse().unwrap());
        let decoded = values(&headers, "include-patterns").unwrap();
        assert_eq!(decoded, ["a b/c", "ä"]);
        assert_eq!(unescape("%4"), None);
        assert_eq!(unescape("%ff"), None);
    }
}
