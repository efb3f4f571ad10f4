//! What a daemon is asked: who it is, and to solve.

use std::time::Duration;

use prost::bytes::Bytes;
use tonic::Code;
use tonic::transport::Channel;

use super::errors::SolveError;
use super::protocol::moby::buildkit::v1::control_client::ControlClient;
use super::protocol::moby::buildkit::v1::{InfoRequest, SolveRequest};
use super::{Address, MAX_DECODED, MAX_ENCODED, connection};

/// How long a daemon may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that answers.
#[derive(Debug, Clone)]
pub struct Daemon {
    pub(super) client: ControlClient<Channel>,
    /// Its version; daemons before 0.11 do not tell.
    pub version: Option<String>,
}

/// No daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// A connection, but to something else.
    #[error("what listens at `{address}` is not a BuildKit daemon: {reason}")]
    Stranger {
        /// Where.
        address: Address,
        /// What it said instead.
        reason: String,
    },
    /// A connection on which nothing comes.
    #[error("the daemon at `{address}` does not answer")]
    Silent {
        /// Where.
        address: Address,
    },
}

/// What is to be solved.
#[derive(Debug, Clone)]
pub struct Solve {
    /// Names this solve; none of ten seconds ago may have had it.
    pub reference: String,
    /// The marshalled definition.
    pub definition: Vec<u8>,
    /// The session that answers for it.
    pub session: String,
    /// What it asks of the daemon beyond a sandbox, as `security.insecure`.
    pub entitlements: Vec<String>,
}

impl Daemon {
    /// Connects and asks for the version.
    ///
    /// # Errors
    ///
    /// [`Error`].
    pub async fn connect(address: &Address) -> Result<Self, Error> {
        let channel = connection::connect(address).await?;
        let mut client = ControlClient::new(channel)
            .max_decoding_message_size(MAX_DECODED)
            .max_encoding_message_size(MAX_ENCODED);
        let asked = tokio::time::timeout(PATIENCE, client.info(InfoRequest {})).await;
        let version = match asked {
            Ok(Ok(answer)) => answer.into_inner().buildkit_version.map(|v| v.version),
            Ok(Err(status)) if status.code() == Code::Unimplemented && !is_html(&status) => None,
            Ok(Err(status)) => {
                return Err(Error::Stranger {
                    address: address.clone(),
                    reason: super::errors::chain(&status),
                });
            }
            Err(_) => {
                return Err(Error::Silent {
                    address: address.clone(),
                });
            }
        };
        Ok(Self { client, version })
    }

    /// Solves a definition; done when every op of it is. To drop the future cancels it, and the
    /// daemon then kills its processes.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn solve(&self, solve: Solve) -> Result<(), SolveError> {
        let request = SolveRequest {
            r#ref: solve.reference,
            definition: Bytes::from(solve.definition),
            session: solve.session,
            entitlements: solve.entitlements,
            internal: true,
        };
        let answer = self.client.clone().solve(request).await;
        answer.map(drop).map_err(|status| SolveError::of(&status))
    }
}

/// A web server's answer of 404 becomes "unimplemented" too.
fn is_html(status: &tonic::Status) -> bool {
    status.message().contains("HTTP status code")
}
