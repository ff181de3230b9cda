//! When a request's payload hash is known: at its headers, or only when its body is whole.

use crate::host::Host;
use crate::policy::PayloadMode;
use crate::signing::{self, AwsChunkedForm, PayloadHash, UnsupportedStreamingForm};

/// What a request tells of its body at its headers.
#[derive(Debug, Clone, Copy)]
pub struct BodyInfo<'a> {
    /// No body follows.
    pub is_empty: bool,
    /// The connection changes to another protocol (WebSocket); what follows is not a body of the request.
    pub is_upgrade: bool,
    /// The signing name of the service it goes to.
    pub service: &'a str,
    /// It goes there over TLS, which protects the body where the signature does not.
    pub over_tls: bool,
    /// The `x-amz-content-sha256` that the client sent.
    pub client_hash: Option<&'a [u8]>,
    /// The hash [by Envoy](hash_by_envoy), if the route asks for it.
    pub envoy_hash: Option<PayloadHash>,
    /// Its content type is that of an [event stream](is_event_stream).
    pub is_event_stream: bool,
    /// It says how long it is.
    pub has_length: bool,
    /// The client signed its `client_hash`, so that it is meant for a signature.
    pub signs_client_hash: bool,
    /// It is of an operation that takes a body that is not signed.
    pub is_unsigned_operation: bool,
}

impl<'a> BodyInfo<'a> {
    /// Describes a body that has a length, and of which the client says nothing else.
    pub const fn of_length(service: &'a str, over_tls: bool) -> Self {
        Self {
            is_empty: false,
            is_upgrade: false,
            service,
            over_tls,
            client_hash: None,
            envoy_hash: None,
            is_event_stream: false,
            has_length: true,
            signs_client_hash: false,
            is_unsigned_operation: false,
        }
    }
}

/// Returns whether a content type is that of an event stream, whose events a client signs one by one. AWS's SDK for Rust
/// says so in no other header.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    // Envoy joins what came in several headers with commas.
    content_type.split(|&byte| byte == b',').any(|each| {
        let media_type = each.split(|&byte| byte == b';').next().unwrap_or_default();
        media_type.trim_ascii().eq_ignore_ascii_case(b"application/vnd.amazon.eventstream")
    })
}

/// Returns the hash of the stream's body that Envoy has computed before this filter; `None` if there is none, and the body is
/// hashed here. It is read from the stream's dynamic metadata, which Envoy's filters set and no client can.
pub(super) fn hash_by_envoy(host: &impl Host) -> Option<PayloadHash> {
    let hash = host.property("metadata\0filter_metadata\0sigv4\0payload_sha256").ok()??;
    // A mark that a body is not signed is not a hash.
    PayloadHash::from_client_header(&hash).filter(|hash| matches!(hash, PayloadHash::Sha256(_)))
}

/// What has to happen before the request can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPlan {
    /// Nothing: the body, if any, streams.
    Known(PayloadHash),
    /// The body is hashed as it arrives and held back until it is whole.
    HashBody,
    /// The hash is known, but the body is held back until it is whole, as the service wants to know its length.
    MeasureBody(PayloadHash),
}

/// Returns whether a service of this signing name takes no body without `content-length`.
///
/// Sources: S3 API Reference, "Error responses" (`MissingContentLength`); OpenSearch Service Developer Guide, "Signing HTTP
/// requests"; S3 Glacier Developer Guide, "Upload Archive"; for Omics, `requiresLength` in AWS's model of it.
pub fn requires_length(service: &str) -> bool {
    signing::is_s3(service) || matches!(service, "aoss" | "es" | "glacier" | "omics")
}

impl PayloadPlan {
    /// Decides by the route's mode and what the request tells.
    ///
    /// # Errors
    /// Where the body has signatures in it that can't be replaced. The service would refuse them, or take the body for
    /// another than it is; and a stream of events may stay open for hours, too long to be held until it is whole.
    pub fn decide(mode: PayloadMode, body: BodyInfo<'_>) -> Result<Self, UnsupportedStreamingForm> {
        let is_s3 = signing::is_s3(body.service);
        let form = body.client_hash.map(AwsChunkedForm::from_client_header).transpose()?.flatten();
        match form {
            Some(form) if is_s3 => return Ok(Self::Known(PayloadHash::AwsChunked(form))),
            Some(_) => return Err(UnsupportedStreamingForm::NotS3),
            // S3 has no such requests, but stores objects of any content type. What follows an upgrade is not a body.
            None if body.is_event_stream && !is_s3 && !body.is_empty && !body.is_upgrade => {
                return Err(UnsupportedStreamingForm::Events);
            }
            None => {}
        }
        if signing::takes_nothing_else(body.service) && mode != PayloadMode::Signed {
            return Ok(Self::known(PayloadHash::Unsigned, body));
        }
        let from_client = || body.client_hash.and_then(PayloadHash::from_client_header);
        if mode == PayloadMode::Client
            && let Some(hash) = from_client()
        {
            return Ok(Self::known(hash, body));
        }
        if let (PayloadMode::Envoy, Some(hash), false) = (mode, body.envoy_hash, body.is_upgrade) {
            return Ok(Self::known(hash, body));
        }
        Ok(match mode {
            _ if body.is_empty || body.is_upgrade => Self::Known(PayloadHash::Empty),
            PayloadMode::Unsigned => Self::known(PayloadHash::Unsigned, body),
            PayloadMode::Signed | PayloadMode::Envoy => Self::HashBody,
            PayloadMode::Auto | PayloadMode::Client => match from_client() {
                // The service compares it with the body. A client's word that a body need not be signed is not taken.
                Some(hash @ PayloadHash::Sha256(_)) if body.signs_client_hash => Self::known(hash, body),
                _ if body.over_tls && (is_s3 || body.is_unsigned_operation) => Self::known(PayloadHash::Unsigned, body),
                _ => Self::HashBody,
            },
        })
    }

    /// Plans a body whose hash is known at the headers.
    fn known(hash: PayloadHash, body: BodyInfo<'_>) -> Self {
        let needs_length = !(body.has_length || body.is_empty || body.is_upgrade) && requires_length(body.service);
        if needs_length { Self::MeasureBody(hash) } else { Self::Known(hash) }
    }
}

#[cfg(test)]
mod tests {
    use PayloadMode::{Auto, Client, Envoy, Signed, Unsigned};

    use super::*;

    const WITH_BODY: BodyInfo<'_> = BodyInfo::of_length("execute-api", true);

    const S3: BodyInfo<'_> = BodyInfo { service: "s3", ..WITH_BODY };

    #[test]
    fn a_request_without_a_body_is_signed_at_once() {
        for mode in [Auto, Signed, Unsigned, Client, Envoy] {
            let plan = PayloadPlan::decide(mode, BodyInfo { is_empty: true, ..WITH_BODY });
            assert_eq!(plan, Ok(PayloadPlan::Known(PayloadHash::Empty)));
        }
    }

    #[test]
    fn an_upgrade_has_no_body_to_wait_for() {
        let plan = PayloadPlan::decide(Signed, BodyInfo { is_upgrade: true, ..WITH_BODY });
        assert_eq!(plan, Ok(PayloadPlan::Known(PayloadHash::Empty)));
    }

    #[test]
    fn a_body_is_hashed_but_where_it_may_stream() {
        let plain_s3 = BodyInfo { over_tls: false, ..S3 };
        let lattice = BodyInfo { service: "vpc-lattice-svcs", ..WITH_BODY };
        for (mode, body, plan) in [
            (Auto, WITH_BODY, PayloadPlan::HashBody),
            (Auto, S3, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Auto, plain_s3, PayloadPlan::HashBody),
            (Auto, lattice, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Signed, S3, PayloadPlan::HashBody),
            (Unsigned, WITH_BODY, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Client, WITH_BODY, PayloadPlan::HashBody),
            (Client, S3, PayloadPlan::Known(PayloadHash::Unsigned)),
        ] {
            assert_eq!(PayloadPlan::decide(mode, body), Ok(plan), "{mode:?} {body:?}");
        }
    }

    #[test]
    fn the_hash_by_envoy_is_signed_where_the_route_asks_for_it_and_the_clients_never() {
        let (ours, clients) = (PayloadHash::Sha256([b'a'; 64]), [b'c'; 64]);
        let both = BodyInfo { envoy_hash: Some(ours), client_hash: Some(&clients), ..WITH_BODY };
        assert_eq!(PayloadPlan::decide(Envoy, both), Ok(PayloadPlan::Known(ours)));
        for mode in [Auto, Signed] {
            assert_eq!(PayloadPlan::decide(mode, both), Ok(PayloadPlan::HashBody));
        }
        for client_hash in [&clients[..], b"UNSIGNED-PAYLOAD"] {
            let clients_alone = BodyInfo { client_hash: Some(client_hash), ..WITH_BODY };
            assert_eq!(PayloadPlan::decide(Envoy, clients_alone), Ok(PayloadPlan::HashBody));
        }
        let measured = BodyInfo { has_length: false, service: "s3", ..both };
        assert_eq!(PayloadPlan::decide(Envoy, measured), Ok(PayloadPlan::MeasureBody(ours)));
        let upgrade = BodyInfo { is_upgrade: true, ..both };
        assert_eq!(PayloadPlan::decide(Envoy, upgrade), Ok(PayloadPlan::Known(PayloadHash::Empty)));
        let chunked = BodyInfo { client_hash: Some(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), service: "s3", ..both };
        assert!(matches!(PayloadPlan::decide(Envoy, chunked), Ok(PayloadPlan::Known(PayloadHash::AwsChunked(_)))));
    }

    #[test]
    fn the_clients_hash_is_taken_where_the_route_says_so_and_it_is_one() {
        let digest = [b'a'; 64];
        let with = |client_hash| BodyInfo { client_hash: Some(client_hash), ..WITH_BODY };
        assert_eq!(PayloadPlan::decide(Client, with(&digest)), Ok(PayloadPlan::Known(PayloadHash::Sha256(digest))));
        assert_eq!(PayloadPlan::decide(Client, with(b"no hash")), Ok(PayloadPlan::HashBody));
        assert_eq!(PayloadPlan::decide(Auto, with(&digest)), Ok(PayloadPlan::HashBody));
    }

    #[test]
    fn auto_takes_a_hash_that_the_client_signed_and_never_its_word_for_none() {
        let (digest, hash) = ([b'a'; 64], PayloadPlan::Known(PayloadHash::Sha256([b'a'; 64])));
        let lattice = BodyInfo { service: "vpc-lattice-svcs", ..WITH_BODY };
        let unsigned = PayloadPlan::Known(PayloadHash::Unsigned);
        for (mode, body, client_hash, plan) in [
            (Auto, WITH_BODY, &digest[..], hash),
            (Client, WITH_BODY, &digest, hash),
            (Auto, S3, &digest, hash),
            (
                Auto,
                BodyInfo { has_length: false, ..S3 },
                &digest,
                PayloadPlan::MeasureBody(PayloadHash::Sha256(digest)),
            ),
            (Auto, WITH_BODY, b"UNSIGNED-PAYLOAD", PayloadPlan::HashBody),
            (Auto, WITH_BODY, b"no hash", PayloadPlan::HashBody),
            (Signed, WITH_BODY, &digest, PayloadPlan::HashBody),
            (Signed, S3, &digest, PayloadPlan::HashBody),
            (Unsigned, S3, &digest, unsigned),
            (Auto, lattice, &digest, unsigned),
            (Client, lattice, &digest, unsigned),
            (Auto, BodyInfo { is_empty: true, ..WITH_BODY }, &digest, PayloadPlan::Known(PayloadHash::Empty)),
            (Auto, BodyInfo { is_upgrade: true, ..WITH_BODY }, &digest, PayloadPlan::Known(PayloadHash::Empty)),
        ] {
            let body = BodyInfo { client_hash: Some(client_hash), signs_client_hash: true, ..body };
            assert_eq!(PayloadPlan::decide(mode, body), Ok(plan), "{mode:?} {body:?}");
        }
    }

    #[test]
    fn an_operation_that_takes_an_unsigned_body_gets_one_over_tls() {
        let operation = BodyInfo { service: "ebs", is_unsigned_operation: true, ..WITH_BODY };
        for (mode, body, plan) in [
            (Auto, operation, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Client, operation, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Signed, operation, PayloadPlan::HashBody),
            (Auto, BodyInfo { over_tls: false, ..operation }, PayloadPlan::HashBody),
            (Auto, BodyInfo { is_unsigned_operation: false, ..operation }, PayloadPlan::HashBody),
        ] {
            assert_eq!(PayloadPlan::decide(mode, body), Ok(plan), "{mode:?} {body:?}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_held_for_services_that_want_it() {
        let unsigned = PayloadHash::Unsigned;
        for (service, mode, plan) in [
            ("s3", Auto, PayloadPlan::MeasureBody(unsigned)),
            ("s3", Client, PayloadPlan::MeasureBody(unsigned)),
            ("s3", Signed, PayloadPlan::HashBody),
            ("es", Unsigned, PayloadPlan::MeasureBody(unsigned)),
            ("aoss", Unsigned, PayloadPlan::MeasureBody(unsigned)),
            ("execute-api", Unsigned, PayloadPlan::Known(unsigned)),
        ] {
            let body = BodyInfo { service, has_length: false, ..WITH_BODY };
            assert_eq!(PayloadPlan::decide(mode, body), Ok(plan), "{service} {mode:?}");
        }
        let body = BodyInfo { has_length: false, ..S3 };
        let digest = [b'a'; 64];
        let hashed = BodyInfo { client_hash: Some(&digest), ..body };
        let expected = PayloadPlan::MeasureBody(PayloadHash::Sha256(digest));
        assert_eq!(PayloadPlan::decide(Client, hashed), Ok(expected));
        for no_body in [BodyInfo { is_empty: true, ..body }, BodyInfo { is_upgrade: true, ..body }] {
            let plan = PayloadPlan::decide(Unsigned, no_body);
            assert_eq!(plan, Ok(PayloadPlan::Known(PayloadHash::Empty)));
        }
    }

    #[test]
    fn a_chunked_upload_to_s3_streams_in_every_mode() {
        let chunked = BodyInfo { client_hash: Some(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), has_length: false, ..S3 };
        for mode in [Auto, Signed, Unsigned, Client] {
            assert_eq!(
                PayloadPlan::decide(mode, chunked),
                Ok(PayloadPlan::Known(PayloadHash::AwsChunked(AwsChunkedForm::Signed)))
            );
        }
        let unknown = BodyInfo { client_hash: Some(b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), ..S3 };
        assert_eq!(PayloadPlan::decide(Auto, unknown), Err(UnsupportedStreamingForm::Unknown));
    }

    #[test]
    fn signatures_in_a_body_that_can_not_be_replaced_are_refused_in_every_mode() {
        let lattice = BodyInfo { service: "vpc-lattice-svcs", ..WITH_BODY };
        for mode in [Auto, Signed, Unsigned, Client] {
            for body in [WITH_BODY, lattice, BodyInfo { is_empty: true, ..WITH_BODY }] {
                for (value, error) in [
                    (&b"STREAMING-AWS4-HMAC-SHA256-EVENTS"[..], UnsupportedStreamingForm::Events),
                    (b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", UnsupportedStreamingForm::NotS3),
                    (b" streaming-unsigned-payload-trailer\t", UnsupportedStreamingForm::NotS3),
                    (b"STREAMING-OF-TOMORROW", UnsupportedStreamingForm::Unknown),
                ] {
                    let body = BodyInfo { client_hash: Some(value), ..body };
                    assert_eq!(PayloadPlan::decide(mode, body), Err(error), "{mode:?} {body:?}");
                }
            }
            for body in [WITH_BODY, lattice] {
                let events = BodyInfo { is_event_stream: true, ..body };
                assert_eq!(
                    PayloadPlan::decide(mode, events),
                    Err(UnsupportedStreamingForm::Events),
                    "{mode:?} {body:?}"
                );
            }
            let to_s3 = BodyInfo { client_hash: Some(b"STREAMING-AWS4-HMAC-SHA256-EVENTS"), ..S3 };
            assert_eq!(PayloadPlan::decide(mode, to_s3), Err(UnsupportedStreamingForm::Events));
        }
    }

    #[test]
    fn an_event_stream_without_events_of_the_client_is_signed() {
        let events = BodyInfo { is_event_stream: true, ..WITH_BODY };
        for (body, plan) in [
            (BodyInfo { is_empty: true, ..events }, PayloadPlan::Known(PayloadHash::Empty)),
            (BodyInfo { is_upgrade: true, ..events }, PayloadPlan::Known(PayloadHash::Empty)),
            (BodyInfo { service: "s3", ..events }, PayloadPlan::Known(PayloadHash::Unsigned)),
        ] {
            assert_eq!(PayloadPlan::decide(Auto, body), Ok(plan), "{body:?}");
        }
    }

    #[test]
    fn an_event_stream_is_told_by_its_media_type() {
        for content_type in [
            "application/vnd.amazon.eventstream",
            "Application/VND.Amazon.EventStream",
            " application/vnd.amazon.eventstream ; charset=utf-8",
            "application/json, application/vnd.amazon.eventstream;a=b",
        ] {
            assert!(is_event_stream(content_type.as_bytes()), "{content_type}");
        }
        for content_type in [
            "",
            ";",
            "application/vnd.amazon.eventstreams",
            "application/vnd.amazon.event-stream",
            "text/event-stream",
            "application/json; a=application/vnd.amazon.eventstream",
        ] {
            assert!(!is_event_stream(content_type.as_bytes()), "{content_type}");
        }
    }
}
