//! The policy as its author writes it. Shapes only: what the values mean, and whether they go together, is decided
//! when it is compiled.
//!
//! `null` is refused everywhere: a `roleArn` that a template left empty must not turn into "no role".

mod de;

use de::{keyword, not_null, object};

use super::{PayloadMode, ScopeSource, Unmatched};

/// The signing policy.
#[derive(Debug)]
pub struct PolicyDocument {
    pub(super) settings: Settings,
    /// Keys of the policy that begin with `/`: the Backstage form.
    pub(super) backstage_routes: Entries<RouteEntry>,
}

/// The signing policy: which requests are signed, as whom, and where they go.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Settings {
    /// The routes: an object keyed by path prefix, or a list of routes that each name their `prefix`. The longest
    /// prefix wins; among equals, the route whose `hosts` match most exactly.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) routes: Option<Routes>,

    /// What happens to a request that no route matches: `deny` answers 404, `pass` lets it through untouched.
    /// Default: `deny`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) unmatched: Option<Unmatched>,

    /// Whether a request is signed that Envoy has not authenticated by a client certificate or a JWT. A route's own
    /// value wins. Default: true.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) allow_unauthenticated_requests: Option<bool>,

    /// How long, in milliseconds, a request may wait for the first credentials after a cold start: 0 to 300000.
    /// Default: 0.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) credentials_wait_ms: Option<WholeNumber>,

    /// How many requests each worker may hold, until their bodies are whole or for credentials: 1 to 100000. One more is
    /// answered with 503. Default: 1000.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) max_held_requests: Option<WholeNumber>,

    /// How many bytes each worker may hold of such requests, headers and what Envoy buffers of bodies included: 1 to
    /// 536870912, which is half of what a filter's memory can have. A request past that is answered with 503.
    /// Default: 33554432 (32 MiB).
    #[serde(default, deserialize_with = "not_null")]
    pub(super) max_held_bytes: Option<WholeNumber>,

    /// Whether Envoy's access log can tell route, identity, signing name and outcome of a request that is signed at once,
    /// as it can of others. Default: false.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) access_log: Option<bool>,

    /// Whether the metadata of Envoy's own route is looked at: under `sigv4` it may name the route of the policy that
    /// signs, or switch signing off. With `false` the policy alone decides. Default: true.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) route_metadata: Option<bool>,

    /// A section of a Backstage `app-config.yaml`, pasted with its key. Its content is a policy in itself, so that
    /// nothing may stand beside it.
    #[serde(default, deserialize_with = "not_null")]
    #[cfg_attr(feature = "schema", schemars(schema_with = "super::schema::policy_itself"))]
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
    /// All that a route can say.
    Expanded(Box<RouteDocument>),
}

/// A route: which requests it takes, where they go, and how they are signed.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RouteDocument {
    /// The path prefix, in the list form only. It matches at segment boundaries: `/a` matches `/a` and `/a/b`, not
    /// `/ab`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) prefix: Option<String>,

    /// Where requests go: an http or https URL without query, fragment and user info. The prefix is taken off the
    /// request's path and the rest put behind the target's path as written. Without a target, `hosts` is needed, and
    /// the request keeps its own authority and path. For S3, `{bucket}` as the host's first label or the path's first
    /// segment stands for what `*` matched in `hosts`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) target: Option<String>,

    /// The IAM role to assume for this route. Default: the refresher's own credentials.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) role_arn: Option<String>,

    /// The name of the role's session, seen in CloudTrail. Default: `tempAssumeRoleSession`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) role_session_name: Option<String>,

    /// The external id that the role's trust policy asks for.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) external_id: Option<String>,

    /// How long a session of the role lasts, in seconds: 900 to 43200, at most what the role allows, and 3600 behind a
    /// `roleChain`. Default: an hour.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) role_duration_seconds: Option<WholeNumber>,

    /// The session's tags: up to 50 keys with a value each.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) role_tags: Option<Entries<String>>,

    /// The IAM roles to assume on the way to `roleArn`, in their order: the first with the refresher's own credentials,
    /// each other one, and `roleArn` at last, with the session before it.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) role_chain: Option<Vec<String>>,

    /// The signing name of the service, such as `execute-api`. Default: told by the AWS host name; needed where the
    /// host is not an AWS one.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) service: Option<String>,

    /// The AWS region. Default: told by the AWS host name; needed where the host is not an AWS one.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) region: Option<String>,

    /// The hosts whose requests the route takes: names, or `*.` and a domain for all names below it, each with an
    /// optional `:port`, which a request has to name. Default: every host.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) hosts: Option<Vec<String>>,

    /// For a route without a target: whether its upstream has TLS, which a target's scheme says. `payload: auto` goes by it.
    /// It describes the upstream; Envoy's own route decides how it is called, in the stock configuration with TLS.
    /// With `true`, a request that Istio's `PassthroughCluster` would send in clear is refused. Default: true.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) upstream_tls: Option<bool>,

    /// For S3 outside of AWS: the domain before which a host names a bucket (MinIO's `MINIO_DOMAIN`, Ceph's
    /// `rgw dns name`, Garage's `root_domain`), or the route's host itself if buckets are in the path alone. The object that
    /// `x-amz-copy-source` names is checked by it; without it, a host that may begin with a bucket has such requests refused.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) s3_domain: Option<String>,

    /// How the body is signed. Default: `auto`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) payload: Option<PayloadMode>,

    /// The kind of signature and where it goes. Default: SigV4 in the `authorization` header.
    #[serde(default, deserialize_with = "object")]
    pub(super) signing: Option<SigningDocument>,

    /// What becomes of the client's headers before the request is signed. Default: they all pass.
    #[serde(default, deserialize_with = "object")]
    pub(super) request_headers: Option<HeaderRulesDocument>,

    /// What becomes of the upstream's headers. Default: they all pass.
    #[serde(default, deserialize_with = "object")]
    pub(super) response_headers: Option<HeaderRulesDocument>,

    /// Headers to sign beside `host`, `content-type`, `content-md5` and `x-amz-*`, where the request has them.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) signed_headers: Option<Vec<String>>,

    /// Whether a request is signed that Envoy has not authenticated by a client certificate or a JWT. Default: the
    /// policy's own `allowUnauthenticatedRequests`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) allow_unauthenticated_requests: Option<bool>,
}

/// The kind of signature and where it goes.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct SigningDocument {
    /// `sigv4` for one region, `sigv4a` for a set of regions. Default: `sigv4`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) algorithm: Option<AlgorithmName>,

    /// The regions that a `sigv4a` signature holds for, such as `us-east-1`, `us-*` or a list of such. Default: `*`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) region_set: Option<StringOrList>,

    /// Whether the signature goes into the `authorization` header or into the query (a presigned URL).
    /// Default: `header`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) location: Option<LocationName>,

    /// How long a presigned URL holds, in seconds: 1 to 604800 (seven days). Default: 300.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) expires_seconds: Option<WholeNumber>,

    /// Where service and region come from: `infer` takes them from the host name; `client` takes them, where the
    /// host name does not tell, from the credential scope that an AWS SDK client signed for under a throw-away key.
    /// `service` and `region` of the route win over both. Default: `infer`.
    #[serde(default, deserialize_with = "keyword")]
    pub(super) scope: Option<ScopeSource>,

    /// Answer 307 with the presigned URL in place of proxying; needs `"location": "query"`. Default: false.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) redirect: Option<bool>,
}

/// A kind of signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum AlgorithmName {
    /// AWS4-HMAC-SHA256: one region.
    SigV4,
    /// AWS4-ECDSA-P256-SHA256: a set of regions.
    SigV4a,
}

/// Where the signature goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(super) enum LocationName {
    /// The `authorization` header.
    Header,
    /// The query: a presigned URL.
    Query,
}

/// What becomes of headers. `allow` comes first, then `remove`, then `set`. Pseudo headers, `host`, the headers that
/// signing owns and those that frame the message always pass and can be neither removed nor set.
#[derive(Debug, Default, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct HeaderRulesDocument {
    /// The headers that pass: names, or a beginning and `*`, such as `x-*`. Default: all.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) allow: Option<Vec<String>>,

    /// The headers that are dropped: names, or a beginning and `*`.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) remove: Option<Vec<String>>,

    /// Headers that are set, in place of any of that name.
    #[serde(default, deserialize_with = "not_null")]
    pub(super) set: Option<Entries<String>>,
}

/// An object's members in the order in which they are written; a key that is written twice is refused.
#[derive(Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Entries<T> {
    fn push<E: serde::de::Error>(&mut self, key: String, value: T) -> Result<(), E> {
        if self.0.iter().any(|(known, _)| *known == key) {
            return Err(E::custom(format_args!("{key:?} is written twice; keep one")));
        }
        self.0.push((key, value));
        Ok(())
    }
}

/// A whole number. On its way from a protobuf `Struct` (such as the `pluginConfig` of Istio's `WasmPlugin`), where all
/// numbers are floating point, 2000 may turn into 2000.0.
#[derive(Debug, Clone, Copy)]
pub(super) struct WholeNumber(pub(super) u64);

/// One string, or a list of strings.
#[derive(Debug)]
pub(super) struct StringOrList(pub(super) Vec<String>);
