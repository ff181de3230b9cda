//! A proxy's intake, as design and contract have it: real HTTP over a Unix socket or a local port.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sigv4_filter::credentials::{Credentials, HeldCredentials, Identities, Identity, IdentityStatus};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinHandle;

/// What the proxy wants, holds and has seen.
#[derive(Default)]
pub struct Intake {
    wanted: Mutex<Vec<Identity>>,
    held: Mutex<BTreeMap<String, Credentials>>,
    pushes: Mutex<Vec<String>>,
    token: Option<&'static str>,
}

/// A running intake; it ends, and forgets all it held, when this is dropped.
pub struct Running {
    pub intake: Arc<Intake>,
    serving: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Running {
    pub fn on_socket(path: &Path, wanted: &[Identity]) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let intake = Arc::new(Intake { wanted: Mutex::new(wanted.to_vec()), ..Intake::default() });
        let serving = tokio::spawn({
            let intake = intake.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, intake.clone()));
                }
            }
        });
        Self { intake, serving }
    }

    pub async fn on_port(token: &'static str, wanted: &[Identity]) -> (Self, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let intake = Arc::new(Intake { wanted: Mutex::new(wanted.to_vec()), token: Some(token), ..Intake::default() });
        let serving = tokio::spawn({
            let intake = intake.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, intake.clone()));
                }
            }
        });
        (Self { intake, serving }, port)
    }

    pub fn held(&self, identity: &Identity) -> Option<Credentials> {
        self.intake.held.lock().unwrap().get(identity.id()).cloned()
    }

    /// Ids of the identities in the order of their pushes.
    pub fn pushes(&self) -> Vec<String> {
        self.intake.pushes.lock().unwrap().clone()
    }

    pub fn want(&self, wanted: &[Identity]) {
        *self.intake.wanted.lock().unwrap() = wanted.to_vec();
    }

    /// As if another refresher had pushed.
    pub fn put(&self, identity: &Identity, credentials: Credentials) {
        self.intake.held.lock().unwrap().insert(identity.id().to_owned(), credentials);
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, intake: Arc<Intake>) {
    let service = service_fn(|request| {
        let intake = intake.clone();
        async move { Ok::<_, Infallible>(intake.answer(request).await) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

impl Intake {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if let Some(token) = self.token
            && request.headers().get(AUTHORIZATION).is_none_or(|value| *value != format!("Bearer {token}"))
        {
            return refusal(StatusCode::UNAUTHORIZED, "no listed token");
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path();
        if parts.method == Method::GET && path == "/v1/identities" {
            return Response::new(Full::from(serde_json::to_vec(&self.listing()).unwrap()));
        }
        let id = path.strip_prefix("/v1/identities/").and_then(|rest| rest.strip_suffix("/credentials"));
        let (Some(id), Method::PUT) = (id, parts.method) else {
            return refusal(StatusCode::NOT_FOUND, "no such resource");
        };
        if !self.wanted.lock().unwrap().iter().any(|identity| identity.id() == id) {
            return refusal(StatusCode::NOT_FOUND, "no policy wants this identity");
        }
        match Credentials::from_document(&body) {
            Ok(credentials) => {
                self.held.lock().unwrap().insert(id.to_owned(), credentials);
                self.pushes.lock().unwrap().push(id.to_owned());
                let mut done = Response::new(Full::default());
                *done.status_mut() = StatusCode::NO_CONTENT;
                done
            }
            Err(error) => refusal(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }

    fn listing(&self) -> Identities {
        let held = self.held.lock().unwrap();
        let status = |identity: &Identity| IdentityStatus {
            identity: identity.clone(),
            held: held.get(identity.id()).map(HeldCredentials::from),
        };
        Identities { identities: self.wanted.lock().unwrap().iter().map(status).collect() }
    }
}

fn refusal(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"error": {"code": "Refused", "message": message}});
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
}
