//! The answers that the filter gives in place of an upstream's: one JSON shape, one code for each reason.
//!
//! `PayloadTooLarge` (413) is not among them: Envoy itself answers when a body outgrows its buffer, and the stock
//! configuration gives that answer the same shape.

use std::fmt;

use serde::Serialize;

use crate::path::PathError;
use crate::policy::CopySourceError;

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
    /// Signing could not be done; the text says why.
    SigningFailed(String),
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidPath(_) | Self::InvalidCopySource(_) => 400,
            Self::Unauthenticated => 401,
            Self::NoRoute => 404,
            Self::NoCredentials { .. } => 503,
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
            Self::SigningFailed(_) => "SigningFailed",
        }
    }

    /// Seconds after which another try makes sense: the refresher's default interval.
    pub fn retry_after(&self) -> Option<&'static str> {
        matches!(self, Self::NoCredentials { .. }).then_some("5")
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
            Self::NoRoute => f.write_str("no route of the signing policy matches this host and path"),
            Self::NoCredentials { identity } => {
                write!(
                    f,
                    "the proxy holds no valid credentials for identity {identity}; is credential-refresher running?"
                )
            }
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
    }

    #[test]
    fn a_reply_without_a_route_names_none() {
        let body: serde_json::Value = serde_json::from_slice(&Refusal::NoRoute.body(None)).unwrap();
        assert_eq!(body["error"].get("route"), None);
    }
}
