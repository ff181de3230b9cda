//! HTTP peers on loopback whose answers a test decides.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// An answer with a status and a body.
pub fn answer(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer
}

/// A delay of an answer.
#[derive(Clone)]
pub struct Delay(pub Duration);

/// Serves HTTP on a port of its own until the test ends. If `answer` returns `None`, the caller waits forever; if the
/// answer has a [`Delay`], that long.
pub async fn start(answer: impl Fn(Request<Bytes>) -> Option<Response<String>> + Send + Sync + 'static) -> u16 {
    start_on(0, answer).await
}

/// Serves as [`start`] does, on a port that was chosen before.
pub async fn start_on(
    port: u16,
    answer: impl Fn(Request<Bytes>) -> Option<Response<String>> + Send + Sync + 'static,
) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
    port
}

/// Serves on a Unix socket that is closed to other users.
pub fn start_on_socket(
    path: &Path,
    answer: impl Fn(Request<Bytes>) -> Option<Response<String>> + Send + Sync + 'static,
) {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer.clone()));
        }
    });
}

async fn serve<S, F>(stream: S, answer: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Bytes>) -> Option<Response<String>>,
{
    let service = service_fn(move |request: Request<_>| {
        let answer = answer.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = BodyExt::collect(body).await.unwrap().to_bytes();
            match answer(Request::from_parts(parts, body)) {
                Some(answer) => {
                    if let Some(Delay(delay)) = answer.extensions().get() {
                        tokio::time::sleep(*delay).await;
                    }
                    Ok::<_, Infallible>(answer.map(Full::<Bytes>::from))
                }
                None => std::future::pending().await,
            }
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
