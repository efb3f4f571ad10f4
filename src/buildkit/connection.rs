//! One connection to a daemon. A session lives and dies with it, so it is never made anew.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use super::address::{Address, Service, Socket};
use super::overheard::{Overheard, Speech};
use super::{WINDOW, dockerd};

/// How long a daemon may take for each step of becoming known.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// A long error comes in a header: with the usual 16 KiB it would be lost (spec rule 9).
const HEADERS: u32 = 16 << 20;

/// No connection, or none of use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there, or nobody who lets us in.
    #[error("cannot connect to `{address}`")]
    Dial {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else is there.
    #[error("what listens at `{address}` is not a {}: {what}", address.service)]
    Stranger {
        /// Where.
        address: Address,
        /// Who it is instead.
        what: Stranger,
    },
    /// Somebody is there, and nothing comes.
    #[error("what listens at `{address}` does not answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// Where.
        address: Address,
    },
    /// It is a daemon, and says no.
    #[error("the daemon at `{address}` refuses: {reason}")]
    Refused {
        /// Where.
        address: Address,
        /// In its own words.
        reason: String,
    },
    /// It is a daemon that lacks what every op needs.
    #[error("the daemon at `{address}` ({version}) is too old: it does not know {}", lacks.join(", "))]
    TooOld {
        /// Where.
        address: Address,
        /// What it says of itself.
        version: String,
        /// The capabilities, by `BuildKit`'s names.
        lacks: Vec<String>,
    },
}

/// Who listens instead of the daemon that was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// A dockerd, by what it says of itself.
    #[error("it is a dockerd (`{0}`)")]
    Dockerd(String),
    /// Podman, which has no `BuildKit` in it.
    #[error("it is podman (`{0}`), which has no BuildKit")]
    Podman(String),
    /// A dockerd that lets nobody in to its `BuildKit`.
    #[error("`{server}` answers `POST /grpc` with {status}")]
    NoUpgrade {
        /// By what it says of itself.
        server: String,
        /// Its answer.
        status: http::StatusCode,
    },
    /// Something with gRPC, probably a `buildkitd`.
    #[error("it speaks HTTP/2 alone, as a buildkitd does")]
    Http2,
    /// A web server.
    #[error("it is a web server")]
    Http,
    /// Something that wants TLS.
    #[error("it speaks TLS, which pontoon does not")]
    Tls,
    /// A gRPC server without `BuildKit`.
    #[error("it has no BuildKit ({0})")]
    NoControl(String),
    /// Something that says this first.
    #[error("it says `{0}`")]
    Words(String),
    /// Something that ends the connection.
    #[error("it ends the connection without a word")]
    Mute,
    /// Anything else.
    #[error("it speaks a protocol of its own")]
    Unknown,
}

impl Stranger {
    fn of(speech: Speech) -> Self {
        match speech {
            Speech::Nothing => Self::Mute,
            Speech::Http => Self::Http,
            Speech::Http2 => Self::Http2,
            Speech::Tls => Self::Tls,
            Speech::Words(words) => Self::Words(words),
            Speech::Bytes => Self::Unknown,
        }
    }
}

/// How a client of HTTP/2 begins, with an empty SETTINGS frame (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection with gRPC on it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) channel: Channel,
    /// What a dockerd says of itself.
    pub(super) dockerd: Option<dockerd::Pong>,
    heard: Overheard,
}

/// A byte stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects. That HTTP/2 comes about shows with the first call only.
///
/// # Errors
///
/// [`Error`].
pub(super) async fn connect(address: &Address) -> Result<Connection, Error> {
    let heard = Overheard::default();
    let (stream, dockerd): (Box<dyn Stream>, _) = match address.service {
        Service::BuildKitd => (Box::new(dial(address, &heard).await?), None),
        Service::Dockerd => {
            let (stream, pong) = enter(address, &heard).await?;
            (stream, Some(pong))
        }
    };
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            stream
                .map(TokioIo::new)
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
        )
    });
    let endpoint = Endpoint::from_static("http://localhost")
        .http2_max_header_list_size(HEADERS)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW);
    let connected = endpoint.connect_with_connector(connector);
    match in_time(address, connected).await? {
        Ok(channel) => Ok(Connection {
            channel,
            dockerd,
            heard,
        }),
        Err(_) => Err(unmask(address, &heard).await),
    }
}

impl Connection {
    /// Says who it is on whose connection the first call failed without an answer.
    pub(super) async fn unmask(&self, address: &Address) -> Error {
        unmask(address, &self.heard).await
    }
}

/// Says who it is with whom no HTTP/2 came about, or nothing more than that.
async fn unmask(address: &Address, heard: &Overheard) -> Error {
    let speech = match heard.speech() {
        // It may have spoken and gone before we listened: what we had to say failed first.
        Speech::Nothing if address.service == Service::BuildKitd => listen(address).await,
        other => other,
    };
    let what = match speech {
        Speech::Http if address.service == Service::BuildKitd => match ask(address).await {
            Some(pong) if pong.is_podman() => Stranger::Podman(pong.server),
            Some(pong) => Stranger::Dockerd(pong.server),
            None => Stranger::Http,
        },
        // It began well.
        Speech::Http2 => Stranger::Unknown,
        other => Stranger::of(other),
    };
    stranger(address, what)
}

/// Finds the way to the `BuildKit` of a dockerd.
async fn enter(
    address: &Address,
    heard: &Overheard,
) -> Result<(Box<dyn Stream>, dockerd::Pong), Error> {
    let failed = |_| stranger(address, Stranger::of(heard.speech()));
    let asked = dockerd::ping(dial(address, heard).await?);
    let pong = in_time(address, asked).await?.map_err(failed)?;
    let pong = pong.ok_or_else(|| stranger(address, Stranger::of(heard.speech())))?;
    if pong.is_podman() {
        return Err(stranger(address, Stranger::Podman(pong.server)));
    }
    let stream = dial(address, heard).await?;
    if pong.is_direct() {
        return Ok((Box::new(stream), pong));
    }
    let asked = dockerd::upgrade(stream);
    match in_time(address, asked).await?.map_err(failed)? {
        Ok(stream) => Ok((Box::new(stream), pong)),
        Err(status) => {
            let server = pong.server;
            Err(stranger(address, Stranger::NoUpgrade { server, status }))
        }
    }
}

/// Whether a dockerd says that it has no network for ops by default. A buildkitd has one.
///
/// # Errors
///
/// [`Error::Dial`], [`Error::Silent`].
pub async fn lacks_network(address: &Address) -> Result<bool, Error> {
    if address.service == Service::BuildKitd {
        return Ok(false);
    }
    let stream = dial(address, &Overheard::default()).await?;
    let asked = in_time(address, dockerd::lacks_bridge(stream)).await?;
    asked.map_err(|source| Error::Dial {
        address: address.clone(),
        source,
    })
}

/// Begins as HTTP/2 does, and hears what comes of it.
async fn listen(address: &Address) -> Speech {
    let heard = Overheard::default();
    if let Ok(mut stream) = dial(address, &heard).await {
        let exchanged = async {
            stream.write_all(PREFACE).await?;
            stream.read(&mut [0; 256]).await
        };
        // Whatever becomes of it: what was heard counts.
        let _ = in_time(address, exchanged).await;
    }
    heard.speech()
}

/// Asks whether it is a dockerd that listens; whatever else is the matter is none of our business.
async fn ask(address: &Address) -> Option<dockerd::Pong> {
    let stream = dial(address, &Overheard::default()).await.ok()?;
    in_time(address, dockerd::ping(stream)).await.ok()?.ok()?
}

async fn dial(
    address: &Address,
    heard: &Overheard,
) -> Result<super::overheard::Tapped<Box<dyn Stream>>, Error> {
    let dialled = async {
        let stream: Box<dyn Stream> = match &address.socket {
            Socket::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Socket::Tcp(place) => {
                let stream = TcpStream::connect(place).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(stream)
    };
    let stream = in_time(address, dialled).await?;
    let stream = stream.map_err(|source| Error::Dial {
        address: address.clone(),
        source,
    })?;
    Ok(heard.on(stream))
}

/// Waits for a step of becoming known, as long as there is patience.
pub(super) async fn in_time<T>(
    address: &Address,
    step: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout(PATIENCE, step)
        .await
        .map_err(|_| Error::Silent {
            address: address.clone(),
        })
}

pub(super) fn stranger(address: &Address, what: Stranger) -> Error {
    Error::Stranger {
        address: address.clone(),
        what,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::buildkit::Daemon;

    /// Says who listens where every connection is answered so, once something was said.
    async fn met(
        service: Service,
        answer: impl Fn(&[u8]) -> &'static [u8] + Send + 'static,
    ) -> String {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut asked = [0; 4096];
                let count = stream.read(&mut asked).unwrap();
                stream.write_all(answer(&asked[..count])).unwrap();
            }
        });
        let address = Address {
            service,
            socket: Socket::Unix(path),
        };
        match Daemon::connect(&address).await.unwrap_err() {
            Error::Stranger { what, .. } => format!("{what:?}"),
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn knows_who_listens_instead_of_a_buildkitd() {
        let service = Service::BuildKitd;
        let dockerd = met(service, |asked| {
            if asked.starts_with(b"GET /_ping ") {
                b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10.24 (linux)\r\n\
                  Content-Length: 0\r\n\r\n"
            } else {
                b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n\r\n"
            }
        });
        assert_eq!(dockerd.await, "Dockerd(\"Docker/20.10.24 (linux)\")");
        let web = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(met(service, |_| web).await, "Http");
        assert_eq!(met(service, |_| b"\x15\x03\x01\0\x02\x02\x46").await, "Tls");
        let words = met(service, |_| b"220 mail ESMTP\r\n").await;
        assert_eq!(words, "Words(\"220 mail ESMTP\")");
        assert_eq!(met(service, |_| b"").await, "Mute");
    }

    #[tokio::test]
    async fn knows_who_listens_instead_of_a_dockerd() {
        let service = Service::Dockerd;
        let settings = b"\0\0\0\x04\0\0\0\0\0";
        assert_eq!(met(service, |_| settings).await, "Http2");
        let web = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(met(service, |_| web).await, "Http");
        let https = b"HTTP/1.0 400 Bad Request\r\n\r\n\
            Client sent an HTTP request to an HTTPS server.\n";
        assert_eq!(met(service, |_| https).await, "Tls");
        let podman = b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Libpod/API/4.3.1\r\n\
            Content-Length: 0\r\n\r\n";
        assert_eq!(
            met(service, |_| podman).await,
            "Podman(\"Libpod/API/4.3.1\")"
        );
        let closed = met(service, |asked| {
            if asked.starts_with(b"POST /grpc ") {
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
            } else {
                b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/26.1\r\n\
                  Content-Length: 0\r\n\r\n"
            }
        });
        assert_eq!(
            closed.await,
            "NoUpgrade { server: \"Docker/26.1\", status: 403 }"
        );
    }

    #[tokio::test]
    async fn nobody_there_is_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let kind = async |name: &str| {
            let address = Address {
                service: Service::BuildKitd,
                socket: Socket::Unix(place.path().join(name)),
            };
            match Daemon::connect(&address).await.unwrap_err() {
                Error::Dial { source, .. } => source.kind(),
                other => panic!("{other}"),
            }
        };
        assert_eq!(kind("none").await, io::ErrorKind::NotFound);
        drop(UnixListener::bind(place.path().join("left")).unwrap());
        assert_eq!(kind("left").await, io::ErrorKind::ConnectionRefused);
    }
}
