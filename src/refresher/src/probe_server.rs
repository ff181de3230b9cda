//! `--listen`: `/healthz`, `/readyz` and `/metrics` for probes and for Prometheus.
//!
//! Anybody who reaches the port can open connections, so no connection may keep a slot from another: each carries one
//! request, lives for at most [`CONNECTION_LIFETIME`], and is closed for a newer one when [`MOST_CONNECTIONS`] are
//! open. A probe sends its request as soon as it is connected, and is answered before it becomes the oldest.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::metrics::Metrics;
use crate::sync::lock;

/// The time limit for the head of a request, however slowly it arrives.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit of a connection: enough for a slow reader of the metrics; Prometheus also gives up by then.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(10);

/// Probes and a few Prometheus servers. Each costs a file descriptor and up to [`LARGEST_HEAD`].
const MOST_CONNECTIONS: usize = 16;

/// The kernel's queue of connections to accept: if it is full, a probe waits for a second.
const BACKLOG: u32 = 1024;

const LARGEST_HEAD: usize = 16 << 10;

/// The metrics of many identities take time and memory to write: callers within this time share them.
const METRICS_SHARED_FOR: Duration = Duration::from_millis(200);

/// Lines of `/readyz`; the kubelet shows fewer.
const MOST_REASONS: usize = 100;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The listening server.
#[derive(Debug)]
pub struct ProbeServer {
    listener: TcpListener,
    pages: Arc<Pages>,
}

impl ProbeServer {
    /// Listens on `address`.
    ///
    /// # Errors
    /// If the address is in use or not this machine's.
    pub fn bind(address: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let pages = Arc::new(Pages { metrics, last_metrics: Mutex::default() });
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // As `TcpListener::bind` does: a restart finds the port free.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self { listener: socket.listen(BACKLOG)?, pages })
    }

    /// Returns the address that it listens on, with the port that was chosen for port 0.
    ///
    /// # Errors
    /// The system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests, forever.
    pub async fn serve(self) {
        let mut open = VecDeque::with_capacity(MOST_CONNECTIONS);
        loop {
            let accepted = self.listener.accept().await;
            open.retain(|connection: &AbortHandle| !connection.is_finished());
            if accepted.is_err() || open.len() >= MOST_CONNECTIONS {
                close_oldest(&mut open);
            }
            match accepted {
                Ok((stream, _)) => {
                    open.push_back(tokio::spawn(serve_one(stream, self.pages.clone())).abort_handle());
                    // Answers a request that has already arrived before the next connection can close this one.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    // Out of file descriptors, most likely.
                    debug!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

fn close_oldest(open: &mut VecDeque<AbortHandle>) {
    if let Some(oldest) = open.pop_front() {
        oldest.abort();
        debug!("closed the oldest status connection for a new one");
    }
}

async fn serve_one(stream: TcpStream, pages: Arc<Pages>) {
    let service = service_fn(|request: hyper::Request<_>| {
        let answer = pages.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIFETIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a status connection broke off"),
        Err(_) => debug!("closed a status connection that took too long"),
    }
}

/// The pages that are served.
#[derive(Debug)]
struct Pages {
    metrics: Arc<Metrics>,
    last_metrics: Mutex<Option<(Instant, Bytes)>>,
}

impl Pages {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n");
        }
        match path {
            "/healthz" => response(StatusCode::OK, PLAIN, "ok\n"),
            "/readyz" => {
                let (ready, lacking) = self.metrics.readiness();
                let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let body = if lacking.is_empty() { "ok\n".to_owned() } else { first_lines(&lacking, MOST_REASONS) };
                response(code, PLAIN, body)
            }
            "/metrics" => response(StatusCode::OK, OPENMETRICS, self.metrics()),
            _ => response(StatusCode::NOT_FOUND, PLAIN, "/healthz, /readyz or /metrics\n"),
        }
    }

    fn metrics(&self) -> Bytes {
        let mut last = lock(&self.last_metrics);
        match &*last {
            Some((at, metrics)) if at.elapsed() < METRICS_SHARED_FOR => metrics.clone(),
            _ => {
                let metrics = Bytes::from(self.metrics.metrics());
                *last = Some((Instant::now(), metrics.clone()));
                metrics
            }
        }
    }
}

/// Returns the first `most` lines, and the number of the others.
fn first_lines(text: &str, most: usize) -> String {
    let mut first: String = text.split_inclusive('\n').take(most).collect();
    let more = text.lines().count().saturating_sub(most);
    if more > 0 {
        first.push_str(&format!("and {more} more\n"));
    }
    first
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_only_the_first_of_many_reasons() {
        assert_eq!(first_lines("a\nb\n", 2), "a\nb\n");
        assert_eq!(first_lines("a\nb\nc\nd\n", 2), "a\nb\nand 2 more\n");
    }
}
