//! The session: a byte pipe through the daemon's control service, on which the daemon calls us.
//!
//! The pipe carries HTTP/2 with the roles reversed (spec §5.1). What is not served here is
//! answered as unimplemented, which daemons tolerate.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Status, Streaming};

use super::auth::Keychain;
use super::content::Layouts;
use super::filesync::Directories;
use super::protocol::containerd::services::content::v1::content_server::ContentServer;
use super::protocol::grpc::health::v1::health_check_response::ServingStatus;
use super::protocol::grpc::health::v1::health_server::{Health, HealthServer};
use super::protocol::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};
use super::protocol::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use super::protocol::moby::buildkit::v1::BytesMessage;
use super::protocol::moby::filesync::v1::auth_server::AuthServer;
use super::protocol::moby::filesync::v1::file_sync_server::FileSyncServer;
use super::protocol::moby::sshforward::v1::ssh_server::SshServer;
use super::secrets::Vault;
use super::ssh::Forward;
use super::{Daemon, PIECE, WINDOW, errors};

/// Every method, by the name that daemons look for.
const METHODS: [&str; 8] = [
    "/containerd.services.content.v1.Content/Info",
    "/containerd.services.content.v1.Content/Read",
    "/grpc.health.v1.Health/Check",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.sshforward.v1.SSH/CheckAgent",
    "/moby.sshforward.v1.SSH/ForwardAgent",
];

/// How long a daemon may take to open a session.
const PATIENCE: Duration = Duration::from_secs(20);
/// How much may be between the pipe and the HTTP/2 connection.
const BETWEEN: usize = 256 << 10;

/// What is served to the daemon.
#[derive(Debug, Clone)]
pub struct Services {
    /// Connections out of ops.
    pub forward: Forward,
    /// Secrets.
    pub vault: Vault,
    /// Directories to pull.
    pub directories: Directories,
    /// Images to pull.
    pub layouts: Layouts,
    /// Logins for registries.
    pub keychain: Keychain,
}

/// A session that was opened.
#[derive(Debug)]
pub struct Session {
    /// Names it in solves.
    pub id: String,
    /// Done when the session has ended, with what is known of the reason.
    pub ended: tokio::task::JoinHandle<String>,
}

impl Session {
    /// Opens a session. It lasts until the daemon or the connection ends it, or the runtime ends.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    pub async fn open(daemon: &Daemon, id: String, services: Services) -> Result<Self, String> {
        let (outgoing, stream) = channel::<BytesMessage>(4);
        let mut request = tonic::Request::new(ReceiverStream::new(stream));
        let headers = request.metadata_mut();
        let uuid: AsciiMetadataValue = id.parse().map_err(|_| format!("`{id}` is no id"))?;
        headers.insert("x-docker-expose-session-sharedkey", uuid.clone());
        headers.insert("x-docker-expose-session-uuid", uuid);
        let name = AsciiMetadataValue::from_static("pontoon");
        headers.insert("x-docker-expose-session-name", name);
        for method in METHODS {
            let method = AsciiMetadataValue::from_static(method);
            headers.append("x-docker-expose-session-grpc-method", method);
        }
        let (ours, pipe) = tokio::io::duplex(BETWEEN);
        let (reading, writing) = tokio::io::split(pipe);
        // The daemon's answer to the call may wait for our first bytes.
        let serving = tokio::spawn(serve(ours, services));
        tokio::spawn(outward(reading, outgoing));
        let mut client = daemon.client.clone();
        let answer = tokio::time::timeout(PATIENCE, client.session(request)).await;
        let incoming = answer
            .map_err(|_| "the daemon opens no session".to_owned())?
            .map_err(|status| errors::chain(&status))?
            .into_inner();
        let ended = tokio::spawn(async move {
            let reason = inward(incoming, writing).await;
            serving.abort();
            reason
        });
        Ok(Self { id, ended })
    }
}

/// From the daemon to our server.
async fn inward(
    mut incoming: Streaming<BytesMessage>,
    mut writing: WriteHalf<DuplexStream>,
) -> String {
    loop {
        match incoming.message().await {
            Ok(Some(message)) => {
                if writing.write_all(&message.data).await.is_err() {
                    return "the daemon broke the session's protocol".to_owned();
                }
            }
            Ok(None) => return "the daemon ended the session".to_owned(),
            Err(status) => return errors::chain(&status),
        }
    }
}

/// From our server to the daemon.
async fn outward(mut reading: ReadHalf<DuplexStream>, outgoing: Sender<BytesMessage>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match reading.read_buf(&mut (&mut buffer).limit(PIECE)).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let data = buffer.split().freeze();
                if outgoing.send(BytesMessage { data }).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn serve(pipe: DuplexStream, services: Services) {
    let servers = Servers {
        health: HealthServer::new(Alive),
        secrets: SecretsServer::new(services.vault),
        directories: FileSyncServer::new(services.directories),
        layouts: ContentServer::new(services.layouts),
        keychain: AuthServer::new(services.keychain),
        forward: SshServer::new(services.forward),
    };
    let dispatch = service_fn(move |request| servers.clone().dispatch(request));
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        // One for each op that runs: as many as the run wants.
        .max_concurrent_streams(None)
        .serve_connection(TokioIo::new(pipe), dispatch);
    // However it ends, the daemon's side of the pipe tells.
    let _ = connection.await;
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

#[derive(Debug, Clone)]
struct Servers {
    health: HealthServer<Alive>,
    secrets: SecretsServer<Vault>,
    directories: FileSyncServer<Directories>,
    layouts: ContentServer<Layouts>,
    keychain: AuthServer<Keychain>,
    forward: SshServer<Forward>,
}

impl Servers {
    fn dispatch(mut self, request: Request<Incoming>) -> Answer {
        match request.uri().path().split('/').nth(1) {
            Some("grpc.health.v1.Health") => self.health.call(request),
            Some("moby.buildkit.secrets.v1.Secrets") => self.secrets.call(request),
            Some("moby.filesync.v1.FileSync") => self.directories.call(request),
            Some("moby.filesync.v1.Auth") => self.keychain.call(request),
            Some("containerd.services.content.v1.Content") => self.layouts.call(request),
            Some("moby.sshforward.v1.SSH") => self.forward.call(request),
            _ => Box::pin(std::future::ready(Ok(unimplemented()))),
        }
    }
}

fn unimplemented() -> Response<Body> {
    let mut answer = Response::new(Body::default());
    let headers = answer.headers_mut();
    let code = HeaderValue::from(tonic::Code::Unimplemented as i32);
    headers.insert(Status::GRPC_STATUS, code);
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(http::header::CONTENT_TYPE, kind);
    answer
}

/// Answers that we live; a daemon drops a session that does not.
#[derive(Debug, Clone)]
struct Alive;

#[tonic::async_trait]
impl Health for Alive {
    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        Ok(tonic::Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }
}
