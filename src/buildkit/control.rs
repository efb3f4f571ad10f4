//! What a daemon is asked: who it is, and to solve.

use std::error::Error as _;

use prost::bytes::Bytes;
use tonic::Code;
use tonic::transport::Channel;

use super::connection::{self, Error};
use super::errors::SolveError;
use super::protocol::moby::buildkit::v1::control_client::ControlClient;
use super::protocol::moby::buildkit::v1::{InfoRequest, SolveRequest};
use super::{AROUND, Address, MAX_DECODED, MAX_ENCODED, OLD_MAX_ENCODED};

/// A daemon that answers.
#[derive(Debug, Clone)]
pub struct Daemon {
    pub(super) client: ControlClient<Channel>,
    pub(super) channel: Channel,
    /// The version of `BuildKit`; before 0.11 it does not tell.
    pub version: Option<String>,
    /// What a dockerd says of itself, as `Docker/20.10.24 (linux)`.
    pub server: Option<String>,
    /// The newest API a dockerd speaks.
    pub api: Option<(u32, u32)>,
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
        let connection = connection::connect(address).await?;
        let client = ControlClient::new(connection.channel.clone())
            .max_decoding_message_size(MAX_DECODED)
            .max_encoding_message_size(MAX_ENCODED);
        let mut asking = client.clone();
        let asked = asking.info(InfoRequest {});
        let version = match connection::in_time(address, asked).await? {
            Ok(answer) => answer.into_inner().buildkit_version.map(|v| v.version),
            Err(status) if is_html(&status) => {
                return Err(connection.unmask(address).await);
            }
            // Daemons before 0.11 do not tell.
            Err(status) if status.code() == Code::Unimplemented => None,
            // No answer, but the end of the connection.
            Err(status) if status.source().is_some() => {
                return Err(connection.unmask(address).await);
            }
            Err(status) => {
                return Err(Error::Refused {
                    address: address.clone(),
                    reason: super::errors::chain(&status),
                });
            }
        };
        Ok(Self {
            client,
            channel: connection.channel,
            version,
            api: connection.dockerd.as_ref().map(|pong| pong.api),
            server: connection.dockerd.map(|pong| pong.server),
        })
    }

    /// Done when it has answered, whatever it says.
    pub async fn answer(&self) {
        let _ = self.client.clone().info(InfoRequest {}).await;
    }

    /// What it says of itself, in one line.
    pub fn describe(&self) -> String {
        match (&self.server, &self.version) {
            (Some(server), Some(version)) => format!("{server}, BuildKit {version}"),
            (Some(server), None) => server.clone(),
            (None, Some(version)) => format!("BuildKit {version}"),
            (None, None) => "a BuildKit that does not say its version".to_owned(),
        }
    }

    /// The largest message it takes, with room for what is around a definition (spec §1.7).
    pub fn limit(&self) -> usize {
        // Docker 27.2.
        let large = self.is_since((0, 14), (1, 47));
        let limit = if large { MAX_ENCODED } else { OLD_MAX_ENCODED };
        limit - AROUND
    }

    /// Whether it is a `BuildKit` of at least this release, or a dockerd with at least this API,
    /// which has such a one in it.
    pub(super) fn is_since(&self, buildkit: (u32, u32), docker: (u32, u32)) -> bool {
        let release = || self.version.as_deref().and_then(release);
        match self.api {
            Some(api) => api >= docker,
            None => release().is_some_and(|release| release >= buildkit),
        }
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

/// The first two numbers of `v0.32.2`, whatever is around them.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A web server's answer becomes a status too.
fn is_html(status: &tonic::Status) -> bool {
    status.message().contains("HTTP status code")
}
