//! Signs a checked request.

use std::time::{Duration, SystemTime};

use super::algorithm::Algorithm;
use super::aws_chunked::{ChunkResigner, ChunkSigner};
use super::canonical_request::{CanonicalRequest, UnsignedRequest};
use super::error::SigningError;
use super::signing_key::{Key, write_parts};
use super::streaming_form::AwsChunkedForm;
use super::timestamp::{Clock, Timestamp};
use super::{PayloadHash, Scope, SigningCredentials, uri};

/// The credentials, scope, algorithm and time of a signature.
#[derive(Debug, Clone, Copy)]
pub struct SigningContext<'a> {
    /// The credentials.
    pub credentials: &'a SigningCredentials,
    /// The region and service.
    pub scope: Scope<&'a str>,
    /// The algorithm.
    pub algorithm: Algorithm<&'a str>,
    /// The time. AWS rejects a signature that is some minutes off its own clock.
    pub at: SystemTime,
}

/// The headers that carry a signature. They replace the client's headers of these names.
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
    /// `x-amz-region-set`, of SigV4A.
    pub region_set: Option<&'a [u8]>,
}

impl<'a> SignedHeaders<'a> {
    /// Returns the names and values to set on the request.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'a [u8])> {
        [
            ("authorization", Some(self.authorization)),
            ("x-amz-date", Some(self.date)),
            ("x-amz-security-token", self.security_token),
            ("x-amz-content-sha256", self.content_sha256),
            ("x-amz-region-set", self.region_set),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// A signer that reuses its buffers. With the signing keys cached in the credentials, it signs a request like an earlier one
/// without an allocation.
#[derive(Debug, Default)]
pub struct Signer {
    clock: Clock,
    canonical_request: CanonicalRequest,
    timestamp: Timestamp,
    signature: Vec<u8>,
    authorization: Vec<u8>,
    payload_hash: Vec<u8>,
    presigned_uri: Vec<u8>,
}

impl Signer {
    /// Signs a request in its headers. `headers` that a signature does not cover are ignored: pseudo headers, and the
    /// client's signature headers, may be among them.
    ///
    /// # Errors
    /// [`SigningError`] says which part can't be used.
    pub fn sign<'s, 'h>(
        &'s mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'s>,
    ) -> Result<SignedHeaders<'s>, SigningError> {
        self.sign_in_headers(request, headers, context, request.payload.is_required_by(context.scope.service))
    }

    fn sign_in_headers<'s, 'h>(
        &'s mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'s>,
        sends_payload_hash: bool,
    ) -> Result<SignedHeaders<'s>, SigningError> {
        let (timestamp, mut key) = self.key(context)?;
        let security_token = context.credentials.credentials().session_token().map(str::as_bytes);
        let region_set = context.algorithm.region_set();

        let canonical_headers = self.canonical_request.start(request, headers);
        if sends_payload_hash {
            canonical_headers.add_canonical(b"x-amz-content-sha256", request.payload.as_bytes());
        }
        canonical_headers.add_canonical(b"x-amz-date", timestamp.as_bytes());
        if let Some(region_set) = region_set {
            canonical_headers.add_canonical(b"x-amz-region-set", region_set);
        }
        if let Some(token) = security_token {
            canonical_headers.add_canonical(b"x-amz-security-token", token);
        }
        canonical_headers.sort();
        self.canonical_request.finish(request, request.uri.query());
        self.calculate_signature(&mut key)?;

        write_parts(
            &[
                &key.second_parts().authorization_head,
                self.canonical_request.signed_headers(),
                b", Signature=",
                &self.signature,
            ],
            &mut self.authorization,
        );
        self.timestamp = timestamp;
        if sends_payload_hash {
            write_parts(&[request.payload.as_bytes()], &mut self.payload_hash);
        }
        Ok(self.signed_headers(context, sends_payload_hash))
    }

    /// Returns the headers of the request that was signed last.
    fn signed_headers<'s>(&'s self, context: &SigningContext<'s>, sends_payload_hash: bool) -> SignedHeaders<'s> {
        SignedHeaders {
            authorization: &self.authorization,
            date: self.timestamp.as_bytes(),
            security_token: context.credentials.credentials().session_token().map(str::as_bytes),
            content_sha256: sends_payload_hash.then_some(&self.payload_hash),
            region_set: context.algorithm.region_set(),
        }
    }

    /// Signs a request with an `aws-chunked` body in its headers, and returns the re-signer of its chunks. `decoded_length`
    /// is `x-amz-decoded-content-length`. The request's own payload is ignored.
    ///
    /// # Errors
    /// [`SigningError`] names the unusable part; [`SigningError::AsymmetricChunks`] if chunks would have to be signed with
    /// SigV4A.
    pub fn sign_aws_chunked<'s, 'h>(
        &'s mut self,
        form: AwsChunkedForm,
        decoded_length: u64,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'s>,
    ) -> Result<(SignedHeaders<'s>, ChunkResigner), SigningError> {
        if form.is_signed() && context.algorithm != Algorithm::SigV4 {
            return Err(SigningError::AsymmetricChunks);
        }
        let request = UnsignedRequest { payload: PayloadHash::AwsChunked(form), ..*request };
        self.sign_in_headers(&request, headers, context, true)?;
        let (timestamp, key) = self.key(context)?;
        let chunk_signer = match &key {
            Key::Symmetric(symmetric) if form.is_signed() => Some(ChunkSigner {
                key: symmetric.signing_key().clone(),
                context: [timestamp.as_bytes(), b"\n", &key.second_parts().credential_scope, b"\n"].concat(),
                previous_signature: self.signature.clone(),
            }),
            _ => None,
        };
        Ok((self.signed_headers(context, true), ChunkResigner::new(form, decoded_length, chunk_signer)))
    }

    /// Signs a request in its query, and returns the path and query to send. No header is added. `headers` are signed as by
    /// [`Signer::sign`], and the sender of the request must send the signed ones unchanged.
    ///
    /// S3 does not read the body's hash from a presigned request: the payload is `UNSIGNED-PAYLOAD` there.
    ///
    /// AWS accepts an expiry of up to seven days; it is written in whole seconds.
    ///
    /// # Errors
    /// [`SigningError`] says which part can't be used.
    pub fn presign<'s, 'h>(
        &'s mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'_>,
        expires: Duration,
    ) -> Result<&'s [u8], SigningError> {
        let payload = if uri::is_s3(context.scope.service) { PayloadHash::Unsigned } else { request.payload };
        // AWS IoT Core Developer Guide, "MQTT over the WebSocket protocol": the token is added after signing.
        let signs_token = context.scope.service != "iotdevicegateway";
        self.sign_in_query(&UnsignedRequest { payload, ..*request }, headers, context, expires, signs_token)
    }

    fn sign_in_query<'s, 'h>(
        &'s mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
        context: &SigningContext<'_>,
        expires: Duration,
        signs_token: bool,
    ) -> Result<&'s [u8], SigningError> {
        let (timestamp, mut key) = self.key(context)?;
        self.canonical_request.start(request, headers).sort();

        let out = &mut self.presigned_uri;
        write_parts(&[request.uri.as_bytes(), if request.uri.query().is_empty() { b"?" } else { b"&" }], out);
        out.extend_from_slice(b"X-Amz-Algorithm=");
        out.extend_from_slice(context.algorithm.name());
        out.extend_from_slice(b"&X-Amz-Credential=");
        uri::write_encoded(context.credentials.credentials().access_key_id().as_bytes(), out);
        out.extend_from_slice(b"%2F");
        uri::write_encoded(&key.second_parts().credential_scope, out);
        out.extend_from_slice(b"&X-Amz-Date=");
        out.extend_from_slice(timestamp.as_bytes());
        out.extend_from_slice(b"&X-Amz-SignedHeaders=");
        uri::write_encoded(self.canonical_request.signed_headers(), out);
        out.extend_from_slice(b"&X-Amz-Expires=");
        out.extend_from_slice(expires.as_secs().to_string().as_bytes());
        if let Some(token) = context.credentials.credentials().session_token().filter(|_| signs_token) {
            write_security_token(token, out);
        }
        if let Some(region_set) = context.algorithm.region_set() {
            out.extend_from_slice(b"&X-Amz-Region-Set=");
            uri::write_encoded(region_set, out);
        }

        let query = out.get(request.uri.path().len() + 1..).unwrap_or_default();
        self.canonical_request.finish(request, query);
        self.calculate_signature(&mut key)?;
        let out = &mut self.presigned_uri;
        if let Some(token) = context.credentials.credentials().session_token().filter(|_| !signs_token) {
            write_security_token(token, out);
        }
        out.extend_from_slice(b"&X-Amz-Signature=");
        out.extend_from_slice(&self.signature);
        Ok(out)
    }

    /// Returns the text of the context's time, and the key that signs in the context.
    fn key<'c>(&mut self, context: &SigningContext<'c>) -> Result<(Timestamp, Key<'c>), SigningError> {
        let SigningContext { credentials, scope, algorithm, at } = *context;
        let timestamp = self.clock.timestamp(at).ok_or(SigningError::Clock)?;
        let key = credentials.key(algorithm, scope, at, timestamp).ok_or(SigningError::Asymmetric)?;
        Ok((timestamp, key))
    }

    /// Signs the canonical request that was finished last.
    fn calculate_signature(&mut self, key: &mut Key<'_>) -> Result<(), SigningError> {
        self.signature.clear();
        key.sign(&self.canonical_request, &mut self.signature).ok_or(SigningError::Asymmetric)
    }
}

fn write_security_token(token: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"&X-Amz-Security-Token=");
    uri::write_encoded(token.as_bytes(), out);
}

#[cfg(test)]
mod vectors;
