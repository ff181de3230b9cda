//! The properties of a client that Envoy has verified. Nothing that a client sends is trusted.
//!
//! A token is verified by Envoy's `jwt_authn` filter, which leaves its payload in the stream's dynamic metadata: a map with
//! a member for each `payload_in_metadata` and `header_in_metadata` of a verified token. With `failed_status_in_metadata`
//! there is also one for a *rejected* token, of the form `{code, message}`, and a rule such as `allow_missing_or_failed`
//! lets that request continue. So the presence of metadata proves nothing.
//!
//! Source: Envoy's `jwt_authn/v3/config.proto`.

use crate::header_map::HeaderMap;
use crate::host::{Host, HostError};
use crate::policy::{Caller, CallerSources};

const JWT_METADATA: &str = "metadata\0filter_metadata\0envoy.filters.http.jwt_authn";

/// Returns whether Envoy has authenticated the request: by a client certificate or a token.
pub(crate) fn is_authenticated(host: &impl Host) -> bool {
    has_client_certificate(host)
        || host.property(JWT_METADATA).unwrap_or_default().is_some_and(|metadata| has_verified_token(&metadata))
}

/// Returns what Envoy has verified of the client, as far as `sources` asks for it. A name of the certificate is there only if
/// the client presented one. Envoy can't serialize a token that has a claim of `null`; it authenticates nobody.
///
/// # Errors
/// If the proxy refuses to tell a name.
pub(crate) fn caller(host: &impl Host, sources: CallerSources) -> Result<Caller, HostError> {
    let read = |is_needed: bool, property| if is_needed { host.property(property) } else { Ok(None) };
    let name = |name: Option<Vec<u8>>| name.filter(|name| !name.is_empty());
    Ok(Caller {
        uri: read(sources.uri, "connection\0uri_san_peer_certificate").map(name)?,
        dns: read(sources.dns, "connection\0dns_san_peer_certificate").map(name)?,
        tokens: read(sources.tokens, JWT_METADATA).unwrap_or_default().map(HeaderMap),
    })
}

/// Returns whether the connection has a client certificate. Envoy verifies each one that it requests, unless its validation
/// context has `trust_chain_verification: ACCEPT_UNTRUSTED`, which no property reveals.
pub(crate) fn has_client_certificate(host: &impl Host) -> bool {
    host.property("connection\0mtls").unwrap_or_default().is_some_and(|mtls| mtls == [1])
}

/// Returns whether the client came over a Unix socket. Its address is the socket's path; an IP address can't begin like one.
pub(crate) fn is_over_unix_socket(host: &impl Host) -> bool {
    host.property("source\0address")
        .unwrap_or_default()
        .is_some_and(|address| matches!(address.first(), Some(b'/' | b'@')))
}

/// Returns whether the metadata has a member that only a verified token sets. `metadata` is the property in the proxy's
/// form, a map of maps; unreadable metadata authenticates nobody.
pub fn has_verified_token(metadata: &[u8]) -> bool {
    // A payload that has exactly the members of a failure's status is rejected.
    HeaderMap(metadata)
        .iter()
        .any(|(_, payload)| HeaderMap(payload).iter().any(|(claim, _)| !matches!(claim, b"code" | b"message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serialize(map: &[(&str, &[u8])]) -> Vec<u8> {
        HeaderMap::serialize(map).0
    }

    fn metadata(member: &str, claims: &[(&str, &[u8])]) -> Vec<u8> {
        serialize(&[(member, &serialize(claims))])
    }

    #[test]
    fn a_payload_authenticates() {
        assert!(has_verified_token(&metadata("jwt", &[("iss", b"https://issuer"), ("sub", b"a")])));
        assert!(has_verified_token(&metadata("jwt", &[("code", b"1"), ("sub", b"a")])));
        let (failed, payload) = (serialize(&[("code", b"2"), ("message", b"expired")]), serialize(&[("sub", b"a")]));
        assert!(has_verified_token(&serialize(&[("failed", &failed), ("jwt", &payload)])));
    }

    #[test]
    fn the_status_of_a_refused_token_does_not() {
        assert!(!has_verified_token(&metadata("failed", &[("code", b"2"), ("message", b"Jwt is expired")])));
        assert!(!has_verified_token(&metadata("failed", &[("message", b"Jwt is expired")])));
    }

    #[test]
    fn nothing_or_something_else_does_not() {
        let text = serialize(&[("jwt", b"text")]);
        for metadata in [&b""[..], b"\x01", b"\xff\xff\xff\xff", b"{}", &text, &metadata("jwt", &[])] {
            assert!(!has_verified_token(metadata), "{metadata:?}");
        }
    }
}
