//! A daemon of 2018, as far as one who asks can tell: it is a BuildKit, it does not say its version,
//! opens sessions and takes jobs, and knows few things that an op can have.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::os::unix::net::UnixListener;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pontoon::buildkit::protocol::moby::buildkit::v1::frontend::{
    ApiCap, PingRequest, PongResponse,
};
use pontoon::buildkit::protocol::moby::buildkit::v1::{
    BytesMessage, ListWorkersRequest, ListWorkersResponse, WorkerRecord,
};
use tokio_stream::Pending;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// What it knows, by BuildKit's names.
const KNOWN: [&str; 4] = [
    "exec.meta.base",
    "exec.mount.cache.sharing",
    "exec.mount.selector",
    "source.local",
];

/// Serves until the tests end.
pub(super) fn serve(listener: UnixListener) {
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
    });
}

async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Body>, Infallible> {
    let method = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    Ok(match method.as_str() {
        "Ping" => {
            let pong = |_: Request<PingRequest>| ready(Ok::<_, Status>(Response::new(pong())));
            let mut grpc = Grpc::new(ProstCodec::default());
            grpc.unary(tower::service_fn(pong), request).await
        }
        "ListWorkers" => {
            let workers = |_: Request<ListWorkersRequest>| {
                let record = vec![WorkerRecord::default()];
                ready(Ok::<_, Status>(Response::new(ListWorkersResponse {
                    record,
                })))
            };
            let mut grpc = Grpc::new(ProstCodec::default());
            grpc.unary(tower::service_fn(workers), request).await
        }
        "Session" => {
            let open = |_: Request<Streaming<BytesMessage>>| {
                let silence: Pending<Result<BytesMessage, Status>> = tokio_stream::pending();
                ready(Ok::<_, Status>(Response::new(silence)))
            };
            let mut grpc = Grpc::new(ProstCodec::default());
            grpc.streaming(tower::service_fn(open), request).await
        }
        // A job lasts until whoever began it has had enough.
        "Solve" => pending().await,
        other => Status::unimplemented(format!("unknown method {other}")).into_http(),
    })
}

fn pong() -> PongResponse {
    let known = |id: &str| ApiCap {
        id: id.to_owned(),
        enabled: true,
    };
    PongResponse {
        llb_caps: KNOWN.map(known).to_vec(),
        ..PongResponse::default()
    }
}
