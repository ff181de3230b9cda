//! A proxy's credential intake, as its client: what it wants and holds, and the push.

use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use sigv4_core::credentials::{Credentials, Identities, Identity, PROTOCOL};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long one exchange with a proxy may take. It is on the same machine: a healthy one answers in milliseconds.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// More than a page of a listing. A filter from before there were pages gives all at once: that of 1,000 roles with 50
/// tags each, all as long as AWS allows, is smaller.
const LARGEST_ANSWER: usize = 64 << 20;

/// More pages than the memory of a filter could fill.
const MOST_PAGES: usize = 128;

/// Where a proxy's intake listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProxyAddress {
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A port with TLS.
    Tls {
        /// A name or an address, which the proxy's certificate must have.
        host: String,
        /// The port.
        port: u16,
    },
}

/// Why a `--proxy` is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyAddressError {
    /// Neither of the two forms.
    #[error("must be unix:PATH or https://HOST:PORT")]
    Form,
    /// Whoever binds the port while the proxy is down would be given the credentials.
    #[error(
        "plain HTTP can't tell the proxy from another program on its port: use https:// with --proxy-ca, --client-cert and \
         --client-key, or the proxy's Unix socket"
    )]
    Plain,
}

impl FromStr for ProxyAddress {
    type Err = ProxyAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(ProxyAddressError::Form) } else { Ok(Self::Unix(path.into())) };
        }
        let url = url::Url::parse(text).map_err(|_| ProxyAddressError::Form)?;
        if url.scheme() == "http" {
            return Err(ProxyAddressError::Plain);
        }
        let bare = url.scheme() == "https" && url.path() == "/" && url.query().is_none() && url.username().is_empty();
        let (true, Some(host), Some(port)) = (bare, url.host_str(), url.port_or_known_default()) else {
            return Err(ProxyAddressError::Form);
        };
        Ok(Self::Tls { host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

impl TryFrom<String> for ProxyAddress {
    type Error = ProxyAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

/// Why a proxy could not be asked or supplied.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Nothing there.
    #[error("{0} is not there: is the proxy up, and does its intake listen there?")]
    NoSocket(PathBuf),
    /// Something else bears that name.
    #[error("{0} is not a socket")]
    NotASocket(PathBuf),
    /// Another user could be listening for credentials.
    #[error("{path} belongs to user {owner}: run this process as that user, or the proxy as this one")]
    SocketOwner {
        /// The socket.
        path: PathBuf,
        /// The uid of its owner.
        owner: u32,
    },
    /// Any user of the machine could push credentials.
    #[error("{path} is open to every user (mode {mode:04o}): set mode 0600 on the proxy's pipe listener")]
    SocketMode {
        /// The socket.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Any user of the machine could put a socket of their own in its place.
    #[error("{path} can be written to by every user (mode {mode:04o}): keep the socket in a directory of its own")]
    DirectoryMode {
        /// The socket's directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The connection was refused, or broke.
    #[error("can't connect: {0}")]
    Connect(io::Error),
    /// A certificate or key could not be read, or is none.
    #[error("{path} can't be used: {problem}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The proxy's certificate is not for its name, or not from the authority; or it does not take ours.
    #[error("no TLS with the proxy: {0}")]
    Tls(String),
    /// No answer in time.
    #[error("no answer within {} s", EXCHANGE_TIMEOUT.as_secs())]
    Timeout,
    /// The exchange broke, or was not HTTP.
    #[error("the exchange broke off: {0}")]
    Exchange(Box<dyn std::error::Error + Send + Sync>),
    /// The proxy said no.
    #[error("answered {status}: {reason}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The reason that it gave.
        reason: String,
    },
    /// An answer that no intake gives.
    #[error("the answer is no list of identities ({0}): is this the proxy's intake?")]
    Listing(serde_json::Error),
    /// No filter has the memory for so many pages, and each is of later identities than the one before.
    #[error("the pages of its listing don't end: is this the proxy's intake?")]
    Pages,
    /// The filter is newer, and its listing means something that this version can't know.
    #[error("its listing is of version {0}, and this version knows up to {PROTOCOL}: upgrade credential-refresher")]
    Version(u32),
}

/// The client of one proxy's intake.
///
/// Each exchange has a connection of its own: while one Envoy takes over from another, an older connection would still
/// lead to the one that goes. The last connection is left open, as its end tells at once that the proxy has ended.
#[derive(Debug)]
pub struct ProxyClient {
    address: ProxyAddress,
    tls: Option<TlsFiles>,
    last_connection: Option<Connection>,
}

/// A connection that is open until it is dropped, or the proxy closes it.
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
        // Why it ends is told to whoever waits for an answer on it.
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
    /// A client for the intake at `address`; with the certificates of `tls` if that is a port.
    pub fn new(address: ProxyAddress, tls: Option<TlsFiles>) -> Self {
        Self { address, tls, last_connection: None }
    }

    /// Where the proxy's intake is.
    pub fn address(&self) -> &ProxyAddress {
        &self.address
    }

    /// Returns what the proxy's policies want, and what it holds. The generation is the first page's: what changes while
    /// the pages are read has another.
    ///
    /// # Errors
    /// Any [`ProxyError`].
    pub async fn identities(&mut self) -> Result<Identities, ProxyError> {
        let mut listing = self.page("").await?;
        for _ in 0..MOST_PAGES {
            let Some(next) = listing.next.take() else {
                return Ok(listing);
            };
            let page = self.page(&next).await?;
            if page.next.as_ref().is_some_and(|further| *further <= next) {
                break;
            }
            listing.next = page.next;
            listing.identities.extend(page.identities);
        }
        Err(ProxyError::Pages)
    }

    async fn page(&mut self, from: &str) -> Result<Identities, ProxyError> {
        let answer = self.exchange(Method::GET, &format!("/v1/identities?from={from}"), Bytes::new()).await?;
        let listing = serde_json::from_slice::<Identities>(&answer);
        // A later version may have another form.
        let version = match &listing {
            Ok(listing) => listing.version,
            Err(_) => serde_json::from_slice::<Version>(&answer).map_or(0, |listing| listing.version),
        };
        if version > PROTOCOL { Err(ProxyError::Version(version)) } else { listing.map_err(ProxyError::Listing) }
    }

    /// Pushes credentials for an identity.
    ///
    /// # Errors
    /// Any [`ProxyError`]; [`ProxyError::Refused`] with 404 where no policy wants the identity any longer.
    pub async fn push(&mut self, identity: &Identity, credentials: &Credentials) -> Result<(), ProxyError> {
        let path = format!("/v1/identities/{}/credentials?unless-revoked", identity.id());
        let document = Bytes::from_owner(credentials.to_document());
        self.exchange(Method::PUT, &path, document).await.map(drop)
    }

    /// Waits until the proxy's listing differs from that of `generation`, or the proxy does not answer. Each question has
    /// a connection of its own and an answer within half a second, so that an Envoy that takes over is noticed too.
    ///
    /// Without a generation, waits until the proxy [closes the last connection](Self::disconnected).
    pub async fn changed(&mut self, generation: Option<u64>) {
        let Some(generation) = generation else {
            return self.disconnected().await;
        };
        let path = format!("/v1/identities?after={generation}");
        loop {
            match self.exchange(Method::GET, &path, Bytes::new()).await {
                Err(ProxyError::Refused { status: StatusCode::NOT_MODIFIED, .. }) => {}
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

    async fn connect(&self) -> Result<Connection, ProxyError> {
        match &self.address {
            ProxyAddress::Unix(path) => {
                check_socket(path)?;
                let stream = UnixStream::connect(path).await.map_err(ProxyError::Connect)?;
                // The socket may have been replaced since it was looked at: what counts is who answers.
                check_owner(path, stream.peer_cred().map_err(ProxyError::Connect)?.uid())?;
                Connection::over(stream).await
            }
            ProxyAddress::Tls { host, port } => {
                let Some(files) = &self.tls else {
                    return Err(ProxyError::Tls("no certificates are given".to_owned()));
                };
                let config = files.read()?;
                let name = ServerName::try_from(host.clone()).map_err(|error| ProxyError::Tls(error.to_string()))?;
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ProxyError::Connect)?;
                let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                Connection::over(connecting.map_err(|error| ProxyError::Tls(error.to_string()))?).await
            }
        }
    }

    fn host(&self) -> String {
        match &self.address {
            ProxyAddress::Unix(_) => "localhost".to_owned(),
            ProxyAddress::Tls { .. } => self.address.to_string().replace("https://", ""),
        }
    }
}

fn broken(error: hyper::Error) -> ProxyError {
    // What TLS says of our certificate comes with the answer, as the cause of an error that does not show it.
    match std::error::Error::source(&error) {
        Some(cause) => ProxyError::Exchange(format!("{error}: {cause}").into()),
        None => ProxyError::Exchange(error.into()),
    }
}

/// A socket that another user of the machine could have made, or could replace, is not given credentials.
fn check_socket(path: &Path) -> Result<(), ProxyError> {
    let socket = match std::fs::metadata(path) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ProxyError::NoSocket(path.into())),
        Err(error) => return Err(ProxyError::Connect(error)),
    };
    if !socket.file_type().is_socket() {
        return Err(ProxyError::NotASocket(path.into()));
    }
    check_owner(path, socket.uid())?;
    let mode = socket.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(ProxyError::SocketMode { path: path.into(), mode });
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::metadata(directory).map_err(ProxyError::Connect)?.mode() & 0o7777;
    // In a directory with the sticky bit, such as /tmp, only its owner can take the socket away.
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(ProxyError::DirectoryMode { path: directory.into(), mode });
    }
    Ok(())
}

fn check_owner(path: &Path, owner: u32) -> Result<(), ProxyError> {
    let root = 0;
    if owner == root || owner == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(ProxyError::SocketOwner { path: path.into(), owner })
    }
}

/// The PEM files by which a proxy and this program know each other. They are read again for every connection, so that
/// rotated ones take effect without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that the proxy's certificate comes from.
    pub authority: PathBuf,
    /// The certificate that the proxy is shown, followed by those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    fn read(&self) -> Result<ClientConfig, ProxyError> {
        let wrong = |path: &Path, problem: &dyn fmt::Display| ProxyError::TlsFile {
            path: path.into(),
            problem: problem.to_string(),
        };
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ProxyError> {
            let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            match certificates {
                Ok(none) if none.is_empty() => Err(wrong(path, &"it has no certificate in PEM")),
                certificates => certificates.map_err(|error| wrong(path, &error)),
            }
        };
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            authorities.add(certificate).map_err(|error| wrong(&self.authority, &error))?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, &error))?;
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ProxyError::Tls(error.to_string()))?
            .with_root_certificates(authorities)
            .with_client_auth_cert(certificates(&self.certificate)?, key)
            .map_err(|error| wrong(&self.certificate, &error))
    }
}

/// What every version of a listing has; 0 before there were versions.
#[derive(Deserialize)]
struct Version {
    #[serde(default)]
    version: u32,
}

/// The message of a local reply, in a form that can't upset a log.
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
    fn addresses_are_read_as_they_are_shown() {
        for text in
            ["unix:/run/sigv4/credentials.sock", "https://127.0.0.1:9902", "https://[::1]:9902", "https://proxy:443"]
        {
            assert_eq!(text.parse::<ProxyAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn credentials_go_to_nobody_who_has_not_shown_who_it_is() {
        for text in ["http://127.0.0.1:9902", "http://proxy:9902"] {
            assert_eq!(text.parse::<ProxyAddress>(), Err(ProxyAddressError::Plain), "{text}");
        }
        for text in ["", "unix:", "/run/x.sock", "ftp://127.0.0.1:1", "https://127.0.0.1:1/x", "https://u@127.0.0.1:1"]
        {
            assert_eq!(text.parse::<ProxyAddress>(), Err(ProxyAddressError::Form), "{text}");
        }
    }

    #[test]
    fn a_reason_is_one_bounded_line() {
        assert_eq!(reason(br#"{"error": {"code": "X", "message": "no\nthing"}}"#), "nothing");
        assert_eq!(reason(b"<html>"), "no reason given");
        let long = format!(r#"{{"error": {{"message": "{}"}}}}"#, "x".repeat(5000));
        assert_eq!(reason(long.as_bytes()).len(), 300);
    }
}
