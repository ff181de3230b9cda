//! The choices that a policy makes by a keyword or a flag.

use std::time::Duration;

/// The treatment of a request that no route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// Answered with 404.
    #[default]
    Deny,
    /// Forwarded, unchanged and unsigned.
    Pass,
}

/// The signature of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PayloadMode {
    /// No body: the empty hash, immediately. With an SHA-256 that the client signed in `x-amz-content-sha256`: `client`. S3,
    /// and operations that AWS's SDKs leave unsigned, over https: `unsigned`. Else: `signed`.
    #[default]
    Auto,
    /// The body is hashed as it arrives and held until it is complete.
    Signed,
    /// `UNSIGNED-PAYLOAD`: the body streams.
    Unsigned,
    /// A well-formed `x-amz-content-sha256` from the client is signed, and the body streams; without one, like
    /// `auto`.
    Client,
    /// The hash that Envoy's hasher, a filter before this one, computed and marked is signed. Without one, like `signed`.
    Envoy,
}

/// The source of service and region, if the policy does not set them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ScopeSource {
    /// From the host name.
    #[default]
    Infer,
    /// From the host name or, if they can't be inferred, from the credential scope that the client, an AWS SDK, signed
    /// for under a throw-away key.
    Client,
    /// From the client's credential scope or, if it has none, from the host name.
    ClientFirst,
}

/// The location of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureLocation {
    /// The `authorization` header.
    Header,
    /// The query: a presigned URL.
    Query {
        /// Its validity.
        expires: Duration,
    },
}
