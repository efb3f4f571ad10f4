//! What a failed solve says: the chain of messages, and the details in it (spec §4.6).

use std::error::Error as _;

use prost::Message as _;
use tonic::{Code, Status};

use super::protocol::google::rpc::Status as Details;

/// A solve that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SolveError {
    /// The daemon's own words.
    pub message: String,
    /// What kind of failure it is.
    pub kind: Kind,
    /// The digest of the op that failed, as the daemon counts it.
    pub vertex: Option<String>,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The op's process ended with this code.
    Exit(i32),
    /// It was cancelled.
    Cancelled,
    /// The daemon is gone, or the way to it.
    Gone,
    /// The daemon does not take messages of this size.
    TooLarge,
    /// The session ended before the daemon needed it.
    SessionLost,
    /// Anything else.
    Other,
}

impl SolveError {
    /// An end of which nothing is known.
    pub fn gone() -> Self {
        Self {
            message: "the daemon is gone".to_owned(),
            kind: Kind::Gone,
            vertex: None,
        }
    }

    /// Reads a status.
    pub fn of(status: &Status) -> Self {
        let details = Details::decode(status.details()).unwrap_or_default();
        let value = |kind: &str| -> Option<serde_json::Value> {
            let found = details
                .details
                .iter()
                .find(|detail| detail.type_url.ends_with(kind))?;
            serde_json::from_slice(&found.value).ok()
        };
        let code = value("gatewayapi.ExitMessage+json")
            .and_then(|message| i32::try_from(message.get("Code")?.as_i64()?).ok())
            .or_else(|| trailing_code(status.message()));
        let vertex = value("errdefs.Vertex+json")
            .and_then(|vertex| Some(vertex.get("digest")?.as_str()?.to_owned()));
        Self {
            message: chain(status),
            kind: kind(status, code),
            vertex,
        }
    }
}

fn kind(status: &Status, code: Option<i32>) -> Kind {
    if let Some(code) = code {
        return Kind::Exit(code);
    }
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded => Kind::Cancelled,
        Code::Unavailable => Kind::Gone,
        Code::ResourceExhausted => Kind::TooLarge,
        // A broken connection is told of in several ways, all of them with a source.
        _ if status.source().is_some() => Kind::Gone,
        _ if status.message().contains("no active session") => Kind::SessionLost,
        _ => Kind::Other,
    }
}

/// Daemons of 2020 send no details, but the message ends so.
fn trailing_code(message: &str) -> Option<i32> {
    let (_, code) = message.rsplit_once("exit code: ")?;
    code.trim().parse().ok()
}

/// A status in one line, with what it was caused by.
pub(super) fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::super::protocol::google::rpc::Detail;
    use super::*;

    fn status(code: Code, message: &str, details: &[(&str, &str)]) -> Status {
        let details = details.iter().map(|(kind, json)| Detail {
            type_url: format!("github.com/moby/buildkit/{kind}"),
            value: Bytes::copy_from_slice(json.as_bytes()),
        });
        let details = Details {
            code: 2,
            message: message.to_owned(),
            details: details.collect(),
        };
        Status::with_details(code, message, Bytes::from(details.encode_to_vec()))
    }

    #[test]
    fn reads_the_details_of_a_failed_process() {
        let status = status(
            Code::Unknown,
            "process \"/x\" did not complete successfully: exit code: 7",
            &[
                ("stack.Stack+json", "{\"frames\":[]}"),
                ("errdefs.Vertex+json", "{\"digest\":\"sha256:00\"}"),
                ("gatewayapi.ExitMessage+json", "{\"Code\":71}"),
            ],
        );
        let error = SolveError::of(&status);
        assert_eq!(error.kind, Kind::Exit(71));
        assert_eq!(error.vertex.as_deref(), Some("sha256:00"));
    }

    #[test]
    fn reads_the_words_where_there_are_no_details() {
        let kinds = [
            (Code::Unknown, "executor failed running [/x]: exit code: 3"),
            (Code::Unknown, "no active session for abc: context deadline"),
            (Code::Unknown, "open pontoon/agent/x: no such file"),
            (Code::Cancelled, "context canceled"),
            (Code::ResourceExhausted, "grpc: received message larger"),
            (Code::Unavailable, "transport is closing"),
        ]
        .map(|(code, message)| SolveError::of(&Status::new(code, message)).kind);
        assert_eq!(
            kinds,
            [
                Kind::Exit(3),
                Kind::SessionLost,
                Kind::Other,
                Kind::Cancelled,
                Kind::TooLarge,
                Kind::Gone
            ]
        );
    }

    #[test]
    fn noise_in_the_details_is_no_panic() {
        let noise = Status::with_details(Code::Unknown, "m", Bytes::from_static(b"\xff\xff\xff"));
        assert_eq!(SolveError::of(&noise).kind, Kind::Other);
    }
}
