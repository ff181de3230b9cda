//! The private API that receives credentials: its authentication, and the answer to each call.
//!
//! | call | answer |
//! | --- | --- |
//! | `GET /v1/identities` | which identities the loaded policies want, and what is held for each |
//! | `GET /v1/identities?after=GENERATION` | the same as soon as the generation differs from this one; 304 if it does not within half a second |
//! | `GET /v1/identities?from=ID` | a page of the same: the identities from that id on, and the id that the next page begins with |
//! | `PUT /v1/identities/{id}/credentials` | stores a `credential_process` document |
//! | `PUT /v1/identities/{id}/credentials?unless-revoked` | the same, but rejects an access key that a `DELETE` revoked |
//! | `DELETE /v1/identities/{id}/credentials` | revokes the credentials held |
//! | `GET /v1/status` | 200 if a policy is loaded and every wanted identity holds unexpired credentials, else 503 |
//!
//! An unknown query is rejected: it may be a misspelling of a restriction such as `unless-revoked`. No version of the
//! refresher sends any other query.

pub(crate) mod worker;

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::credentials::{
    CredentialStore, Credentials, HeldCredentials, Identities, Identity, IdentityStatus, PROTOCOL, SetError,
    SharedData, WantedIds,
};
use crate::local_reply::ErrorDocument;

/// The largest document that is accepted, in bytes. Session tokens are a few KiB at most.
pub const MAX_BODY: usize = 64 * 1024;

/// A page of the listing ends after the identity that makes it exceed this many bytes. It bounds the memory of the caller
/// and of the virtual machine.
pub const PAGE: usize = 8 << 20;

/// The longest wait for a change. During a hot restart, a call that waits at the old Envoy sees no change of the new one, so
/// this is short.
pub const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// The most calls of one worker that wait for a change; the next one is answered immediately.
pub const MOST_WAITING: usize = 32;

/// The configuration of callers that the intake accepts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IntakePolicy {
    token_digests: Vec<[u8; 32]>,
}

/// The reason for rejecting an intake's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakePolicyError {
    /// The document does not have the shape of an intake's configuration.
    #[error("{place}: {problem}")]
    Document {
        /// The location, as a path into the document.
        place: String,
        /// The defect.
        problem: String,
    },
    /// A token's digest is not a SHA-256 in hex.
    #[error("intake.tokenSha256[{0}]: must be the token's SHA-256 as 64 hex digits: printf %s \"$TOKEN\" | sha256sum")]
    TokenDigest(usize),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    intake: IntakeDocument,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IntakeDocument {
    #[serde(default)]
    token_sha256: Vec<String>,
}

impl IntakePolicy {
    /// Returns whether a plugin configuration is an intake's, which its one key decides.
    pub fn is_meant(json: &[u8]) -> bool {
        // A map, because serde also accepts a list for a struct.
        type Members = std::collections::HashMap<String, serde::de::IgnoredAny>;
        serde_json::from_slice::<Members>(json).is_ok_and(|members| members.contains_key("intake"))
    }

    /// Reads `{"intake": {"tokenSha256": ["<64 hex>"]}}`.
    ///
    /// # Errors
    /// Names the location and the fix.
    pub fn from_json(json: &[u8]) -> Result<Self, IntakePolicyError> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let document: Document = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            IntakePolicyError::Document { place: error.path().to_string(), problem: error.inner().to_string() }
        })?;
        let digests = document.intake.token_sha256.iter().enumerate();
        let token_digests = digests
            .map(|(index, hex)| parse_digest(hex).ok_or(IntakePolicyError::TokenDigest(index)))
            .collect::<Result<_, _>>()?;
        Ok(Self { token_digests })
    }

    /// Returns whether a caller is accepted: over a Unix socket, with a verified client certificate, or with a listed token.
    pub fn admits(&self, caller: &Caller<'_>) -> bool {
        caller.over_unix_socket
            || caller.client_certificate
            || caller.authorization.and_then(bearer_token).is_some_and(|token| self.knows(token))
    }

    /// Compares all digests, each in constant time, so that the time reveals nothing of a token.
    fn knows(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let known =
            self.token_digests.iter().fold(subtle::Choice::from(0), |known, listed| known | listed.ct_eq(&digest));
        known.into()
    }
}

/// The properties of a caller that decide whether it is accepted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller<'a> {
    /// `true` if the connection came over a Unix socket, whose file mode decides who may connect.
    pub over_unix_socket: bool,
    /// `true` for TLS with a client certificate that Envoy verified.
    pub client_certificate: bool,
    /// The `authorization` header.
    pub authorization: Option<&'a [u8]>,
}

fn bearer_token(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    if !hex.is_ascii() || hex.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        // from_str_radix accepts a sign.
        *byte = if pair.starts_with('+') { return None } else { u8::from_str_radix(pair, 16).ok()? };
    }
    Some(digest)
}

/// An answer of the intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// JSON, or nothing.
    pub body: Vec<u8>,
    /// The methods that the resource supports, if the request's is not one of them.
    pub allow: Option<&'static str>,
    /// `true` if credentials changed and the workers must be notified.
    pub changed: bool,
}

impl Reply {
    /// Returns the answer to a caller that is not accepted.
    pub fn unauthenticated() -> Self {
        Self::error(
            401,
            "Unauthenticated",
            "call over the Unix socket, with a client certificate, or with a listed token",
        )
    }

    /// Returns the answer to a body over [`MAX_BODY`].
    pub fn too_large() -> Self {
        Self::error(413, "PayloadTooLarge", "a credential document has at most 64 KiB")
    }

    /// Returns the answer to a caller that waited for a change, if nothing changed.
    pub fn unchanged() -> Self {
        Self { status: 304, body: Vec::new(), allow: None, changed: false }
    }

    fn json(status: u16, document: &impl Serialize) -> Self {
        let body = serde_json::to_vec(document).unwrap_or_default();
        Self { status, body, allow: None, changed: false }
    }

    fn error(status: u16, code: &'static str, message: &str) -> Self {
        let document = ErrorDocument { code, message, route: None, is_clients_fault: status < 500 };
        Self { status, body: document.json(), allow: None, changed: false }
    }

    fn revoked() -> Self {
        let why = "this access key was revoked by a DELETE; rotate it and push the new one";
        Self::error(409, "RevokedCredentials", why)
    }

    fn done(result: Result<(), SetError>) -> Self {
        match result {
            Ok(()) => Self { status: 204, body: Vec::new(), allow: None, changed: true },
            Err(error) => Self::failed(error),
        }
    }

    fn failed(error: SetError) -> Self {
        Self::error(500, "SharedData", &error.to_string())
    }
}

/// Returns the generation after which a call waits for a change, if it waits.
pub fn awaited_generation(method: &[u8], path: &[u8]) -> Option<u64> {
    generation(path.strip_prefix(b"/v1/identities?").filter(|_| method == b"GET")?)
}

fn generation(query: &[u8]) -> Option<u64> {
    let digits = query.strip_prefix(b"after=").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Returns the id that a page begins with; empty for the first one.
fn page_start(query: &[u8]) -> Option<&[u8]> {
    query.strip_prefix(b"from=").filter(|id| !id.contains(&b'&'))
}

/// The query of a push that must not undo a revocation.
const UNLESS_REVOKED: &[u8] = b"unless-revoked";

/// Answers one call of an accepted caller. (Inlined, it would be in the filter twice.) `path` includes the query; `ids` are
/// kept from call to call.
#[inline(never)]
pub fn answer<D: SharedData>(
    store: &CredentialStore<D>,
    ids: &mut WantedIds,
    method: &[u8],
    path: &[u8],
    body: &[u8],
    now: SystemTime,
) -> Reply {
    let mut parts = path.splitn(2, |byte| *byte == b'?');
    let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let resource = Resource::of(path);
    if let Some(resource) = &resource
        && !resource.takes(method, query)
    {
        return Reply::error(400, "InvalidQuery", resource.queries());
    }
    match (resource, method) {
        (Some(Resource::Identities), b"GET") => list(store, page_start(query)),
        (Some(Resource::Status), b"GET") => {
            store.wanted().map_or_else(Reply::failed, |wanted| status(store, &wanted, now))
        }
        (Some(Resource::Credentials { id }), b"PUT" | b"DELETE") => {
            let id = String::from_utf8_lossy(id);
            match store.is_wanted(ids, &id) {
                Err(error) => Reply::failed(error),
                Ok(false) => unwanted(store, method, &id),
                Ok(true) if method == b"DELETE" => revoke(store, &id),
                Ok(true) => put(store, &id, body, now, query == UNLESS_REVOKED),
            }
        }
        (Some(resource), _) => Reply {
            allow: Some(resource.methods()),
            ..Reply::error(405, "MethodNotAllowed", "this resource does not support the method")
        },
        (None, _) => Reply::error(
            404,
            "NotFound",
            "the intake has /v1/identities, /v1/identities/{id}/credentials and /v1/status",
        ),
    }
}

/// Answers for an identity that no policy wants: a push is rejected, but credentials that are still held can be deleted.
fn unwanted<D: SharedData>(store: &CredentialStore<D>, method: &[u8], id: &str) -> Reply {
    if method == b"DELETE" && store.is_stored(id) {
        return Reply::done(store.forget(id));
    }
    Reply::error(404, "UnknownIdentity", "no loaded policy wants this identity; see GET /v1/identities")
}

/// Revokes the credentials held. The workers are notified even if the access key can't be remembered, because the
/// credentials are wiped.
fn revoke<D: SharedData>(store: &CredentialStore<D>, id: &str) -> Reply {
    let reply = match store.revoke(id) {
        Err(error @ SetError::Unreadable) => {
            let why = format!("the credentials were wiped, but their access key can't be recorded as revoked: {error}");
            Reply::error(500, "SharedData", &why)
        }
        revoked => Reply::done(revoked),
    };
    Reply { changed: true, ..reply }
}

/// Stores pushed credentials. A manual push may undo a revocation; an automated one, like the refresher's, must not.
fn put<D: SharedData>(
    store: &CredentialStore<D>,
    id: &str,
    document: &[u8],
    now: SystemTime,
    unless_revoked: bool,
) -> Reply {
    let credentials = match Credentials::from_document(document) {
        Ok(credentials) if credentials.hold_at(now) => credentials,
        Ok(_) => {
            let why = "Expiration: is in the past; push credentials that have not expired";
            return Reply::error(400, "InvalidCredentials", why);
        }
        Err(error) => return Reply::error(400, "InvalidCredentials", &error.to_string()),
    };
    let key = credentials.access_key_id();
    if !unless_revoked {
        return Reply::done(store.reinstate(id, key).and_then(|()| store.put(id, &credentials)));
    }
    let is_revoked = || store.revoked(id).map(|revoked| revoked.iter().any(|revoked| revoked == key));
    match is_revoked() {
        Err(error) => Reply::failed(error),
        Ok(true) => Reply::revoked(),
        Ok(false) => match store.put(id, &credentials).and_then(|()| is_revoked()) {
            // A concurrent DELETE revoked the key. No worker uses the credentials, and they must not stay stored either.
            Ok(true) => store.discard(id, key).map_or_else(Reply::failed, |()| Reply::revoked()),
            stored => Reply::done(stored.map(drop)),
        },
    }
}

enum Resource<'a> {
    Identities,
    Credentials { id: &'a [u8] },
    Status,
}

impl<'a> Resource<'a> {
    fn of(path: &'a [u8]) -> Option<Self> {
        match path {
            b"/v1/identities" => Some(Self::Identities),
            b"/v1/status" => Some(Self::Status),
            _ => {
                let id = path.strip_prefix(b"/v1/identities/")?.strip_suffix(b"/credentials")?;
                Some(Self::Credentials { id })
            }
        }
    }

    /// Returns whether a call supports this query, compared byte for byte. With an unsupported method, it accepts any.
    fn takes(&self, method: &[u8], query: &[u8]) -> bool {
        match (self, method) {
            _ if query.is_empty() => true,
            (Self::Identities, b"GET") => generation(query).is_some() || page_start(query).is_some(),
            (Self::Credentials { .. }, b"PUT") => query == UNLESS_REVOKED,
            (Self::Status, b"GET") | (Self::Credentials { .. }, b"DELETE") => false,
            _ => true,
        }
    }

    fn queries(&self) -> &'static str {
        match self {
            Self::Identities => {
                "this call does not support the query; use ?after= with a generation in digits, ?from= with an id, or none"
            }
            Self::Credentials { .. } => "this call does not support the query; use ?unless-revoked with PUT, or none",
            Self::Status => "this call does not support the query; use none",
        }
    }

    fn methods(&self) -> &'static str {
        match self {
            Self::Identities | Self::Status => "GET",
            Self::Credentials { .. } => "PUT, DELETE",
        }
    }
}

/// Lists wanted identities and held credentials: all of them, or a page that begins with an id.
fn list<D: SharedData>(store: &CredentialStore<D>, from: Option<&[u8]>) -> Reply {
    // Read before the listing, so that a concurrent change ends the next wait.
    let generation = store.generation();
    let mut wanted = match store.wanted() {
        Ok(wanted) => wanted.into_iter().peekable(),
        Err(error) => return Reply::failed(error),
    };
    let (mut identities, mut size) = (Vec::new(), 0);
    while let Some(identity) = wanted.next_if(|_| size <= PAGE) {
        if from.is_some_and(|from| identity.id().as_bytes() < from) {
            continue;
        }
        let status = describe(store, identity);
        if from.is_some() {
            size += serde_json::to_vec(&status).map_or(0, |json| json.len());
        }
        identities.push(status);
    }
    let next = wanted.next().map(|identity| identity.id().to_owned());
    Reply::json(200, &Identities { version: PROTOCOL, generation, identities, next })
}

fn describe<D: SharedData>(store: &CredentialStore<D>, identity: Identity) -> IdentityStatus {
    let held = store.get(identity.id()).as_ref().map(HeldCredentials::from);
    let (revoked, problem) = match store.revoked(identity.id()) {
        Ok(revoked) => (revoked, None),
        Err(error) => (Vec::new(), Some(unreadable(error))),
    };
    IdentityStatus { identity, held, revoked, problem }
}

/// The answer of `GET /v1/status`.
#[derive(Serialize)]
struct Status {
    ready: bool,
    missing: Vec<String>,
    expired: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Returns the problem of an identity whose revocations can't be read.
fn unreadable(error: SetError) -> String {
    format!("its revocations can't be read, so nothing is signed for it: {error}")
}

fn status<D: SharedData>(store: &CredentialStore<D>, wanted: &[Identity], now: SystemTime) -> Reply {
    let mut status = Status { ready: !wanted.is_empty(), missing: Vec::new(), expired: Vec::new(), problem: None };
    if wanted.is_empty() {
        status.problem = Some(NO_POLICY.to_owned());
    }
    for identity in wanted {
        match store.get(identity.id()) {
            Some(credentials) if credentials.hold_at(now) => continue,
            Some(_) => status.expired.push(identity.id().to_owned()),
            None => status.missing.push(identity.id().to_owned()),
        }
        status.ready = false;
        if let Err(error) = store.revoked(identity.id()) {
            status.problem = Some(format!("{}: {}", identity.id(), unreadable(error)));
        }
    }
    Reply::json(if status.ready { 200 } else { 503 }, &status)
}

/// The problem of an intake whose `vm_id` no signer shares.
pub const NO_POLICY: &str = "no policy is loaded under the intake's vm_id: give the signer's plugin the same vm_id";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credentials::{Identity, Role};
    use crate::test_support::{Memory, credentials};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const TOKEN_SHA256: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"; // of "token"

    /// Answers like an intake that has had no call yet.
    fn answer(store: &CredentialStore<&Memory>, method: &[u8], path: &[u8], body: &[u8], now: SystemTime) -> Reply {
        super::answer(store, &mut WantedIds::default(), method, path, body, now)
    }

    fn wanting_default(memory: &Memory) -> CredentialStore<&Memory> {
        let store = CredentialStore(memory);
        store.want("policy", &[Identity::default_chain()], NOW, true).unwrap();
        store
    }

    fn json(reply: &Reply) -> serde_json::Value {
        serde_json::from_slice(&reply.body).unwrap()
    }

    const DOCUMENT: &[u8] = br#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "hush",
        "SessionToken": "hush-hush", "Expiration": "1970-01-01T01:00:00Z"}"#;
    /// At [`NOW`].
    const EXPIRED: &[u8] = br#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "hush",
        "Expiration": "1970-01-01T00:00:00Z"}"#;
    const PATH: &[u8] = b"/v1/identities/default/credentials";

    #[test]
    fn a_pushed_document_is_held_listed_without_its_secrets_and_revoked() {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        let put = answer(&store, b"PUT", PATH, DOCUMENT, NOW);
        assert_eq!((put.status, put.changed, put.body.is_empty()), (204, true, true));
        let listing = answer(&store, b"GET", b"/v1/identities?", b"", NOW);
        assert_eq!(json(&listing)["identities"][0]["held"]["accessKeyId"], "AKIDEXAMPLE");
        assert!(!String::from_utf8(listing.body).unwrap().contains("hush"));
        assert_eq!(answer(&store, b"DELETE", PATH, b"", NOW).status, 204);
        assert!(store.get("default").is_none());
    }

    #[test]
    fn a_revoked_access_key_is_listed_and_taken_again_only_from_who_insists() {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        answer(&store, b"PUT", PATH, DOCUMENT, NOW);
        answer(&store, b"DELETE", PATH, b"", NOW);
        let listing = json(&answer(&store, b"GET", b"/v1/identities", b"", NOW));
        assert_eq!(
            listing["identities"][0],
            serde_json::json!({"id": "default", "held": null, "revoked": ["AKIDEXAMPLE"]})
        );
        assert_eq!((&listing["version"], &listing["generation"]), (&PROTOCOL.into(), &store.generation().into()));

        let unless_revoked = [PATH, b"?unless-revoked"].concat();
        let again = answer(&store, b"PUT", &unless_revoked, DOCUMENT, NOW);
        assert_eq!((again.status, json(&again)["error"]["code"].as_str()), (409, Some("RevokedCredentials")));
        assert!(!again.changed && store.get("default").is_none());

        let other = String::from_utf8(DOCUMENT.to_vec()).unwrap().replace("AKIDEXAMPLE", "AKIDOTHER");
        assert_eq!(answer(&store, b"PUT", &unless_revoked, other.as_bytes(), NOW).status, 204);
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDOTHER");

        assert_eq!(answer(&store, b"PUT", PATH, DOCUMENT, NOW).status, 204);
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDEXAMPLE");
    }

    #[test]
    fn a_query_that_a_call_does_not_have_is_refused_and_changes_nothing() {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        answer(&store, b"PUT", PATH, DOCUMENT, NOW);
        answer(&store, b"DELETE", PATH, b"", NOW);
        let before = (store.generation(), store.revoked("default"));
        let path = std::str::from_utf8(PATH).unwrap();
        for (method, path, query) in [
            (&b"PUT"[..], path, "unless_revoked"),
            (b"PUT", path, "Unless-Revoked"),
            (b"PUT", path, "unless-revoked=true"),
            (b"PUT", path, "unless-revoked&x"),
            (b"PUT", path, "x=1"),
            (b"PUT", path, "after=1"),
            (b"DELETE", path, "unless-revoked"),
            (b"GET", "/v1/status", "x"),
            (b"GET", "/v1/identities", "x=1"),
            (b"GET", "/v1/identities", "from=a&after=1"),
            (b"GET", "/v1/identities", "after="),
            (b"GET", "/v1/identities", "after=x"),
            (b"GET", "/v1/identities", "after=+1"),
            (b"GET", "/v1/identities", "after=18446744073709551616"),
            (b"GET", "/v1/identities", "unless-revoked"),
        ] {
            let reply = answer(&store, method, format!("{path}?{query}").as_bytes(), DOCUMENT, NOW);
            assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (400, Some("InvalidQuery")), "{query}");
        }
        assert_eq!((store.generation(), store.revoked("default")), before);
    }

    /// Checks, byte for byte, the calls that each version of the refresher has sent.
    #[test]
    fn the_calls_of_every_version_of_the_refresher_are_understood() {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        for (method, path, status) in [
            ("PUT", "/v1/identities/default/credentials", 204),
            ("PUT", "/v1/identities/default/credentials?unless-revoked", 204),
            ("GET", "/v1/identities", 200),
            ("GET", "/v1/identities?from=", 200),
            ("GET", "/v1/identities?from=orders-reader-5a57a1ac", 200),
            ("GET", "/v1/identities?after=0", 200),
            ("GET", "/v1/identities?after=1764276000000", 200),
            ("GET", "/v1/status", 200),
        ] {
            let reply = answer(&store, method.as_bytes(), path.as_bytes(), DOCUMENT, NOW);
            assert_eq!(reply.status, status, "{method} {path}");
        }
    }

    #[test]
    fn the_pages_of_a_listing_are_bounded_and_make_the_whole() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        // The longest that AWS allows, in letters of three bytes.
        let long = |length: usize, number: usize| format!("{}{number:0>3}", "\u{20ac}".repeat(length - 3));
        let tags: Vec<_> = (0..50).map(|tag| (long(128, tag), long(256, tag))).collect();
        let role =
            |number| Role { tags: tags.clone(), ..Role::new(format!("arn:aws:iam::123456789012:role/r{number}"), "s") };
        let roles: Vec<_> = (0..160).map(|number| Identity::assumed(role(number))).collect();
        store.want("policy", &roles, NOW, true).unwrap();
        let whole = answer(&store, b"GET", b"/v1/identities", b"", NOW).body;
        assert!(whole.len() > PAGE);
        let whole: Identities = serde_json::from_slice(&whole).unwrap();
        assert_eq!((whole.identities.len(), &whole.next), (160, &None));

        let (mut from, mut pages) = (String::new(), Vec::new());
        loop {
            let page = answer(&store, b"GET", format!("/v1/identities?from={from}").as_bytes(), b"", NOW).body;
            assert!(page.len() < PAGE + (64 << 10), "{}", page.len());
            let page: Identities = serde_json::from_slice(&page).unwrap();
            assert_eq!((page.version, page.generation), (whole.version, whole.generation));
            pages.push(page.identities);
            let Some(next) = page.next else { break };
            assert!(next > from);
            from = next;
        }
        assert_eq!(pages.len(), 2);
        assert_eq!(pages.concat(), whole.identities);
        let beyond = json(&answer(&store, b"GET", b"/v1/identities?from=~", b"", NOW));
        assert_eq!((beyond["identities"].as_array().unwrap().len(), beyond.get("next")), (0, None));
    }

    #[test]
    fn status_is_ready_only_while_every_identity_holds() {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        let before = answer(&store, b"GET", b"/v1/status", b"", NOW);
        assert_eq!((before.status, json(&before)["missing"][0].as_str()), (503, Some("default")));
        answer(&store, b"PUT", PATH, DOCUMENT, NOW);
        assert_eq!(answer(&store, b"GET", b"/v1/status", b"", NOW).status, 200);
        let later = NOW + Duration::from_secs(3601);
        store.want("policy", &[Identity::default_chain()], later, true).unwrap();
        let after = answer(&store, b"GET", b"/v1/status", b"", later);
        assert_eq!((after.status, json(&after)["expired"][0].as_str()), (503, Some("default")));
    }

    #[test]
    fn an_intake_that_shares_its_vm_id_with_no_policy_is_not_ready_and_says_so() {
        let memory = Memory::default();
        let reply = answer(&CredentialStore(&memory), b"GET", b"/v1/status", b"", NOW);
        assert_eq!(reply.status, 503);
        assert_eq!(
            json(&reply),
            serde_json::json!({"ready": false, "missing": [], "expired": [], "problem": NO_POLICY})
        );
    }

    #[test]
    fn what_is_held_for_nobody_can_be_taken_away() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.put("default", &credentials("AKIDLEFT", "hush")).unwrap();
        assert_eq!(answer(&store, b"PUT", PATH, DOCUMENT, NOW).status, 404);
        let reply = answer(&store, b"DELETE", PATH, b"", NOW);
        assert_eq!((reply.status, reply.changed), (204, true));
        assert!(store.get("default").is_none());
        assert_eq!(answer(&store, b"DELETE", PATH, b"", NOW).status, 404);
    }

    #[test]
    fn a_call_waits_for_the_end_of_a_generation_it_names() {
        assert_eq!(awaited_generation(b"GET", b"/v1/identities?after=17"), Some(17));
        for path in ["/v1/identities", "/v1/identities?after=", "/v1/identities?after=x", "/v1/status?after=1"] {
            assert_eq!(awaited_generation(b"GET", path.as_bytes()), None, "{path}");
        }
        assert_eq!(awaited_generation(b"PUT", b"/v1/identities?after=17"), None);
    }

    #[test]
    fn what_another_version_wrote_is_said_to_be_unreadable() {
        let memory = Memory::default();
        (&memory).set("sigv4.wanted", b"{}", 0).unwrap();
        for (method, path) in [(&b"GET"[..], &b"/v1/identities"[..]), (b"GET", b"/v1/status"), (b"PUT", PATH)] {
            let reply = answer(&CredentialStore(&memory), method, path, DOCUMENT, NOW);
            assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (500, Some("SharedData")));
        }
    }

    #[test]
    fn an_identity_whose_revocations_can_not_be_read_is_not_signed_for_and_takes_no_push() {
        for list in [&br#"{"keys": ["AKIDEXAMPLE"]}"#[..], b"[\"AKIDEXAM", b"[1]", b"\xff"] {
            let memory = Memory::default();
            let store = wanting_default(&memory);
            let other = Identity::assumed(Role::new("arn:aws:iam::123456789012:role/other", "s"));
            store.want("policy", &[Identity::default_chain(), other.clone()], NOW, true).unwrap();
            store.put(other.id(), &Credentials::new("AKIDOTHER", "hush".to_owned(), None, None).unwrap()).unwrap();
            answer(&store, b"PUT", PATH, DOCUMENT, NOW);
            (&memory).set("sigv4.revoked.default", list, 0).unwrap();

            assert!(store.get("default").is_none() && store.get(other.id()).is_some());
            let listing = json(&answer(&store, b"GET", b"/v1/identities", b"", NOW));
            let [held, problem] = ["held", "problem"].map(|member| &listing["identities"][0][member]);
            assert!(held.is_null() && problem.as_str().unwrap().starts_with("its revocations can't be read"));
            assert!(listing["identities"][1].get("problem").is_none());
            let status = answer(&store, b"GET", b"/v1/status", b"", NOW);
            let problem = &json(&status)["problem"];
            assert_eq!(status.status, 503);
            assert!(problem.as_str().unwrap().starts_with("default: its revocations can't be read"), "{problem}");

            for query in [&b""[..], b"?unless-revoked"] {
                let reply = answer(&store, b"PUT", &[PATH, query].concat(), DOCUMENT, NOW);
                assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (500, Some("SharedData")));
            }
            let reply = answer(&store, b"DELETE", PATH, b"", NOW);
            let told = json(&reply)["error"]["message"].as_str().unwrap().to_owned();
            assert!(reply.status == 500 && reply.changed && told.contains("the credentials were wiped"), "{told}");
            assert!(!store.is_stored("default"));
            // The rest can be deleted once nobody wants the identity.
            store.want("policy", &[other], NOW, true).unwrap();
            assert_eq!((&memory).get("sigv4.revoked.default").unwrap().0, b"");
        }
    }

    #[test]
    fn what_the_intake_does_not_know_is_refused_and_changes_nothing() {
        let memory = Memory::default();
        let store = wanting_default(&memory);
        for (method, path, body, status, code) in [
            (&b"PUT"[..], &b"/v1/identities/other/credentials"[..], DOCUMENT, 404, "UnknownIdentity"),
            (b"PUT", b"/v1/identities/\xff/credentials", DOCUMENT, 404, "UnknownIdentity"),
            (b"PUT", PATH, b"{}", 400, "InvalidCredentials"),
            (b"PUT", PATH, b"\xff", 400, "InvalidCredentials"),
            (b"PUT", PATH, EXPIRED, 400, "InvalidCredentials"),
            (b"POST", PATH, DOCUMENT, 405, "MethodNotAllowed"),
            (b"DELETE", b"/v1/identities", b"", 405, "MethodNotAllowed"),
            (b"GET", b"/v1/status/", b"", 404, "NotFound"),
            (b"GET", b"", b"", 404, "NotFound"),
        ] {
            let reply = answer(&store, method, path, body, NOW);
            assert_eq!((reply.status, json(&reply)["error"]["code"].as_str()), (status, Some(code)));
            assert!(!reply.changed);
        }
        assert!(store.get("default").is_none());
    }

    #[test]
    fn a_caller_is_let_in_by_socket_certificate_or_listed_token() {
        let config = format!(r#"{{"intake": {{"tokenSha256": ["{}", "{TOKEN_SHA256}"]}}}}"#, "0".repeat(64));
        let policy = IntakePolicy::from_json(config.as_bytes()).unwrap();
        let with = |authorization: &'static [u8]| Caller { authorization: Some(authorization), ..Caller::default() };
        assert!(policy.admits(&Caller { over_unix_socket: true, ..Caller::default() }));
        assert!(policy.admits(&Caller { client_certificate: true, ..Caller::default() }));
        assert!(policy.admits(&with(b"Bearer token")));
        assert!(policy.admits(&with(b"bearer  token ")));
        for refused in [&b"Bearer tokem"[..], b"Bearer ", b"Basic token", b"token", b"", b"Bearer \xff"] {
            assert!(!policy.admits(&with(refused)), "{refused:?}");
        }
        assert!(!policy.admits(&Caller::default()));
        assert!(!IntakePolicy::from_json(br#"{"intake": {}}"#).unwrap().admits(&with(b"Bearer token")));
    }

    #[test]
    fn a_configuration_that_can_not_work_is_refused_with_the_place() {
        for (config, message) in [
            (r#"{"intake": {"tokenSha256": ["abc"]}}"#, "intake.tokenSha256[0]: must be"),
            (r#"{"intake": {"tokenSha256": "abc"}}"#, "intake.tokenSha256: invalid type"),
            (r#"{"intake": {"tokens": []}}"#, "intake.tokens: unknown field"),
            (r#"{"intake": {}, "routes": {}}"#, "routes: unknown field"),
        ] {
            let error = IntakePolicy::from_json(config.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        let sign = "+".repeat(64);
        assert!(IntakePolicy::from_json(format!(r#"{{"intake": {{"tokenSha256": ["{sign}"]}}}}"#).as_bytes()).is_err());
    }

    #[test]
    fn an_intake_configuration_is_told_from_a_policy() {
        assert!(IntakePolicy::is_meant(br#"{"intake": {}}"#));
        assert!(!IntakePolicy::is_meant(br#"{"routes": {}}"#));
        assert!(!IntakePolicy::is_meant(b"[{}]"));
    }
}
