//! When a request's payload hash is known: at its headers, or only when its body is whole.

use crate::policy::PayloadMode;
use crate::signing::{self, AwsChunkedForm, PayloadHash, UnsupportedStreamingForm};

/// What a request tells of its body at its headers.
#[derive(Debug, Clone, Copy)]
pub struct BodyFacts<'a> {
    /// No body follows.
    pub is_empty: bool,
    /// The connection changes to another protocol (WebSocket); what follows is no body of the request.
    pub is_upgrade: bool,
    /// The signing name of the service it goes to.
    pub service: &'a str,
    /// It goes there over TLS, which protects the body where the signature does not.
    pub over_tls: bool,
    /// The `x-amz-content-sha256` that the client sent.
    pub client_hash: Option<&'a [u8]>,
}

/// What has to happen before the request can be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadPlan {
    /// Nothing: the body, if any, streams.
    Known(PayloadHash),
    /// The body is hashed as it arrives and held back until it is whole.
    HashBody,
}

impl PayloadPlan {
    /// Decides by the route's mode and what the request tells.
    ///
    /// # Errors
    /// Where the body is chunked in a form that can't be signed anew: S3 would take it for another body than it is.
    pub fn of(mode: PayloadMode, body: BodyFacts<'_>) -> Result<Self, UnsupportedStreamingForm> {
        let is_s3 = signing::is_s3(body.service);
        if is_s3
            && let Some(value) = body.client_hash
            && let Some(form) = AwsChunkedForm::from_client_header(value)?
        {
            return Ok(Self::Known(PayloadHash::AwsChunked(form)));
        }
        if mode == PayloadMode::Client
            && let Some(hash) = body.client_hash.and_then(PayloadHash::from_client_header)
        {
            return Ok(Self::Known(hash));
        }
        // VPC Lattice User Guide, "SigV4 authenticated requests": it takes UNSIGNED-PAYLOAD and nothing else.
        let takes_unsigned_alone = body.service == "vpc-lattice-svcs" && mode != PayloadMode::Signed;
        Ok(match mode {
            _ if takes_unsigned_alone => Self::Known(PayloadHash::Unsigned),
            _ if body.is_empty || body.is_upgrade => Self::Known(PayloadHash::Empty),
            PayloadMode::Unsigned => Self::Known(PayloadHash::Unsigned),
            PayloadMode::Auto | PayloadMode::Client if is_s3 && body.over_tls => Self::Known(PayloadHash::Unsigned),
            PayloadMode::Auto | PayloadMode::Client | PayloadMode::Signed => Self::HashBody,
        })
    }
}

#[cfg(test)]
mod tests {
    use PayloadMode::{Auto, Client, Signed, Unsigned};

    use super::*;

    const WITH_BODY: BodyFacts<'_> =
        BodyFacts { is_empty: false, is_upgrade: false, service: "execute-api", over_tls: true, client_hash: None };

    const S3: BodyFacts<'_> = BodyFacts { service: "s3", ..WITH_BODY };

    #[test]
    fn a_request_without_a_body_is_signed_at_once() {
        for mode in [Auto, Signed, Unsigned, Client] {
            let plan = PayloadPlan::of(mode, BodyFacts { is_empty: true, ..WITH_BODY });
            assert_eq!(plan, Ok(PayloadPlan::Known(PayloadHash::Empty)));
        }
    }

    #[test]
    fn an_upgrade_has_no_body_to_wait_for() {
        let plan = PayloadPlan::of(Signed, BodyFacts { is_upgrade: true, ..WITH_BODY });
        assert_eq!(plan, Ok(PayloadPlan::Known(PayloadHash::Empty)));
    }

    #[test]
    fn a_body_is_hashed_but_where_it_may_stream() {
        let plain_s3 = BodyFacts { over_tls: false, ..S3 };
        let lattice = BodyFacts { service: "vpc-lattice-svcs", ..WITH_BODY };
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
            assert_eq!(PayloadPlan::of(mode, body), Ok(plan), "{mode:?} {body:?}");
        }
    }

    #[test]
    fn the_clients_hash_is_taken_where_the_route_says_so_and_it_is_one() {
        let digest = [b'a'; 64];
        let with = |client_hash| BodyFacts { client_hash: Some(client_hash), ..WITH_BODY };
        assert_eq!(PayloadPlan::of(Client, with(&digest)), Ok(PayloadPlan::Known(PayloadHash::Sha256(digest))));
        assert_eq!(PayloadPlan::of(Client, with(b"no hash")), Ok(PayloadPlan::HashBody));
        assert_eq!(PayloadPlan::of(Auto, with(&digest)), Ok(PayloadPlan::HashBody));
    }

    #[test]
    fn a_chunked_upload_to_s3_streams_in_every_mode() {
        let chunked = BodyFacts { client_hash: Some(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), ..S3 };
        for mode in [Auto, Signed, Unsigned, Client] {
            assert_eq!(
                PayloadPlan::of(mode, chunked),
                Ok(PayloadPlan::Known(PayloadHash::AwsChunked(AwsChunkedForm::Signed)))
            );
        }
        let unknown = BodyFacts { client_hash: Some(b"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"), ..S3 };
        assert_eq!(PayloadPlan::of(Auto, unknown), Err(UnsupportedStreamingForm));
        let elsewhere = BodyFacts { service: "execute-api", ..chunked };
        assert_eq!(PayloadPlan::of(Auto, elsewhere), Ok(PayloadPlan::HashBody));
    }
}
