//! Images in OCI layouts of this machine, blob by blob: what `oci-layout://` sources read (spec
//! §5.7).

use std::collections::BTreeMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use prost::bytes::Bytes;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::protocol::containerd::services::content::v1::content_server::Content;
use super::protocol::containerd::services::content::v1::{
    Info, InfoRequest, InfoResponse, ReadContentRequest, ReadContentResponse,
};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
/// How many chunks may wait for the daemon.
const WAITING: usize = 2;

/// OCI layouts, by the names that the attribute `oci.store` of a source uses.
#[derive(Debug, Clone, Default)]
pub struct Layouts {
    layouts: Arc<Mutex<BTreeMap<String, PathBuf>>>,
}

impl Layouts {
    /// Offers the layout in a directory from now on.
    pub fn offer(&self, name: String, directory: PathBuf) {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        layouts.insert(name, directory);
    }

    /// The file of a blob.
    fn blob(&self, headers: &MetadataMap, digest: &str) -> Result<PathBuf, Status> {
        let id = headers.get("buildkit-attachable-store-id");
        let id = id.and_then(|id| id.to_str().ok()).unwrap_or_default();
        let name = id.strip_prefix("oci:").unwrap_or(id);
        let layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = layouts.get(name);
        let layout = layout
            .ok_or_else(|| Status::not_found(format!("no OCI layout `{name}` is offered")))?;
        blob(layout, digest)
            .ok_or_else(|| Status::invalid_argument(format!("`{digest}` is no digest")))
    }
}

fn blob(layout: &Path, digest: &str) -> Option<PathBuf> {
    let (algorithm, hex) = digest.split_once(':')?;
    let plain = |text: &str| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (plain(algorithm) && plain(hex)).then(|| layout.join("blobs").join(algorithm).join(hex))
}

fn failed(error: &std::io::Error) -> Status {
    match error.kind() {
        std::io::ErrorKind::NotFound => Status::not_found(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

type Outgoing =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<ReadContentResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Content for Layouts {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let digest = request.get_ref().digest.clone();
        let file = self.blob(request.metadata(), &digest)?;
        let metadata = fs_err::metadata(file).map_err(|error| failed(&error))?;
        let size = i64::try_from(metadata.len()).unwrap_or(i64::MAX);
        Ok(Response::new(InfoResponse {
            info: Some(Info { digest, size }),
        }))
    }

    type ReadStream = Outgoing;

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Outgoing>, Status> {
        let file = self.blob(request.metadata(), &request.get_ref().digest)?;
        let wanted = request.into_inner();
        let (tell, outgoing) = channel(WAITING);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = send(&file, &wanted, &tell) {
                // Where nobody listens there is nobody to tell.
                let _ = tell.blocking_send(Err(failed(&error)));
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

fn send(
    file: &Path,
    wanted: &ReadContentRequest,
    tell: &Sender<Result<ReadContentResponse, Status>>,
) -> std::io::Result<()> {
    let mut file = fs_err::File::open(file)?;
    let mut offset = wanted.offset;
    file.seek(SeekFrom::Start(u64::try_from(offset).unwrap_or(0)))?;
    let limit = match u64::try_from(wanted.size) {
        Ok(0) | Err(_) => u64::MAX,
        Ok(size) => size,
    };
    let mut file = file.take(limit);
    loop {
        let mut data = vec![0; CHUNK];
        let count = file.read(&mut data)?;
        if count == 0 {
            return Ok(());
        }
        data.truncate(count);
        let chunk = ReadContentResponse {
            offset,
            data: Bytes::from(data),
        };
        if tell.blocking_send(Ok(chunk)).is_err() {
            return Ok(());
        }
        offset += i64::try_from(count).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        let id = "oci:images".parse().unwrap();
        request
            .metadata_mut()
            .insert("buildkit-attachable-store-id", id);
        request
    }

    #[tokio::test]
    async fn a_blob_is_read_in_part_and_whole() {
        let layout = tempfile::tempdir().unwrap();
        let digest = "sha256:00ff";
        fs_err::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        let content: Vec<u8> = (0..3 * CHUNK)
            .map(|n| u8::try_from(n % 251).unwrap())
            .collect();
        fs_err::write(layout.path().join("blobs/sha256/00ff"), &content).unwrap();
        let layouts = Layouts::default();
        layouts.offer("images".to_owned(), layout.path().to_owned());

        let asked = request(InfoRequest {
            digest: digest.to_owned(),
        });
        let info = layouts
            .info(asked)
            .await
            .unwrap()
            .into_inner()
            .info
            .unwrap();
        assert_eq!(usize::try_from(info.size).unwrap(), content.len());
        for (offset, size) in [(0, 0), (5, CHUNK + 7)] {
            let asked = request(ReadContentRequest {
                digest: digest.to_owned(),
                offset: i64::try_from(offset).unwrap(),
                size: i64::try_from(size).unwrap(),
            });
            let mut stream = layouts.read(asked).await.unwrap().into_inner();
            let mut read = Vec::new();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.unwrap();
                assert_eq!(usize::try_from(chunk.offset).unwrap(), offset + read.len());
                read.extend_from_slice(&chunk.data);
            }
            let end = if size == 0 {
                content.len()
            } else {
                offset + size
            };
            assert!(read == content[offset..end]);
        }
    }

    #[tokio::test]
    async fn nothing_else_is_read() {
        let layouts = Layouts::default();
        layouts.offer("images".to_owned(), PathBuf::from("/nowhere"));
        for (digest, code) in [
            ("sha256:../../x", tonic::Code::InvalidArgument),
            ("sha256:00", tonic::Code::NotFound),
        ] {
            let digest = digest.to_owned();
            let refused = layouts.info(request(InfoRequest { digest })).await;
            assert_eq!(refused.unwrap_err().code(), code);
        }
        let digest = "sha256:00".to_owned();
        let unknown = layouts.info(Request::new(InfoRequest { digest })).await;
        assert_eq!(unknown.unwrap_err().code(), tonic::Code::NotFound);
    }
}
