//! `--listen`: `/healthz`, `/readyz` and `/metrics` for probes and for Prometheus.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::status::Status;

/// How long a caller may take to send a request, or to send the next one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Probes and a few Prometheus servers; whoever comes beyond that waits.
const MOST_CONNECTIONS: usize = 32;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The listening server.
#[derive(Debug)]
pub struct StatusServer {
    listener: TcpListener,
    status: Arc<Status>,
}

impl StatusServer {
    /// Listens on `address`.
    ///
    /// # Errors
    /// Where the address is taken or not this machine's.
    pub async fn bind(address: SocketAddr, status: Arc<Status>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, status })
    }

    /// Where it listens; tells the port where port 0 was asked for.
    ///
    /// # Errors
    /// As the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for ever.
    pub async fn serve(self) {
        let free = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(seat) = free.clone().acquire_owned().await {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: some will be free again shortly.
                    debug!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let status = self.status.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: hyper::Request<_>| {
                    let answer = answer(&status, request.method(), request.uri().path());
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(IDLE_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    debug!(%error, "a status connection broke off");
                }
                drop(seat);
            });
        }
    }
}

fn answer(status: &Status, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned());
    }
    match path {
        "/healthz" => response(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => {
            let (ready, lacking) = status.readiness();
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(code, PLAIN, if lacking.is_empty() { "ok\n".to_owned() } else { lacking })
        }
        "/metrics" => response(StatusCode::OK, OPENMETRICS, status.metrics()),
        _ => response(StatusCode::NOT_FOUND, PLAIN, "/healthz, /readyz or /metrics\n".to_owned()),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
