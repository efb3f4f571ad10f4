//! What becomes of the ops of a job, while it lasts: what they write, how far their parts are, how
//! they end (spec §4.2).
//!
//! A daemon repeats itself and tells more than is asked for; it is told on as it comes, one thing
//! at a time, and whoever listens knows ops by their digests. Times and names are left out.

use prost::bytes::Bytes;

use super::Daemon;
use super::protocol::moby::buildkit::v1::{StatusRequest, StatusResponse};

/// One thing that happened to an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The digest of the op.
    pub vertex: String,
    /// What.
    pub what: What,
}

/// What happened to an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It wrote to one of its outputs.
    Wrote(Bytes),
    /// A part of it came further, as a layer of an image.
    Part {
        /// Names the part.
        name: String,
        /// How far it is.
        done: u64,
        /// How far it goes; 0 where that is not known.
        total: u64,
        /// Whether it is done.
        complete: bool,
    },
    /// It ended, perhaps not for the last time.
    Ended {
        /// Why it failed, if it did.
        error: Option<String>,
    },
}

impl Daemon {
    /// Follows a job until it ends, or the daemon says no more of it.
    pub async fn follow(&self, reference: String, mut tell: impl FnMut(News)) {
        let request = StatusRequest { r#ref: reference };
        // Progress is for people: without it every op still ends with an answer of its own.
        let Ok(answer) = self.client.clone().status(request).await else {
            return;
        };
        let mut answers = answer.into_inner();
        while let Ok(Some(answer)) = answers.message().await {
            news(answer).for_each(&mut tell);
        }
    }
}

/// Takes an answer apart; what was written comes before the end of who wrote it.
fn news(answer: StatusResponse) -> impl Iterator<Item = News> {
    let logs = answer.logs.into_iter().map(|log| News {
        vertex: log.vertex,
        what: What::Wrote(log.msg),
    });
    let parts = answer.statuses.into_iter().map(|part| News {
        vertex: part.vertex,
        what: What::Part {
            name: part.id,
            done: u64::try_from(part.current).unwrap_or(0),
            total: u64::try_from(part.total).unwrap_or(0),
            complete: part.completed.is_some(),
        },
    });
    let ended = answer.vertexes.into_iter();
    let ended = ended.filter(|vertex| vertex.completed.is_some());
    let ended = ended.map(|vertex| News {
        vertex: vertex.digest,
        what: What::Ended {
            error: Some(vertex.error).filter(|error| !error.is_empty()),
        },
    });
    logs.chain(parts).chain(ended)
}

#[cfg(test)]
mod tests {
    use super::super::protocol::moby::buildkit::v1::{Moment, Vertex, VertexLog, VertexStatus};
    use super::*;

    #[test]
    fn last_words_come_before_the_end() {
        let vertex = |completed, error: &str| Vertex {
            digest: "sha256:1".to_owned(),
            completed,
            error: error.to_owned(),
            ..Vertex::default()
        };
        let answer = StatusResponse {
            vertexes: vec![vertex(None, ""), vertex(Some(Moment {}), "exit code: 1")],
            statuses: vec![VertexStatus {
                id: "sha256:layer".to_owned(),
                vertex: "sha256:2".to_owned(),
                current: 5,
                total: -1,
                completed: None,
            }],
            logs: vec![VertexLog {
                vertex: "sha256:1".to_owned(),
                msg: Bytes::from_static(b"last words"),
            }],
        };
        let all: Vec<String> = news(answer).map(|news| format!("{news:?}")).collect();
        insta::assert_snapshot!(all.join("\n"), @r#"
        News { vertex: "sha256:1", what: Wrote(b"last words") }
        News { vertex: "sha256:2", what: Part { name: "sha256:layer", done: 5, total: 0, complete: false } }
        News { vertex: "sha256:1", what: Ended { error: Some("exit code: 1") } }
        "#);
    }
}
