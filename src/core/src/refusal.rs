//! The answers that the filter gives in place of an upstream's: one JSON shape, one code for each reason.
//!
//! `PayloadTooLarge` (413) is not among them: Envoy itself answers when a body outgrows its buffer, and the stock
//! configuration gives that answer the same shape.

use std::fmt;

use serde::Serialize;

use crate::path::PathError;
use crate::policy::CopySourceError;
use crate::signing::{AwsChunkedError, SigningError, UnsupportedStreamingForm};

/// Why a request is not sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The path could leave its target, or is none.
    InvalidPath(PathError),
    /// The request names another object, which is none that the route reaches.
    InvalidCopySource(CopySourceError),
    /// The route asks for authentication and Envoy did none.
    Unauthenticated,
    /// No route matches.
    NoRoute,
    /// No credentials are held for the identity, or they have expired.
    NoCredentials {
        /// The identity's id.
        identity: String,
    },
    /// The worker holds as many requests, or as much of them, as it may.
    Overloaded,
    /// The body is malformed.
    InvalidBody(AwsChunkedError),
    /// The request can't be signed as it was sent.
    UnsupportedRequest(UnsupportedRequest),
    /// Signing could not be done by the proxy's own fault; the text says why.
    SigningFailed(String),
}

/// Why a request can't be signed as it was sent. The text says what to send, or what to set in the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedRequest {
    /// The body is in a streaming form whose signatures can't be replaced.
    #[error(transparent)]
    StreamingForm(#[from] UnsupportedStreamingForm),
    /// The body is in signed chunks, and the route signs with SigV4A.
    #[error(transparent)]
    SignedChunks(SigningError),
    /// An `aws-chunked` body does not say how long its data is.
    #[error("an aws-chunked body needs x-amz-decoded-content-length: the number of bytes in its chunks")]
    NoDecodedLength,
    /// The body is `aws-chunked`, and the route signs in the query.
    #[error(
        "an aws-chunked body can't be signed in the query; send it without chunks, or set the route's signing.location to \
         header"
    )]
    ChunkedBodyInQuery,
    /// `CONNECT`.
    #[error(
        "nothing can be signed in a tunnel that CONNECT opens; send requests to http:// URLs through http_proxy, not to \
         https:// URLs through https_proxy"
    )]
    Connect,
    /// The signer's own header is there.
    #[error("x-sigv4-upstream is set by the signer; send the request without it")]
    UpstreamScheme,
    /// The host takes SigV4A alone, and the route signs with SigV4.
    #[error("the host {host:?} takes SigV4A signatures only; set signing.algorithm: sigv4a for route {route}")]
    Sigv4aHost {
        /// The host, without its port.
        host: String,
        /// The route's name.
        route: String,
    },
    /// Service and region can't be inferred from the host.
    #[error("service and region can't be inferred from the host {host:?}; set both for route {route}")]
    UnknownScope {
        /// The host, without its port.
        host: String,
        /// The route's name.
        route: String,
    },
    /// Service and region can't be inferred from the host, and the client's signature names none.
    #[error(
        "neither the host {host:?} nor an authorization header names service and region; sign the request under a \
         throw-away key with AWS4-HMAC-SHA256, or set both for route {route}"
    )]
    NoClientScope {
        /// The host, without its port.
        host: String,
        /// The route's name.
        route: String,
    },
}

impl From<UnsupportedRequest> for Refusal {
    fn from(cause: UnsupportedRequest) -> Self {
        Self::UnsupportedRequest(cause)
    }
}

impl From<SigningError> for Refusal {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::AsymmetricChunks => UnsupportedRequest::SignedChunks(error).into(),
            SigningError::Clock | SigningError::Asymmetric => Self::SigningFailed(error.to_string()),
        }
    }
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidPath(_) | Self::InvalidCopySource(_) | Self::InvalidBody(_) | Self::UnsupportedRequest(_) => {
                400
            }
            Self::Unauthenticated => 401,
            Self::NoRoute => 404,
            Self::NoCredentials { .. } | Self::Overloaded => 503,
            Self::SigningFailed(_) => 500,
        }
    }

    /// The code by which a program tells refusals apart.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidPath(_) | Self::InvalidCopySource(_) => "InvalidPath",
            Self::Unauthenticated => "Unauthenticated",
            Self::NoRoute => "NoRoute",
            Self::NoCredentials { .. } => "NoCredentials",
            Self::Overloaded => "Overloaded",
            Self::InvalidBody(_) => "InvalidBody",
            Self::UnsupportedRequest(_) => "UnsupportedRequest",
            Self::SigningFailed(_) => "SigningFailed",
        }
    }

    /// Seconds after which another try makes sense: the refresher's default interval, or soon, as held requests go on at
    /// any time.
    pub fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::NoCredentials { .. } => Some("5"),
            Self::Overloaded => Some("1"),
            _ => None,
        }
    }

    /// The reply's JSON body; `route` is the matched route's prefix.
    pub fn body(&self, route: Option<&str>) -> Vec<u8> {
        error_body(self.code(), &self.to_string(), route)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidPath(error) => write!(f, "the path is refused: {error}"),
            Self::InvalidCopySource(error) => write!(f, "the copy source is refused: {error}"),
            Self::Unauthenticated => {
                f.write_str("this route takes only requests with a verified client certificate or a verified token")
            }
            Self::NoRoute => f.write_str(
                "no route of the signing policy matches this host and path; list the host in the hosts of a route, or add its prefix",
            ),
            Self::NoCredentials { identity } => {
                write!(
                    f,
                    "the proxy holds no valid credentials for identity {identity}; is credential-refresher running?"
                )
            }
            Self::Overloaded => f.write_str(
                "the proxy holds as many requests, or as much of them, as it may; try again, or raise the policy's \
                 maxHeldRequests or maxHeldBytes",
            ),
            Self::InvalidBody(error) => write!(f, "the body is refused: {error}"),
            Self::UnsupportedRequest(cause) => write!(f, "the request can't be signed as it was sent: {cause}"),
            Self::SigningFailed(why) => write!(f, "the request could not be signed: {why}"),
        }
    }
}

/// The body of every error that the filter answers with.
pub(crate) fn error_body(code: &str, message: &str, route: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Document<'a> {
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<&'a str>,
    }
    serde_json::to_vec(&Document { error: Error { code, message, route } }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_has_one_shape() {
        let refusal = Refusal::NoCredentials { identity: "default".to_owned() };
        let body: serde_json::Value = serde_json::from_slice(&refusal.body(Some("/orders"))).unwrap();
        assert_eq!(body["error"]["code"], "NoCredentials");
        assert_eq!(body["error"]["route"], "/orders");
        assert!(body["error"]["message"].as_str().unwrap().contains("identity default"));
        assert_eq!((refusal.status(), refusal.retry_after()), (503, Some("5")));
        assert_eq!((Refusal::Overloaded.status(), Refusal::Overloaded.retry_after()), (503, Some("1")));
        assert_eq!(Refusal::NoRoute.retry_after(), None);
    }

    #[test]
    fn the_clients_faults_are_told_from_the_proxys() {
        let streaming = UnsupportedRequest::from(UnsupportedStreamingForm::Events);
        for (refusal, code) in [
            (Refusal::InvalidBody(AwsChunkedError::ChunkEnd), "InvalidBody"),
            (streaming.into(), "UnsupportedRequest"),
            (UnsupportedRequest::Connect.into(), "UnsupportedRequest"),
            (SigningError::AsymmetricChunks.into(), "UnsupportedRequest"),
        ] {
            assert_eq!((refusal.status(), refusal.code()), (400, code));
        }
        let refusal = Refusal::from(SigningError::Clock);
        assert_eq!((refusal.status(), refusal.code()), (500, "SigningFailed"));
    }

    #[test]
    fn a_reply_without_a_route_names_none() {
        let body: serde_json::Value = serde_json::from_slice(&Refusal::NoRoute.body(None)).unwrap();
        assert_eq!(body["error"].get("route"), None);
    }
}
