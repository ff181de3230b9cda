//! Which headers a signature covers.
//!
//! Few: what is signed must reach AWS as it is, and a proxy or a hop behind it may add, drop or rewrite most headers.

/// Headers of a client that signing owns: they are dropped, and our own take their place.
#[inline]
pub fn is_signature_header(name: &[u8]) -> bool {
    const OWNED: [&[u8]; 6] = [
        b"authorization",
        b"x-amz-date",
        b"x-amz-security-token",
        b"x-amz-content-sha256",
        b"x-amz-region-set",
        // Belongs to the credentials of an S3 Express session, with which the client has signed.
        b"x-amz-s3session-token",
    ];
    matches!(name.first(), Some(b'a' | b'A' | b'x' | b'X'))
        && OWNED.iter().any(|owned| name.eq_ignore_ascii_case(owned))
}

/// Whether a header may be named in a policy's `signedHeaders`: none that a hop takes off or Envoy writes later.
pub fn may_be_signed(name: &str) -> bool {
    // RFC 9110, section 7.6.1, and what Envoy and tracers add or change on the way.
    const NEVER: [&str; 26] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
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
        && !NEVER.contains(&name.as_str())
        && !never_begins.iter().any(|beginning| name.starts_with(beginning))
        && !is_signature_header(name.as_bytes())
}

/// Whether a client's header is part of the signature. `policy` holds what the policy adds, in lower case.
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
