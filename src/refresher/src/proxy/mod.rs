//! A proxy's credential intake, over a Unix socket or TLS.

mod address;
mod client;
mod error;
mod socket;
mod tls;

pub use address::ProxyAddress;
pub use client::ProxyClient;
pub use error::ProxyError;
pub use tls::TlsFiles;
