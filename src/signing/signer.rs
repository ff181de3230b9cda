//! From a checked request to its signature.

use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::canonical_request::CanonicalRequest;
use super::signing_key::SigningKeyCache;
use super::timestamp::{Clock, Timestamp};
use super::{PayloadHash, Scope, WireUri, hex, signed_headers};
use crate::credentials::Credentials;

/// What is to be signed. The headers are given apart, as whoever holds them has them.
#[derive(Debug, Clone, Copy)]
pub struct UnsignedRequest<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The authority as it is sent, without a default port.
    pub authority: &'a [u8],
    /// Path and query as they are sent.
    pub uri: &'a WireUri,
    /// What is said of the body.
    pub payload: PayloadHash,
    /// Headers that the policy signs beyond the usual ones, in lower case.
    pub signed_headers: &'a [String],
}

/// As whom, for what and when a request is signed.
#[derive(Debug, Clone, Copy)]
pub struct SigningContext<'a> {
    /// As whom.
    pub credentials: &'a Credentials,
    /// For which region and service.
    pub scope: Scope<&'a str>,
    /// With which algorithm.
    pub algorithm: Algorithm,
    /// When. AWS refuses a signature more than some minutes off its own clock.
    pub at: SystemTime,
}

/// The signing algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `AWS4-HMAC-SHA256`.
    SigV4,
}

impl Algorithm {
    fn name(self) -> &'static [u8] {
        match self {
            Self::SigV4 => b"AWS4-HMAC-SHA256",
        }
    }
}

/// Why a request can't be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The time of the signature lies before 1970 or after 9999.
    #[error("the clock is off: a signature's year lies between 1970 and 9999; set the proxy's clock")]
    Clock,
}

/// The headers that carry a signature. They take the place of whatever the client sent under these names.
#[derive(Clone, Copy)]
pub struct SignedHeaders<'a> {
    /// `authorization`
    pub authorization: &'a [u8],
    /// `x-amz-date`
    pub date: &'a [u8],
    /// `x-amz-security-token`, of temporary credentials.
    pub security_token: Option<&'a [u8]>,
    /// `x-amz-content-sha256`, for the services that need it.
    pub content_sha256: Option<&'a [u8]>,
}

impl<'a> SignedHeaders<'a> {
    /// Names and values, to be set on the request.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        [
            ("authorization", Some(self.authorization)),
            ("x-amz-date", Some(self.date)),
            ("x-amz-security-token", self.security_token),
            ("x-amz-content-sha256", self.content_sha256),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Signs requests one after another. It keeps the signing keys and its buffers, so that a request that resembles an
/// earlier one is signed without an allocation.
#[derive(Debug, Default)]
pub struct Signer {
    clock: Clock,
    keys: SigningKeyCache,
    canonical_request: CanonicalRequest,
    credential_scope: Vec<u8>,
    string_to_sign: Vec<u8>,
    date: Vec<u8>,
    authorization: Vec<u8>,
    payload_hash: Vec<u8>,
}

impl Signer {
    /// Signs a request in its headers. Of `headers`, those that signing covers are signed and the rest is passed over:
    /// pseudo headers, and what the client sent under the names that signing owns, may stand among them.
    ///
    /// # Errors
    /// [`SigningError::Clock`] where `context.at` is no time to sign at.
    pub fn sign<'s, 'h>(
        &'s mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'s>,
    ) -> Result<SignedHeaders<'s>, SigningError> {
        self.sign_in_headers(request, headers, context, request.payload.is_sent_to(context.scope.service))
    }

    fn sign_in_headers<'s, 'h>(
        &'s mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'s>,
        sends_payload_hash: bool,
    ) -> Result<SignedHeaders<'s>, SigningError> {
        let SigningContext { credentials, scope, algorithm, at } = *context;
        let timestamp = self.clock.timestamp(at).ok_or(SigningError::Clock)?;
        let security_token = credentials.session_token().map(str::as_bytes);

        let canonical_headers = self.canonical_request.start();
        canonical_headers.add(b"host", request.authority);
        for (name, value) in headers {
            if signed_headers::is_signed(name, request.signed_headers) {
                canonical_headers.add(name, value);
            }
        }
        if sends_payload_hash {
            canonical_headers.add(b"x-amz-content-sha256", request.payload.as_bytes());
        }
        canonical_headers.add(b"x-amz-date", timestamp.as_bytes());
        if let Some(token) = security_token {
            canonical_headers.add(b"x-amz-security-token", token);
        }
        canonical_headers.sort();

        write_credential_scope(timestamp, scope, &mut self.credential_scope);
        let canonical_request = self.canonical_request.finish(
            request.method,
            request.uri.style(),
            request.uri.path(),
            request.uri.query(),
            request.payload.as_bytes(),
        );
        write_parts(
            &[
                algorithm.name(),
                b"\n",
                timestamp.as_bytes(),
                b"\n",
                &self.credential_scope,
                b"\n",
                &hex::encode(&Sha256::digest(canonical_request).into()),
            ],
            &mut self.string_to_sign,
        );
        let key = self.keys.key(credentials, at, timestamp.day(), scope);
        let signature = key.sign(&self.string_to_sign);

        write_parts(
            &[
                algorithm.name(),
                b" Credential=",
                credentials.access_key_id().as_bytes(),
                b"/",
                &self.credential_scope,
                b", SignedHeaders=",
            ],
            &mut self.authorization,
        );
        self.canonical_request.write_signed_headers(&mut self.authorization);
        self.authorization.extend_from_slice(b", Signature=");
        self.authorization.extend_from_slice(&signature);

        write_parts(&[timestamp.as_bytes()], &mut self.date);
        write_parts(&[request.payload.as_bytes()], &mut self.payload_hash);
        Ok(SignedHeaders {
            authorization: &self.authorization,
            date: &self.date,
            security_token,
            content_sha256: sends_payload_hash.then_some(&self.payload_hash),
        })
    }
}

/// `20150830/us-east-1/iam/aws4_request`
fn write_credential_scope(timestamp: Timestamp, scope: Scope<&str>, out: &mut Vec<u8>) {
    let parts = [&timestamp.day()[..], b"/", scope.region.as_bytes(), b"/", scope.service.as_bytes(), b"/aws4_request"];
    write_parts(&parts, out);
}

/// Writes parts one behind the other in place of what `out` held.
fn write_parts(parts: &[&[u8]], out: &mut Vec<u8>) {
    out.clear();
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod vectors;
