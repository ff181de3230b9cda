//! Errors of a proxy's client.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use sigv4_core::credentials::PROTOCOL;

/// How long one exchange with a proxy may take. It is on the same machine: a healthy one answers in milliseconds.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

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
