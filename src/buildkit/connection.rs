//! One connection to a daemon. A session lives and dies with it, so it is never made anew.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint};

use super::{Address, WINDOW};

/// How long a daemon may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// A long error comes in a header: with the usual 16 KiB it would be lost (spec rule 9).
const HEADERS: u32 = 16 << 20;

/// No connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("cannot connect to `{address}`")]
    Dial {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody answers, but no HTTP/2 comes about.
    #[error("what listens at `{address}` is not a BuildKit daemon: no HTTP/2 comes about")]
    Speak {
        /// Where.
        address: Address,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// A byte stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects.
///
/// # Errors
///
/// [`Error`].
pub async fn connect(address: &Address) -> Result<Channel, Error> {
    let dialled = tokio::time::timeout(PATIENCE, dial(address)).await;
    let stream = dialled
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| Error::Dial {
            address: address.clone(),
            source,
        })?;
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
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|source| Error::Speak {
        address: address.clone(),
        source,
    })
}

async fn dial(address: &Address) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(place) => {
            let stream = TcpStream::connect(place).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
    }
}
