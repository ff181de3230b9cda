//! The headers that a signature covers.
//!
//! They are few: a signed header must reach AWS unchanged, and a proxy or a later hop may add, drop or rewrite most headers.

/// Returns whether a client's header is part of a signature: it is dropped and replaced by our own.
#[inline]
pub fn is_signature_header(name: &[u8]) -> bool {
    const OWNED: [&[u8]; 6] = [
        b"authorization",
        b"x-amz-date",
        b"x-amz-security-token",
        b"x-amz-content-sha256",
        b"x-amz-region-set",
        // Belongs to the credentials of the S3 Express session that the client signed with.
        b"x-amz-s3session-token",
    ];
    matches!(name.first(), Some(b'a' | b'A' | b'x' | b'X'))
        && OWNED.iter().any(|owned| name.eq_ignore_ascii_case(owned))
}

/// Returns whether a header, in lower case, is for one hop, which a proxy does not forward as it is: RFC 9110, section 7.6.1,
/// and `expect`.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"expect"
            | b"keep-alive"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Returns whether a policy's `signedHeaders` may name a header: none that a hop removes or that Envoy writes later.
pub fn may_be_signed(name: &str) -> bool {
    // The headers that Envoy and tracers add or change.
    const NEVER: [&str; 16] = [
        "http2-settings",
        "host",
        "via",
        "forwarded",
        "user-agent",
        "accept-encoding",
        "date",
        "x-request-id",
        "x-client-trace-id",
        "x-amzn-trace-id",
        "x-cloud-trace-context",
        "x-ot-span-context",
        "grpc-trace-bin",
        "traceparent",
        "tracestate",
        "baggage",
    ];
    let name = name.to_ascii_lowercase();
    let never_begins = ["x-forwarded-", "x-envoy-", "x-b3-", "x-datadog-", "sw8", "uber-trace-id", ":"];
    !name.is_empty()
        && name != "b3"
        && !is_hop_by_hop(name.as_bytes())
        && !NEVER.contains(&name.as_str())
        && !never_begins.iter().any(|beginning| name.starts_with(beginning))
        && !is_signature_header(name.as_bytes())
}

/// Returns whether a client's `authorization` is a signature, of any kind of AWS's, that covers `x-amz-content-sha256`.
pub fn signs_content_sha256(authorization: &[u8]) -> bool {
    let parameters = authorization.strip_prefix(b"AWS4-").unwrap_or_default();
    parameters
        .split(|byte| matches!(byte, b' ' | b','))
        .find_map(|parameter| parameter.strip_prefix(b"SignedHeaders="))
        .is_some_and(|names| names.split(|&byte| byte == b';').any(|name| name == b"x-amz-content-sha256"))
}

/// Returns whether a client's header is signed. `policy` holds the additional names of the policy, in lower case.
pub(super) fn is_signed(name: &[u8], policy: &[String]) -> bool {
    let by_rule = match name.first() {
        Some(b'c' | b'C') => name.eq_ignore_ascii_case(b"content-type") || name.eq_ignore_ascii_case(b"content-md5"),
        Some(b'x' | b'X') => {
            name.get(..6).is_some_and(|beginning| beginning.eq_ignore_ascii_case(b"x-amz-"))
                && !is_signature_header(name)
        }
        _ => false,
    };
    by_rule || policy.iter().any(|added| name.eq_ignore_ascii_case(added.as_bytes()) && may_be_signed(added))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_headers_are_signed() {
        for name in ["content-type", "Content-MD5", "x-amz-target", "X-Amz-Meta-A"] {
            assert!(is_signed(name.as_bytes(), &[]), "{name}");
        }
        for name in ["", "accept", "content-length", "cookie", "x-amz", "x-amzn-trace-id", "x-amz-date", "x-team"] {
            assert!(!is_signed(name.as_bytes(), &[]), "{name}");
        }
    }

    #[test]
    fn a_signature_covers_the_payload_hash_if_it_names_the_header() {
        for authorization in [
            "AWS4-HMAC-SHA256 Credential=A/1/r/s/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=0",
            "AWS4-HMAC-SHA256 Credential=A/1/r/s/aws4_request,SignedHeaders=x-amz-content-sha256,Signature=0",
            "AWS4-ECDSA-P256-SHA256 Credential=A/1/s/aws4_request, SignedHeaders=host;x-amz-content-sha256, Signature=0",
        ] {
            assert!(signs_content_sha256(authorization.as_bytes()), "{authorization}");
        }
        for authorization in [
            "",
            "AWS4-HMAC-SHA256",
            "Bearer SignedHeaders=x-amz-content-sha256",
            "AWS4-HMAC-SHA256 Credential=A/1/r/s/aws4_request, SignedHeaders=host;x-amz-date, Signature=0",
            "AWS4-HMAC-SHA256 Credential=x-amz-content-sha256, SignedHeaders=host, Signature=x-amz-content-sha256",
            "AWS4-HMAC-SHA256 SignedHeaders=x-amz-content-sha2566;xx-amz-content-sha256",
        ] {
            assert!(!signs_content_sha256(authorization.as_bytes()), "{authorization}");
        }
    }

    #[test]
    fn the_policy_adds_headers_but_none_that_change_on_the_way() {
        let policy = ["x-team", "traceparent", "x-envoy-a", "authorization"].map(str::to_owned);
        assert!(is_signed(b"X-Team", &policy));
        for name in ["traceparent", "x-envoy-a", "authorization", "x-other"] {
            assert!(!is_signed(name.as_bytes(), &policy), "{name}");
        }
    }

    #[test]
    fn a_policy_is_told_which_headers_it_may_name() {
        for name in ["x-team", "content-length", "accept"] {
            assert!(may_be_signed(name), "{name}");
        }
        for name in ["", ":path", "Host", "X-Forwarded-For", "x-b3-traceid", "b3", "TE", "X-Amz-Date"] {
            assert!(!may_be_signed(name), "{name}");
        }
    }
}
