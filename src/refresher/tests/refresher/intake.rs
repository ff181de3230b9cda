//! A proxy's intake without the proxy: the intake's own logic over real HTTP, on a Unix socket.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sigv4_core::credentials::{CredentialStore, Credentials, Identity, RequiredIds, SetError, SharedData};
use sigv4_core::intake::{self, LONGEST_WAIT, Reply};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use memory::Memory;

#[path = "../../../core/src/test_support/memory.rs"]
mod memory;

/// A proxy's intake: what its policies require, what it holds, and the calls that it has seen.
#[derive(Default)]
pub struct Intake {
    memory: Memory,
    wanted: Mutex<Vec<Identity>>,
    pushes: Mutex<Vec<String>>,
    delay: Mutex<Duration>,
}

/// A running intake; it ends, and forgets all it held, when this is dropped.
pub struct Running {
    pub intake: Arc<Intake>,
    /// Ends with its connections when dropped.
    _serving: JoinSet<()>,
}

impl Running {
    pub fn on_socket(path: &Path, wanted: &[Identity]) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        let intake = Arc::new(Intake { wanted: Mutex::new(wanted.to_vec()), ..Intake::default() });
        let mut serving = JoinSet::new();
        serving.spawn({
            let intake = intake.clone();
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(serve(stream, intake.clone()));
                }
            }
        });
        Self { intake, _serving: serving }
    }

    pub fn held(&self, identity: &Identity) -> Option<Credentials> {
        CredentialStore(&self.intake.memory).get(identity.id())
    }

    /// Ids of the identities in the order of their pushes.
    pub fn pushes(&self) -> Vec<String> {
        self.intake.pushes.lock().unwrap().clone()
    }

    /// Acts as if another policy was loaded, and all earlier leases had expired.
    pub fn want(&self, wanted: &[Identity]) {
        *self.intake.wanted.lock().unwrap() = wanted.to_vec();
        CredentialStore(&self.intake.memory).lease("policy", wanted, SystemTime::now(), true).unwrap();
    }

    /// Acts as if somebody had called `DELETE`.
    pub fn revoke(&self, identity: &Identity) {
        CredentialStore(&self.intake.memory).revoke(identity.id()).unwrap();
    }

    /// Acts as if somebody had pushed a revoked key by hand.
    pub fn reinstate(&self, identity: &Identity, credentials: Credentials) {
        CredentialStore(&self.intake.memory).reinstate(identity.id(), credentials.access_key_id()).unwrap();
        self.put(identity, credentials);
    }

    /// Delays every answer from now on.
    pub fn delay(&self, delay: Duration) {
        *self.intake.delay.lock().unwrap() = delay;
    }

    /// Acts as if another refresher had pushed.
    pub fn put(&self, identity: &Identity, credentials: Credentials) {
        CredentialStore(&self.intake.memory).put(identity.id(), &credentials).unwrap();
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
    /// Answers a call that waits as the filter does.
    async fn change(&self, generation: u64) -> Reply {
        let (store, begin) = (CredentialStore(&self.memory), Instant::now());
        while store.generation() == generation {
            if begin.elapsed() > LONGEST_WAIT {
                return Reply::unchanged();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        intake::answer(&store, &mut RequiredIds::default(), b"GET", b"/v1/identities", b"", SystemTime::now())
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        let (store, now) = (CredentialStore(&self.memory), SystemTime::now());
        store.lease("policy", &self.wanted.lock().unwrap(), now, true).unwrap();
        let (method, path) = (parts.method.as_str().as_bytes(), parts.uri.path_and_query().unwrap().as_str());
        let reply = match intake::awaited_generation(method, path.as_bytes()) {
            Some(generation) => self.change(generation).await,
            None => intake::answer(&store, &mut RequiredIds::default(), method, path.as_bytes(), &body, now),
        };
        if parts.method == Method::PUT && reply.changed {
            let id = parts.uri.path().split('/').nth(3).unwrap();
            self.pushes.lock().unwrap().push(id.to_owned());
        }
        let mut response = Response::new(Full::from(reply.body));
        *response.status_mut() = StatusCode::from_u16(reply.status).unwrap();
        response
    }
}
