//! Errors of a proxy's client.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;
use sigv4_core::intake::PROTOCOL;

/// The time limit of one exchange with a proxy. It is on the same machine: a healthy one answers in milliseconds.
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason that a proxy could not be asked or supplied.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// There is no socket.
    #[error("{0} is not there: is the proxy up, and does its intake listen there?")]
    NoSocket(PathBuf),
    /// The path is not a socket.
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
    /// Any user of the machine could replace the socket.
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
    /// A certificate or key could not be read, or is invalid.
    #[error("{path} can't be used: {problem}")]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// The defect.
        problem: String,
    },
    /// The proxy's certificate is not for its name or not from the CA, or the proxy rejected ours.
    #[error("TLS with the proxy failed: {0}")]
    Tls(String),
    /// No answer in time.
    #[error("no answer within {} s", EXCHANGE_TIMEOUT.as_secs())]
    Timeout,
    /// The exchange broke, or was not HTTP.
    #[error("the exchange broke off: {0}")]
    Exchange(Box<dyn std::error::Error + Send + Sync>),
    /// The proxy refused the call.
    #[error("answered {status}: {reason}")]
    Refused {
        /// The answer's status.
        status: StatusCode,
        /// The reason in its answer.
        reason: String,
    },
    /// The answer is not an intake's.
    #[error("the answer is not a list of identities ({0}): is this the proxy's intake?")]
    Listing(serde_json::Error),
    /// No filter has the memory for this many pages, and each begins after the one before.
    #[error("the pages of its listing don't end: is this the proxy's intake?")]
    Pages,
    /// No policies that a filter can hold want so much.
    #[error("its listing is larger than 64 MiB: is this the proxy's intake?")]
    LargeListing,
    /// The filter is newer, and this version can't interpret its listing.
    #[error(
        "its listing has version {0}, and this program reads versions up to {PROTOCOL}; upgrade credential-refresher"
    )]
    Version(u32),
}
