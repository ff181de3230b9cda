//! The address of a proxy's intake.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;

/// The address of a proxy's intake.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProxyAddress {
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A port with TLS.
    Tls {
        /// A name or an address, which the proxy's certificate must contain.
        host: String,
        /// The port.
        port: u16,
    },
}

/// An error in a `--proxy`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyAddressError {
    /// Neither of the two forms.
    #[error("must be unix:PATH or https://HOST:PORT")]
    Form,
    /// Any process that binds the port while the proxy is down would get the credentials.
    #[error(
        "plain HTTP can't authenticate the proxy; use https:// with --proxy-ca, --client-cert and \
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
}
