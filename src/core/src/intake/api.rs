//! The answer to each call.
//!
//! | call | answer |
//! | --- | --- |
//! | `GET /v1/identities` | which identities the loaded policies require, and what is held for each |
//! | `GET /v1/identities?after=GENERATION` | the same as soon as the generation differs from this one; 304 if it does not within half a second |
//! | `GET /v1/identities?from=ID` | a page of the same: the identities from that id on, and the id that the next page begins with |
//! | `PUT /v1/identities/{id}/credentials` | stores a `credential_process` document |
//! | `PUT /v1/identities/{id}/credentials?unless-revoked` | the same, but rejects an access key that a `DELETE` revoked |
//! | `DELETE /v1/identities/{id}/credentials` | revokes the credentials held |
//! | `GET /v1/status` | 200 if a policy is loaded and every required identity holds unexpired credentials, else 503 |
//!
//! An unknown query is rejected: it may be a misspelling of a restriction such as `unless-revoked`. No version of the
//! refresher sends any other query.

use std::time::SystemTime;

use serde::Serialize;

use super::listing::{IdentityListing, Readiness};
use crate::credentials::{CredentialStore, Credentials, RequiredIds, SetError, SharedData};
use crate::local_reply::ErrorDocument;

/// The largest document that is accepted, in bytes. Session tokens are a few KiB at most.
pub const MAX_BODY: usize = 64 * 1024;

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

    fn of<T: Serialize>(document: Result<T, SetError>, status: impl FnOnce(&T) -> u16) -> Self {
        match document {
            Ok(document) => {
                let body = serde_json::to_vec(&document).unwrap_or_default();
                Self { status: status(&document), body, allow: None, changed: false }
            }
            Err(error) => Self::failed(error),
        }
    }

    fn error(status: u16, code: &'static str, message: &str) -> Self {
        let document = ErrorDocument { code, message, route: None, is_clients_fault: status < 500 };
        Self { status, body: document.json(), allow: None, changed: false }
    }

    fn revoked() -> Self {
        let why = "this access key was revoked by a DELETE; rotate it and push the new one";
        Self::error(409, "RevokedCredentials", why)
    }

    fn stored(result: Result<(), SetError>) -> Self {
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
    ids: &mut RequiredIds,
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
        (Some(Resource::Identities), b"GET") => Reply::of(IdentityListing::read(store, page_start(query)), |_| 200),
        (Some(Resource::Status), b"GET") => {
            Reply::of(Readiness::read(store, now), |readiness| if readiness.ready { 200 } else { 503 })
        }
        (Some(Resource::Credentials { id }), b"PUT" | b"DELETE") => {
            let id = String::from_utf8_lossy(id);
            match store.is_required(ids, &id) {
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

/// Answers for an identity that no policy requires: a push is rejected, but credentials that are still held can be deleted.
fn unwanted<D: SharedData>(store: &CredentialStore<D>, method: &[u8], id: &str) -> Reply {
    if method == b"DELETE" && store.is_stored(id) {
        return Reply::stored(store.forget(id));
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
        revoked => Reply::stored(revoked),
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
        return Reply::stored(store.reinstate(id, key).and_then(|()| store.put(id, &credentials)));
    }
    let is_revoked = || store.revoked(id).map(|revoked| revoked.iter().any(|revoked| revoked == key));
    match is_revoked() {
        Err(error) => Reply::failed(error),
        Ok(true) => Reply::revoked(),
        Ok(false) => match store.put(id, &credentials).and_then(|()| is_revoked()) {
            // A concurrent DELETE revoked the key. No worker uses the credentials, and they must not stay stored either.
            Ok(true) => store.discard(id, key).map_or_else(Reply::failed, |()| Reply::revoked()),
            stored => Reply::stored(stored.map(drop)),
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

#[cfg(test)]
mod races;
#[cfg(test)]
mod tests;
