//! A dockerd's way to the `BuildKit` in it (spec §6).
//!
//! | its API | the way |
//! |---|---|
//! | 1.53 (29.2) and newer | HTTP/2 from the first byte, as with `buildkitd` |
//! | older | `POST /grpc` with `Upgrade: h2c`; after 101 the same socket is HTTP/2 from its first byte |
//!
//! Which it is, and whether it is a dockerd at all, its answer to `GET /_ping` tells.

use http::header::{CONNECTION, HOST, SERVER, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tonic::body::Body;

/// The first API with gRPC on the socket itself.
const DIRECT: (u32, u32) = (1, 53);

/// The question for its bridge; after the answer it ends the connection.
const BRIDGE: &[u8] = b"GET /networks/bridge HTTP/1.0\r\nHost: docker\r\n\r\n";
/// Where a refusal ends for sure.
const LONGEST: u64 = 4 << 10;

/// What a dockerd says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// As `Docker/29.7.2 (linux)`.
    pub server: String,
    /// The newest API it speaks.
    pub api: (u32, u32),
}

impl Pong {
    /// Whether gRPC needs no upgrade.
    pub fn is_direct(&self) -> bool {
        self.api >= DIRECT
    }

    /// Whether it is podman, which speaks Docker's API without `BuildKit`.
    pub fn is_podman(&self) -> bool {
        self.server.starts_with("Libpod/")
    }

    fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        let (major, minor) = text("api-version")?.split_once('.')?;
        Some(Self {
            server: text(SERVER.as_str()).unwrap_or("dockerd").to_owned(),
            api: (major.parse().ok()?, minor.parse().ok()?),
        })
    }
}

/// Asks who is there. None if the answer is not a dockerd's.
pub async fn ping<S>(stream: S) -> Result<Option<Pong>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let answer = ask(stream, Method::GET, "/_ping", &[]).await?;
    Ok(Pong::read(answer.headers()))
}

/// Asks for gRPC; what comes back is HTTP/2 from its first byte, or the refusal.
pub async fn upgrade<S>(
    stream: S,
) -> Result<Result<TokioIo<hyper::upgrade::Upgraded>, StatusCode>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let headers = [(CONNECTION.as_str(), "Upgrade"), (UPGRADE.as_str(), "h2c")];
    let answer = ask(stream, Method::POST, "/grpc", &headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Err(answer.status()));
    }
    // What came right behind the answer is in there too.
    let upgraded = hyper::upgrade::on(answer).await?;
    Ok(Ok(TokioIo::new(upgraded)))
}

/// Asks for the network that ops have by default: its bridge. Whether it says that it has none;
/// nothing else it may say tells that, as what a proxy says that lets nobody ask.
pub async fn lacks_bridge<S>(mut stream: S) -> std::io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    stream.write_all(BRIDGE).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let is_missing = answer.split(' ').nth(1) == Some("404");
    Ok(is_missing && answer.contains("network bridge not found"))
}

async fn ask<S>(
    stream: S,
    method: Method,
    path: &'static str,
    headers: &[(&'static str, &'static str)],
) -> Result<Response<Incoming>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "docker");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty());
    sender
        .send_request(request.expect("its parts are constants"))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bridge_is_missing_only_where_the_dockerd_says_so() {
        async fn lacks(answer: &'static str) -> bool {
            let (ours, mut theirs) = tokio::io::duplex(1 << 10);
            let asked = tokio::spawn(lacks_bridge(ours));
            let mut question = vec![0; BRIDGE.len()];
            theirs.read_exact(&mut question).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            drop(theirs);
            asked.await.unwrap().unwrap()
        }
        let head = "Content-Type: application/json\r\n\r\n";
        let said = "{\"message\":\"network bridge not found\"}\n";
        let leak = |text: String| -> &'static str { text.leak() };
        assert!(lacks(leak(format!("HTTP/1.0 404 Not Found\r\n{head}{said}"))).await);
        for other in [
            format!("HTTP/1.0 200 OK\r\n{head}{said}"),
            format!("HTTP/1.0 404 Not Found\r\n{head}page not found"),
            "HTTP/1.0 403 Forbidden\r\n\r\n".to_owned(),
            String::new(),
        ] {
            assert!(!lacks(leak(other)).await);
        }
    }

    #[test]
    fn the_ping_says_which_way_leads_in() {
        let pong = |api: &'static str, server: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("api-version", api.parse().unwrap());
            headers.insert(SERVER, server.parse().unwrap());
            Pong::read(&headers)
        };
        let old = pong("1.41", "Docker/20.10.24 (linux)").unwrap();
        assert!(!old.is_direct() && !old.is_podman());
        assert!(pong("1.53", "Docker/29.2.0 (linux)").unwrap().is_direct());
        assert!(pong("1.41", "Libpod/API/4.3.1").unwrap().is_podman());
        assert_eq!(pong("new", "x"), None);
        assert_eq!(Pong::read(&HeaderMap::new()), None);
    }
}
