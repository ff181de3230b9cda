//! The policy as its author writes it. Shapes only: compiling checks the values and their consistency.
//!
//! `null` is rejected everywhere: a `roleArn` that a template left empty must not become "no role".

mod de;
mod forms;
#[cfg(feature = "schema")]
mod schema;

use std::collections::HashMap;

pub(super) use forms::Object;
use forms::{keyword, not_null, object};

use super::modes::{PayloadMode, ScopeSource, Unmatched};

/// The signing policy.
#[derive(Debug)]
pub struct PolicyDocument {
    pub(super) settings: Settings,
    /// Keys of the policy that begin with `/`: the Backstage form.
    pub(super) backstage_routes: Entries<RouteEntry>,
}

/// The signing policy: which requests are signed, under which identity, and where they go.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    /// The routes: an object keyed by path prefix, or a list of routes that each name their `prefix`. The longest
    /// prefix wins; among equals, the route whose `hosts` match most exactly.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) routes: Option<Routes>,

    /// The treatment of a request that no route matches: `deny` answers 404, `pass` forwards it unchanged. Default: `deny`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) unmatched: Option<Unmatched>,

    /// `true` to sign requests that Envoy has not authenticated by a client certificate or a JWT. A route's own value
    /// overrides this one. Default: true.
    #[serde(default)]
    pub(super) allow_unauthenticated_requests: Written<bool>,

    /// The longest time, in milliseconds, that a request waits for the first credentials after a cold start: 0 to 300000.
    /// Default: 0.
    #[serde(default)]
    pub(super) credentials_wait_ms: Written<WholeNumber>,

    /// The most requests that each worker holds, until their bodies are complete or for credentials: 1 to 100000. A further
    /// one is answered with 503. Default: 1000.
    #[serde(default)]
    pub(super) max_held_requests: Written<WholeNumber>,

    /// The most bytes that each worker holds of such requests, including headers and the bodies that Envoy buffers: 1 to
    /// 536870912, which is half of the largest memory of a filter. A request past that is answered with 503. Default:
    /// 33554432 (32 MiB).
    #[serde(default)]
    pub(super) max_held_bytes: Written<WholeNumber>,

    /// The most identities of callers, from roles with placeholders, that are held together: 1 to 10000. A further caller takes
    /// the place of the one that has been idle for longest, or is answered with 503. Default: 1000.
    #[serde(default)]
    pub(super) max_caller_identities: Written<WholeNumber>,

    /// `true` to let Envoy's access log show route, identity, signing name and outcome of requests that are signed
    /// immediately, as it can for others. Default: false.
    #[serde(default)]
    pub(super) access_log: Written<bool>,

    /// `true` to use the metadata of Envoy's own route: under `sigv4` it may select the policy's route, or disable signing.
    /// With `false` the policy alone decides. Default: false.
    #[serde(default)]
    pub(super) route_metadata: Written<bool>,

    /// A section of a Backstage `app-config.yaml`, pasted with its key. Its content is a whole policy, so it must be the
    /// only key.
    #[serde(default, deserialize_with = "not_null")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::policy_itself"))]
    pub(super) proxysigv4: Option<Box<PolicyDocument>>,
}

/// The routes in either form.
#[derive(Debug)]
pub(super) enum Routes {
    /// Keyed by prefix.
    Keyed(Entries<RouteEntry>),
    /// Each with its own `prefix`.
    Listed(Vec<RouteDocument>),
}

/// A route under its prefix.
#[derive(Debug)]
pub(super) enum RouteEntry {
    /// The target alone.
    Short(String),
    /// A route with all its members.
    Expanded(Box<RouteDocument>),
}

/// A route: the requests that it matches, their target, and their signature.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RouteDocument {
    /// The path prefix, in the list form only. It matches at segment boundaries: `/a` matches `/a` and `/a/b`, not
    /// `/ab`.
    #[serde(default)]
    pub(super) prefix: Written<String>,

    /// The target of requests: an http or https URL without query, fragment and user info. The prefix is removed from the
    /// request's path, and the rest appended to the target's path as written. Without a target, `hosts` is required, and the
    /// request keeps its own authority and path. For S3, `{bucket}` as the host's first label or the path's first segment
    /// stands for what `*` matched in `hosts`.
    #[serde(default)]
    pub(super) target: Written<String>,

    /// The IAM role to assume for this route. Default: the refresher's own credentials.
    #[serde(default)]
    pub(super) role_arn: Written<String>,

    /// The name of the role's session, as CloudTrail records it. Default: `tempAssumeRoleSession`.
    #[serde(default)]
    pub(super) role_session_name: Written<String>,

    /// The external id that the role's trust policy requires.
    #[serde(default)]
    pub(super) external_id: Written<String>,

    /// The length of the role's session, in seconds: 900 to 43200, at most what the role allows, and at most 3600 with a
    /// `roleChain`. Default: an hour.
    #[serde(default)]
    pub(super) role_duration_seconds: Written<WholeNumber>,

    /// The session's tags: up to 50 keys with a value each.
    #[serde(default)]
    pub(super) role_tags: Written<Entries<String>>,

    /// The IAM roles to assume before `roleArn`, in order: the first with the refresher's own credentials, each other one,
    /// and finally `roleArn`, with the previous session.
    #[serde(default)]
    pub(super) role_chain: Written<Vec<String>>,

    /// The source identity of the session: the person or workload on whose behalf it acts, as CloudTrail records it. It is
    /// set for every role of the chain; their trust policies must allow `sts:SetSourceIdentity`. Default: none.
    #[serde(default)]
    pub(super) source_identity: Written<String>,

    /// The ARNs of up to 10 managed policies that limit the session: it may do what both the role and one of them, or the
    /// `sessionPolicy`, allow. Default: none.
    #[serde(default)]
    pub(super) policy_arns: Written<Vec<String>>,

    /// An IAM policy that limits the session, as an object or as a string of JSON: the session may do what both the role
    /// and this policy, or one of `policyArns`, allow. Default: none.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(schema_with = "schema::session_policy"))]
    pub(super) session_policy: Written<RawJson>,

    /// The signing name of the service, such as `execute-api`. Default: inferred from an AWS host name; required for any
    /// other host.
    #[serde(default)]
    pub(super) service: Written<String>,

    /// The AWS region. Default: inferred from an AWS host name; required for any other host.
    #[serde(default)]
    pub(super) region: Written<String>,

    /// The hosts that the route matches: names, or `*.` and a domain for all names below it, each with an optional `:port`
    /// that the request must name. Default: every host.
    #[serde(default)]
    pub(super) hosts: Written<Vec<String>>,

    /// For a route without a target: whether its upstream has TLS. `payload: auto` depends on it. It describes the upstream;
    /// Envoy's own route decides whether to use TLS, and the stock configuration does. With `true`, a request that Istio's
    /// `PassthroughCluster` would send in clear text is rejected. Default: true.
    #[serde(default)]
    pub(super) upstream_tls: Written<bool>,

    /// For S3 outside of AWS: the domain before which a host names a bucket (MinIO's `MINIO_DOMAIN`, Ceph's `rgw dns name`,
    /// Garage's `root_domain`), or the route's host itself if buckets are in the path alone. It is needed to check the
    /// object that `x-amz-copy-source` names; without it, such requests are rejected if the host may begin with a bucket.
    #[serde(default)]
    pub(super) s3_domain: Written<String>,

    /// The signature of the body. Default: `auto`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) payload: Option<PayloadMode>,

    /// The algorithm and location of the signature. Default: SigV4 in the `authorization` header.
    #[serde(default, deserialize_with = "object")]
    pub(super) signing: Option<SigningDocument>,

    /// The rules for the client's headers, applied before the request is signed. Default: all pass.
    #[serde(default)]
    pub(super) request_headers: Written<Object<HeaderRulesDocument>>,

    /// The rules for the upstream's headers. Default: all pass.
    #[serde(default)]
    pub(super) response_headers: Written<Object<HeaderRulesDocument>>,

    /// Headers to sign in addition to `host`, `content-type`, `content-md5` and `x-amz-*`, if the request has them.
    #[serde(default)]
    pub(super) signed_headers: Written<Vec<String>>,

    /// The callers that the route admits, by what Envoy has verified: names in the client's certificate, such as
    /// `spiffe://cluster.local/ns/orders/sa/*`, or issuer and claims of a JWT. Routes of one prefix and the same hosts may
    /// differ by callers; the most exact one that admits the caller takes the request. Default: everyone.
    #[serde(default)]
    pub(super) callers: Written<Vec<CallerEntry>>,

    /// `true` to sign requests that Envoy has not authenticated by a client certificate or a JWT. Default: the policy's own
    /// `allowUnauthenticatedRequests`.
    #[serde(default)]
    pub(super) allow_unauthenticated_requests: Written<bool>,
}

/// A pattern of callers.
#[derive(Debug)]
pub(super) enum CallerEntry {
    /// A URI or DNS name of the client's certificate.
    Name(String),
    /// Issuer and claims of a token.
    Token(Box<TokenCaller>),
}

/// A verified JWT that a route admits.
#[derive(Debug, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TokenCaller {
    /// The token's `iss`.
    pub(super) issuer: String,

    /// The claims that the token has, by name. A claim that is a list has the value as a member. Default: none.
    #[serde(default)]
    pub(super) claims: Written<Entries<String>>,
}

/// The algorithm and location of the signature.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SigningDocument {
    /// `sigv4` for one region, `sigv4a` for a set of regions. Default: `sigv4`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) algorithm: Option<AlgorithmName>,

    /// The regions in which a `sigv4a` signature is valid, such as `us-east-1`, `us-*` or a list of such. Default: `*`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) region_set: Option<StringOrList>,

    /// The location of the signature: the `authorization` header or the query (a presigned URL). Default: `header`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) location: Option<LocationName>,

    /// The validity of a presigned URL, in seconds: 1 to 604800 (seven days). Default: 300.
    #[serde(default)]
    pub(super) expires_seconds: Written<WholeNumber>,

    /// The source of service and region: `infer` infers them from the host name; if that is not possible, `client` takes
    /// them from the credential scope that an AWS SDK client signed for under a throw-away key; with `client-first`, the
    /// client's scope overrides the host name. `service` and `region` of the route override all. Default: `infer`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) scope: Option<ScopeSource>,

    /// `true` to answer 307 with the presigned URL instead of proxying; needs `"location": "query"`. Default: false.
    #[serde(default)]
    pub(super) redirect: Written<bool>,
}

/// A signing algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum AlgorithmName {
    /// AWS4-HMAC-SHA256: one region.
    SigV4,
    /// AWS4-ECDSA-P256-SHA256: a set of regions.
    SigV4a,
}

/// The location of the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum LocationName {
    /// The `authorization` header.
    Header,
    /// The query: a presigned URL.
    Query,
}

/// Rules for headers, applied in the order `allow`, `remove`, `set`. Pseudo headers, `host`, the headers of the signature
/// and those that frame the message always pass and can be neither removed nor set.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct HeaderRulesDocument {
    /// The headers to allow: names, or a prefix and `*`, such as `x-*`. Default: all.
    #[serde(default)]
    pub(super) allow: Written<Vec<String>>,

    /// The headers to remove: names, or a prefix and `*`.
    #[serde(default)]
    pub(super) remove: Written<Vec<String>>,

    /// The headers to set; each replaces all of its name.
    #[serde(default)]
    pub(super) set: Written<Entries<String>>,
}

/// An object's members in the order written; a repeated key is rejected.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// The keys of an object that were read.
#[derive(Default)]
struct Keys(HashMap<String, usize>);

impl Keys {
    /// Adds a key that must not be there yet.
    fn add<E: serde::de::Error>(&mut self, key: &str) -> Result<(), E> {
        match self.0.insert(key.to_owned(), 0) {
            None => Ok(()),
            Some(_) => Err(E::custom(format_args!("{key:?} is written twice; keep one"))),
        }
    }
}

/// A whole number. A protobuf `Struct` (such as the `pluginConfig` of Istio's `WasmPlugin`) has only floating-point numbers,
/// so 2000 may arrive as 2000.0.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeNumber(pub(super) u64);

/// An optional member that must have a value if present: serde's `Option` would read `null` as absent. (A function in
/// `deserialize_with` would be compiled again for each member.)
#[derive(Debug, Clone, Copy)]
pub(super) struct Written<T>(pub(super) Option<T>);

impl<T> Default for Written<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> std::ops::Deref for Written<T> {
    type Target = Option<T>;

    fn deref(&self) -> &Option<T> {
        &self.0
    }
}

impl<T> std::ops::DerefMut for Written<T> {
    fn deref_mut(&mut self) -> &mut Option<T> {
        &mut self.0
    }
}

/// A value as its author writes it.
#[derive(Debug)]
pub(super) struct RawJson(pub(super) String);

/// One string, or a list of strings.
#[derive(Debug)]
pub(super) struct StringOrList(pub(super) Vec<String>);
