//! The client of a proxy's credential intake: it lists what the proxy wants and holds, and pushes credentials.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use sigv4_core::credentials::{Credentials, Identity};
use sigv4_core::intake::{IdentityListing, PROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::ProxyAddress;
use super::error::{EXCHANGE_TIMEOUT, ProxyError};
use super::socket;
use super::tls::TlsFiles;

/// More than a page of a listing. A filter without pages sends everything in one answer, which is smaller even for
/// 1,000 roles with 50 tags each, all as long as AWS allows.
const LARGEST_ANSWER: usize = 64 << 20;

/// More pages than a filter's memory can fill.
const MOST_PAGES: usize = 128;

/// More than the pages of a listing together: those of 10,000 roles have 5 MiB.
const LARGEST_LISTING: usize = 64 << 20;

/// The shortest time between two polls for a change. A proxy that waits, as it should, answers later than that.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The client of one proxy's intake.
///
/// Each exchange has a connection of its own: while one Envoy takes over from another, an older connection would still
/// lead to the old one. The last connection is left open, as it closes immediately when the proxy ends.
#[derive(Debug)]
pub struct ProxyClient {
    address: ProxyAddress,
    tls: Option<TlsFiles>,
    last_connection: Option<Connection>,
    /// The certificates, while they are being read.
    tls_config: Option<JoinHandle<Result<ClientConfig, ProxyError>>>,
}

/// A connection that stays open until it is dropped or the proxy closes it.
#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    async fn over<S>(stream: S) -> Result<Self, ProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its error is reported to the caller that waits for an answer.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl ProxyClient {
    /// Creates a client for the intake at `address`; with the certificates of `tls` if that is a port.
    pub fn new(address: ProxyAddress, tls: Option<TlsFiles>) -> Self {
        Self { address, tls, last_connection: None, tls_config: None }
    }

    /// Returns the address of the proxy's intake.
    pub fn address(&self) -> &ProxyAddress {
        &self.address
    }

    /// Returns what the proxy's policies want, and what it holds. The generation is the first page's, so that a change
    /// while the pages are read is noticed.
    ///
    /// # Errors
    /// Any [`ProxyError`].
    pub async fn identities(&mut self) -> Result<IdentityListing, ProxyError> {
        let (mut listing, mut size) = self.page("").await?;
        for _ in 0..MOST_PAGES {
            let Some(next) = listing.next.take() else {
                return Ok(listing);
            };
            let (page, page_size) = self.page(&next).await?;
            size += page_size;
            if size > LARGEST_LISTING {
                return Err(ProxyError::LargeListing);
            }
            if page.next.as_ref().is_some_and(|further| *further <= next) {
                break;
            }
            listing.next = page.next;
            listing.identities.extend(page.identities);
        }
        Err(ProxyError::Pages)
    }

    /// Returns a page and its size.
    async fn page(&mut self, from: &str) -> Result<(IdentityListing, usize), ProxyError> {
        let answer = self.exchange(Method::GET, &format!("/v1/identities?from={from}"), Bytes::new()).await?;
        let listing = serde_json::from_slice::<IdentityListing>(&answer);
        // A later version may have another form.
        let version = match &listing {
            Ok(listing) => listing.version,
            Err(_) => serde_json::from_slice::<Version>(&answer).map_or(0, |listing| listing.version),
        };
        if version > PROTOCOL {
            return Err(ProxyError::Version(version));
        }
        listing.map(|listing| (listing, answer.len())).map_err(ProxyError::Listing)
    }

    /// Pushes credentials for an identity.
    ///
    /// # Errors
    /// Any [`ProxyError`]; [`ProxyError::Refused`] with 404 if no policy wants the identity any longer.
    pub async fn push(&mut self, identity: &Identity, credentials: &Credentials) -> Result<(), ProxyError> {
        let path = format!("/v1/identities/{}/credentials?unless-revoked", identity.id());
        let document = Bytes::from_owner(credentials.to_document());
        self.exchange(Method::PUT, &path, document).await.map(drop)
    }

    /// Waits until the proxy's listing differs from that of `generation`, or the proxy does not answer. Each poll has a
    /// connection of its own and an answer within half a second, so that an Envoy that takes over is noticed too.
    ///
    /// Without a generation, waits until the proxy [closes the last connection](Self::disconnected).
    pub async fn changed(&mut self, generation: Option<u64>) {
        let Some(generation) = generation else {
            return self.disconnected().await;
        };
        let path = format!("/v1/identities?after={generation}");
        loop {
            let asked = Instant::now();
            match self.exchange(Method::GET, &path, Bytes::new()).await {
                Err(ProxyError::Refused { status: StatusCode::NOT_MODIFIED, .. }) => {
                    sleep_until(asked + POLL_INTERVAL).await;
                }
                _ => return,
            }
        }
    }

    /// Waits until the proxy closes the connection of the last exchange, as it does when it ends; forever if there is
    /// none.
    async fn disconnected(&mut self) {
        match &mut self.last_connection {
            Some(connection) => drop((&mut connection.driver).await),
            None => std::future::pending().await,
        }
        self.last_connection = None;
    }

    async fn exchange(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ProxyError> {
        self.last_connection = None;
        let exchange = async {
            let request = self.request(method, path, body)?;
            let mut connection = self.connect().await?;
            let response = connection.sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body =
                Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(ProxyError::Exchange)?;
            Ok((connection, status, body.to_bytes()))
        };
        let (connection, status, body) =
            tokio::time::timeout(EXCHANGE_TIMEOUT, exchange).await.map_err(|_| ProxyError::Timeout)??;
        self.last_connection = Some(connection);
        if status.is_success() { Ok(body) } else { Err(ProxyError::Refused { status, reason: reason(&body) }) }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ProxyError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, self.host());
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(body)).map_err(|error| ProxyError::Exchange(error.into()))
    }

    async fn connect(&mut self) -> Result<Connection, ProxyError> {
        match &self.address {
            ProxyAddress::Unix(path) => {
                socket::check(path)?;
                let stream = UnixStream::connect(path).await.map_err(ProxyError::Connect)?;
                // The socket may have been replaced since the check: what counts is who answers.
                socket::check_owner(path, stream.peer_cred().map_err(ProxyError::Connect)?.uid())?;
                Connection::over(stream).await
            }
            ProxyAddress::Tls { host, port } => {
                let Some(files) = &self.tls else {
                    return Err(ProxyError::Tls("no certificates are set".to_owned()));
                };
                let config = Self::read(&mut self.tls_config, files.clone()).await?;
                let name = ServerName::try_from(host.clone()).map_err(|error| ProxyError::Tls(error.to_string()))?;
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ProxyError::Connect)?;
                let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                Connection::over(connecting.map_err(|error| ProxyError::Tls(error.to_string()))?).await
            }
        }
    }

    /// Reads the files on a thread that may block: one on a dead disk, or a pipe, must not hold up the others. A read that
    /// outlasts an exchange is awaited by the next one.
    async fn read(
        reading: &mut Option<JoinHandle<Result<ClientConfig, ProxyError>>>,
        files: TlsFiles,
    ) -> Result<ClientConfig, ProxyError> {
        let read = reading.get_or_insert_with(|| spawn_blocking(move || files.read())).await;
        *reading = None;
        read.unwrap_or_else(|error| Err(ProxyError::Tls(error.to_string())))
    }

    fn host(&self) -> String {
        match &self.address {
            ProxyAddress::Unix(_) => "localhost".to_owned(),
            ProxyAddress::Tls { .. } => self.address.to_string().replace("https://", ""),
        }
    }
}

fn broken(error: hyper::Error) -> ProxyError {
    // A TLS alert about our certificate arrives with the answer, as the cause of an error that does not show it.
    match std::error::Error::source(&error) {
        Some(cause) => ProxyError::Exchange(format!("{error}: {cause}").into()),
        None => ProxyError::Exchange(error.into()),
    }
}

/// The member that every version of a listing has; 0 if it is missing.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    version: u32,
}

/// Returns the message of a local reply, in a form that can't corrupt a log.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Reply {
        error: Problem,
    }
    #[derive(Deserialize)]
    struct Problem {
        message: String,
    }
    let Ok(reply) = serde_json::from_slice::<Reply>(body) else {
        return "no reason given".to_owned();
    };
    reply.error.message.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(reason(br#"{"error": {"code": "X", "message": "no\nthing"}}"#), "nothing");
        assert_eq!(reason(b"<html>"), "no reason given");
        let long = format!(r#"{{"error": {{"message": "{}"}}}}"#, "x".repeat(5000));
        assert_eq!(reason(long.as_bytes()).len(), 300);
    }
}
