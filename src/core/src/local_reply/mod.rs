//! The answers that the filter gives instead of an upstream's: one code for each reason, in the form that the client reads.
//!
//! `PayloadTooLarge` (413) is not among them: Envoy itself answers when a body outgrows its buffer, and the stock
//! configuration gives that answer the same shape.

mod dialect;
mod document;

use std::fmt;

pub use dialect::Dialect;
pub(crate) use document::ErrorDocument;

use crate::connection;
use crate::header_map::HeaderMap;
use crate::held::MEASURED_MAX;
use crate::host::{Host, HostError, MapKind};
use crate::path::PathError;
use crate::policy::{BucketError, CopySourceError, NotAdmitted, Route, ScopeError};
use crate::signing::{AwsChunkedError, SigningError, UnsupportedStreamingForm};

/// The reason why a request is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The path could leave its target, or is none.
    InvalidPath(PathError),
    /// The request names another object, which is none that the route reaches.
    InvalidCopySource(CopySourceError),
    /// The route asks for authentication and Envoy did none.
    Unauthenticated,
    /// Envoy has authenticated the caller, and no route admits it.
    CallerNotAllowed(NotAdmitted),
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
    /// The service wants to know how long the body is.
    LengthRequired(LengthRequired),
    /// The request can't be signed as it was sent.
    UnsupportedRequest(UnsupportedRequest),
    /// The request could not be signed, through no fault of the client's.
    SigningFailed(SigningFailure),
}

/// The reason why a request could not be signed, through no fault of the client's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigningFailure {
    /// The plugin has no configuration.
    #[error("the filter has no configuration")]
    NoConfiguration,
    /// The proxy refused a host call.
    #[error(transparent)]
    Host(#[from] HostError),
    /// There is no signature for this time, or with these credentials.
    #[error(transparent)]
    Signing(SigningError),
    /// Envoy's route metadata names a route that the policy does not have.
    #[error("Envoy's route metadata names {0:?}, which is not a route of the policy")]
    UnknownRoute(String),
    /// Istio would forward the request without TLS.
    #[error(
        "the proxy has no TLS for {authority:?} and would send the request in clear through {cluster}; list the host in a \
         ServiceEntry whose DestinationRule originates TLS, or set upstreamTls: false on the route"
    )]
    NoTls {
        /// The request's authority.
        authority: String,
        /// The cluster that Envoy has chosen.
        cluster: String,
    },
    /// The body reached the proxy, and not the filter.
    #[error(
        "the proxy does not show the body to the filter: set allow_on_headers_stop_iteration: true in the filter's \
         PluginConfig (Envoy 1.36 and later)"
    )]
    BodyWithheld,
}

impl From<SigningFailure> for Refusal {
    fn from(failure: SigningFailure) -> Self {
        Self::SigningFailed(failure)
    }
}

impl From<HostError> for Refusal {
    fn from(error: HostError) -> Self {
        SigningFailure::from(error).into()
    }
}

/// The reason why a request can't be signed as it was sent. The text says what to send, or what to set in the policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedRequest {
    /// The body is in a streaming form whose signatures can't be replaced.
    #[error(transparent)]
    StreamingForm(#[from] UnsupportedStreamingForm),
    /// The body is in signed chunks, and the route signs with SigV4A.
    #[error(transparent)]
    SignedChunks(SigningError),
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
    /// Neither policy nor request implies a scope.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// The host names a bucket that can't go where the target has it, or none.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// The reason why a request lacks a length. The text says what to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LengthRequired {
    /// An `aws-chunked` body does not say how long its data is.
    #[error("an aws-chunked body needs x-amz-decoded-content-length: the number of bytes in its chunks")]
    DecodedLength,
    /// The body is larger than what is held to learn its length.
    #[error(
        "the service takes no body of unknown length, and this one has more than the {} MiB that the proxy holds to learn it; \
         send content-length (with curl, -T FILE rather than -T -), or upload in parts",
        MEASURED_MAX >> 20
    )]
    BodyTooLarge,
}

impl From<NotAdmitted> for Refusal {
    fn from(cause: NotAdmitted) -> Self {
        Self::CallerNotAllowed(cause)
    }
}

impl From<LengthRequired> for Refusal {
    fn from(missing: LengthRequired) -> Self {
        Self::LengthRequired(missing)
    }
}

impl From<UnsupportedRequest> for Refusal {
    fn from(cause: UnsupportedRequest) -> Self {
        Self::UnsupportedRequest(cause)
    }
}

impl From<ScopeError> for Refusal {
    fn from(error: ScopeError) -> Self {
        UnsupportedRequest::from(error).into()
    }
}

impl From<SigningError> for Refusal {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::AsymmetricChunks => UnsupportedRequest::SignedChunks(error).into(),
            SigningError::Clock | SigningError::Asymmetric => Self::SigningFailed(SigningFailure::Signing(error)),
        }
    }
}

impl Refusal {
    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidPath(_) | Self::InvalidCopySource(_) | Self::InvalidBody(_) | Self::UnsupportedRequest(_) => {
                400
            }
            Self::Unauthenticated => 401,
            Self::CallerNotAllowed(_) => 403,
            Self::NoRoute => 404,
            Self::LengthRequired(_) => 411,
            Self::NoCredentials { .. } | Self::Overloaded => 503,
            Self::SigningFailed(_) => 500,
        }
    }

    /// Returns the code by which a program distinguishes refusals.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidPath(_) | Self::InvalidCopySource(_) => "InvalidPath",
            Self::Unauthenticated => "Unauthenticated",
            Self::CallerNotAllowed(_) => "CallerNotAllowed",
            Self::NoRoute => "NoRoute",
            Self::NoCredentials { .. } => "NoCredentials",
            Self::Overloaded => "Overloaded",
            Self::InvalidBody(_) => "InvalidBody",
            Self::LengthRequired(_) => "LengthRequired",
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidPath(error) => write!(f, "the path is refused: {error}"),
            Self::InvalidCopySource(error) => write!(f, "the copy source is refused: {error}"),
            Self::Unauthenticated => {
                f.write_str("this route takes only requests with a verified client certificate or a verified token")
            }
            Self::CallerNotAllowed(cause) => write!(f, "the caller is not allowed: {cause}"),
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
            Self::LengthRequired(missing) => write!(f, "the body's length is missing: {missing}"),
            Self::UnsupportedRequest(cause) => write!(f, "the request can't be signed as it was sent: {cause}"),
            Self::SigningFailed(cause) => write!(f, "the request could not be signed: {cause}"),
        }
    }
}

/// The outcome of a request that a route took, or that was refused.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// It was signed and goes on.
    Signed,
    /// The client was redirected to a presigned URL.
    Redirected,
    /// The client was answered with a refusal.
    Refused(&'a Refusal),
}

impl Outcome<'_> {
    /// Returns the word for it in metrics and in the access log.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Signed => "Signed",
            Self::Redirected => "Redirected",
            Self::Refused(refusal) => refusal.code(),
        }
    }
}

/// Answers the stream's request with a refusal. The stream must stop after that.
pub(crate) fn send(host: &impl Host, refusal: &Refusal, route: Option<&Route>) {
    if matches!(refusal, Refusal::UnsupportedRequest(UnsupportedRequest::Connect)) {
        // Clients don't show the answer to a CONNECT.
        log::warn!("refused with {}: {refusal}", refusal.code());
    } else {
        log::debug!("refused with {}: {refusal}", refusal.code());
    }
    let dialect = match host.headers(MapKind::Request) {
        Ok(headers) => dialect(host, &headers, route),
        Err(error) => {
            log::error!("{error}");
            Dialect::Plain
        }
    };
    let document = ErrorDocument {
        code: refusal.code(),
        message: &refusal.to_string(),
        route: route.map(|route| route.name.as_str()),
        is_clients_fault: refusal.status() < 500,
    };
    let mut headers = document.headers(dialect);
    headers.extend(refusal.retry_after().map(|seconds| ("retry-after", seconds)));
    if let Err(error) = host.send_local_reply(refusal.status(), refusal.code(), &headers, &document.body(dialect)) {
        // The stream stays stopped and ends with the client's or the route's timeout; it is never sent on.
        log::error!("{error}");
    }
}

/// Returns the dialect of the stream's request. Its headers are read again, so that requests that are signed pay nothing. A
/// client that is not authenticated does not learn what its route signs for.
fn dialect(host: &impl Host, headers: &HeaderMap, route: Option<&Route>) -> Dialect {
    let known = route.filter(|route| route.allow_unauthenticated || connection::is_authenticated(host));
    let service =
        known.and_then(|route| route.service.as_deref().or(route.scope.as_ref().map(|scope| &*scope.service)));
    Dialect::of(headers, service)
}

/// Sends the client to a URL, with the same method and body (307). The stream must stop after that.
pub(crate) fn redirect(host: &impl Host, url: &str) {
    // A presigned URL is a key for as long as it is valid.
    let headers = [("location", url), ("cache-control", "no-store")];
    if let Err(error) = host.send_local_reply(307, "Presigned", &headers, b"") {
        log::error!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_advised_where_it_may_help() {
        let refusal = Refusal::NoCredentials { identity: "default".to_owned() };
        assert!(refusal.to_string().contains("identity default"));
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
}
