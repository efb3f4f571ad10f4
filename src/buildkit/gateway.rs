//! A job of the daemon that the client drives itself: ops are solved in it one by one (spec §1.6).
//!
//! It begins with a solve of nothing, which lasts as long as the job; every other call names the
//! job in its metadata. One op's end, good or bad, is not the job's, and a call that is dropped
//! ends its own op alone. What a job holds, results above all, goes when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;

use prost::bytes::Bytes;
use protocol::llb_bridge_client::LlbBridgeClient;
use protocol::result::Result as Returned;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::errors::{Kind, SolveError};
use super::protocol::moby::buildkit::v1::{SolveRequest, frontend as protocol};
use super::{Daemon, MAX_DECODED, MAX_ENCODED};

/// A job.
#[derive(Debug)]
pub struct Job {
    bridge: LlbBridgeClient<Channel>,
    reference: MetadataValue<Ascii>,
    /// What the daemon can do.
    pub capabilities: Capabilities,
    /// The solve that is the job; why it ended, once it has.
    ended: watch::Receiver<Option<SolveError>>,
    solve: tokio::task::AbortHandle,
}

/// What is said when a job is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Names the job; none of ten seconds ago may have had it.
    pub reference: String,
    /// The session that answers for its ops.
    pub session: String,
    /// What its ops may ask of the daemon beyond a sandbox.
    pub entitlements: Vec<String>,
}

/// What a daemon can do, by `BuildKit`'s names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Of ops.
    pub ops: BTreeSet<String>,
    /// Of jobs.
    pub gateway: BTreeSet<String>,
}

/// What came of a solve: a file system that can be read for as long as its job lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solved {
    /// Names it in the job; none for the empty one.
    pub reference: Option<String>,
    /// The marshalled definition it came of; daemons of 2020 tell it only for some.
    pub definition: Bytes,
    /// What a frontend adds, as `containerimage.config`.
    pub metadata: BTreeMap<String, Bytes>,
}

/// An image, as its registry describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Names its content.
    pub digest: String,
    /// Its configuration, as JSON.
    pub config: Bytes,
}

impl Job {
    /// Opens a job. It ends when this is dropped.
    ///
    /// # Errors
    ///
    /// The daemon's refusal.
    pub async fn open(daemon: &Daemon, opening: Opening) -> Result<Self, SolveError> {
        let reference = opening.reference.parse().map_err(|_| SolveError {
            message: format!("`{}` names no job", opening.reference),
            kind: Kind::Other,
            vertex: None,
        })?;
        let request = SolveRequest {
            r#ref: opening.reference,
            definition: Bytes::new(),
            session: opening.session,
            entitlements: opening.entitlements,
            internal: true,
        };
        let (tell, ended) = watch::channel(None);
        let mut client = daemon.client.clone();
        let solve = tokio::spawn(async move {
            let error = match client.solve(request).await {
                Ok(_) => Status::cancelled("the daemon ended the job"),
                Err(status) => status,
            };
            tell.send_replace(Some(SolveError::of(&error)));
        });
        let mut job = Self {
            bridge: LlbBridgeClient::new(daemon.channel.clone())
                .max_decoding_message_size(MAX_DECODED)
                .max_encoding_message_size(MAX_ENCODED),
            reference,
            capabilities: Capabilities::default(),
            ended,
            solve: solve.abort_handle(),
        };
        job.capabilities = job.ping().await?;
        Ok(job)
    }

    /// Solves a definition, to the end of every op of it. To drop the future ends them.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn solve(&self, definition: Vec<u8>) -> Result<Solved, SolveError> {
        let evaluates = self.capabilities.gateway.contains("gateway.solve.evaluate");
        let request = protocol::SolveRequest {
            definition: Bytes::from(definition),
            evaluate: evaluates,
            ..accepting()
        };
        let solved = self.request(request).await?;
        // An older daemon only begins when something is asked of the result.
        if !evaluates && let Some(reference) = &solved.reference {
            let request = protocol::StatFileRequest {
                r#ref: reference.clone(),
                path: "/".to_owned(),
            };
            let mut bridge = self.bridge.clone();
            self.answer(bridge.stat_file(self.named(request))).await?;
        }
        Ok(solved)
    }

    /// Lets a frontend of the daemon make a definition, as `dockerfile.v0` does. Nothing of it has
    /// run by then but what the frontend itself needs. Inputs are marshalled definitions, such as
    /// `context`.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn frontend(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
        inputs: BTreeMap<String, Bytes>,
    ) -> Result<Solved, SolveError> {
        let request = protocol::SolveRequest {
            frontend: name.to_owned(),
            frontend_opt: options.into_iter().collect(),
            frontend_inputs: inputs.into_iter().collect(),
            ..accepting()
        };
        self.request(request).await
    }

    /// Looks an image up in its registry; nothing of its content is fetched.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn image(&self, name: &str) -> Result<Image, SolveError> {
        let request = protocol::ResolveImageConfigRequest {
            r#ref: name.to_owned(),
            log_name: format!("look up {name}"),
        };
        let mut bridge = self.bridge.clone();
        let call = bridge.resolve_image_config(self.named(request));
        let answer = self.answer(call).await?;
        Ok(Image {
            digest: answer.digest,
            config: answer.config,
        })
    }

    /// Reads a file of a result, or as much of it as is there of this part.
    ///
    /// # Errors
    ///
    /// [`SolveError`].
    pub async fn read_file(
        &self,
        reference: &str,
        path: &str,
        part: Option<Range<u64>>,
    ) -> Result<Bytes, SolveError> {
        let range = part.map(|part| protocol::FileRange {
            offset: i64::try_from(part.start).unwrap_or(i64::MAX),
            length: i64::try_from(part.end - part.start).unwrap_or(i64::MAX),
        });
        let request = protocol::ReadFileRequest {
            r#ref: reference.to_owned(),
            file_path: path.to_owned(),
            range,
        };
        let mut bridge = self.bridge.clone();
        let answer = self.answer(bridge.read_file(self.named(request))).await?;
        Ok(answer.data)
    }

    /// Ends the job, and waits until the daemon holds nothing of it any more: the same op solved
    /// after that is another attempt, not the same outcome told again.
    pub async fn close(&self) {
        let request = protocol::ReturnRequest {
            error: Some(super::protocol::google::rpc::Status {
                code: tonic::Code::Cancelled as i32,
                message: "the job is done".to_owned(),
                details: Vec::new(),
            }),
        };
        let mut bridge = self.bridge.clone();
        // A job that cannot be told is over, or its daemon is.
        if bridge.r#return(self.named(request)).await.is_ok() {
            let mut ended = self.ended.clone();
            let _ = ended.wait_for(Option::is_some).await;
        }
    }

    async fn ping(&self) -> Result<Capabilities, SolveError> {
        let mut bridge = self.bridge.clone();
        let request = self.named(protocol::PingRequest {});
        let answer = self.answer(bridge.ping(request)).await?;
        let enabled = |caps: Vec<protocol::ApiCap>| {
            let enabled = caps.into_iter().filter(|cap| cap.enabled);
            enabled.map(|cap| cap.id).collect()
        };
        Ok(Capabilities {
            ops: enabled(answer.llb_caps),
            gateway: enabled(answer.frontend_api_caps),
        })
    }

    async fn request(&self, request: protocol::SolveRequest) -> Result<Solved, SolveError> {
        let mut bridge = self.bridge.clone();
        let answer = self.answer(bridge.solve(self.named(request))).await?;
        Ok(solved(answer.result.unwrap_or_default()))
    }

    /// What its calls go through.
    pub(super) fn bridge(&self) -> LlbBridgeClient<Channel> {
        self.bridge.clone()
    }

    /// Says whose call it is.
    pub(super) fn named<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let headers = request.metadata_mut();
        headers.insert("buildkit-controlapi-buildid", self.reference.clone());
        request
    }

    /// Waits for an answer, or for the job's own end.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, SolveError> {
        let mut ended = self.ended.clone();
        let over = async {
            match ended.wait_for(Option::is_some).await {
                Ok(error) => (*error).clone(),
                Err(_) => None,
            }
        };
        tokio::select! {
            biased;
            answer = call => answer.map(Response::into_inner).map_err(|status| SolveError::of(&status)),
            error = over => Err(error.unwrap_or_else(SolveError::gone)),
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.solve.abort();
    }
}

/// A request whose answer may be of any form.
fn accepting() -> protocol::SolveRequest {
    protocol::SolveRequest {
        allow_result_return: true,
        allow_result_array_ref: true,
        ..protocol::SolveRequest::default()
    }
}

fn solved(result: protocol::Result) -> Solved {
    let metadata = result.metadata.into_iter().collect();
    let (reference, definition) = match result.result {
        Some(Returned::RefDeprecated(id)) => (id, Bytes::new()),
        Some(Returned::Ref(reference)) => (reference.id, reference.def),
        // One for each platform: we ask for one.
        Some(Returned::Refs(refs)) => refs
            .refs
            .into_values()
            .next()
            .map(|reference| (reference.id, reference.def))
            .unwrap_or_default(),
        None => (String::new(), Bytes::new()),
    };
    Solved {
        reference: Some(reference).filter(|id| !id.is_empty()),
        definition,
        metadata,
    }
}
