//! When a request's payload hash is known: at its headers, or only when its body is whole.

use crate::policy::PayloadMode;
use crate::signing::PayloadHash;

/// What a request tells of its body at its headers.
#[derive(Debug, Clone, Copy)]
pub struct BodyFacts<'a> {
    /// No body follows.
    pub is_empty: bool,
    /// The connection changes to another protocol (WebSocket); what follows is no body of the request.
    pub is_upgrade: bool,
    /// The request goes to S3, and over TLS, which protects the body where the signature does not.
    pub is_s3_over_tls: bool,
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
    pub fn of(mode: PayloadMode, body: BodyFacts<'_>) -> Self {
        if mode == PayloadMode::Client
            && let Some(hash) = body.client_hash.and_then(PayloadHash::from_client_header)
        {
            return Self::Known(hash);
        }
        if body.is_empty || body.is_upgrade {
            return Self::Known(PayloadHash::Empty);
        }
        match mode {
            PayloadMode::Unsigned => Self::Known(PayloadHash::Unsigned),
            PayloadMode::Auto | PayloadMode::Client if body.is_s3_over_tls => Self::Known(PayloadHash::Unsigned),
            PayloadMode::Auto | PayloadMode::Client | PayloadMode::Signed => Self::HashBody,
        }
    }
}

#[cfg(test)]
mod tests {
    use PayloadMode::{Auto, Client, Signed, Unsigned};

    use super::*;

    const WITH_BODY: BodyFacts<'_> =
        BodyFacts { is_empty: false, is_upgrade: false, is_s3_over_tls: false, client_hash: None };

    #[test]
    fn a_request_without_a_body_is_signed_at_once() {
        for mode in [Auto, Signed, Unsigned, Client] {
            let plan = PayloadPlan::of(mode, BodyFacts { is_empty: true, ..WITH_BODY });
            assert_eq!(plan, PayloadPlan::Known(PayloadHash::Empty));
        }
    }

    #[test]
    fn an_upgrade_has_no_body_to_wait_for() {
        let plan = PayloadPlan::of(Signed, BodyFacts { is_upgrade: true, ..WITH_BODY });
        assert_eq!(plan, PayloadPlan::Known(PayloadHash::Empty));
    }

    #[test]
    fn a_body_is_hashed_but_where_it_may_stream() {
        let s3 = BodyFacts { is_s3_over_tls: true, ..WITH_BODY };
        for (mode, body, plan) in [
            (Auto, WITH_BODY, PayloadPlan::HashBody),
            (Auto, s3, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Signed, s3, PayloadPlan::HashBody),
            (Unsigned, WITH_BODY, PayloadPlan::Known(PayloadHash::Unsigned)),
            (Client, WITH_BODY, PayloadPlan::HashBody),
            (Client, s3, PayloadPlan::Known(PayloadHash::Unsigned)),
        ] {
            assert_eq!(PayloadPlan::of(mode, body), plan, "{mode:?} {body:?}");
        }
    }

    #[test]
    fn the_clients_hash_is_taken_where_the_route_says_so_and_it_is_one() {
        let digest = [b'a'; 64];
        let with = |client_hash| BodyFacts { client_hash: Some(client_hash), ..WITH_BODY };
        assert_eq!(PayloadPlan::of(Client, with(&digest)), PayloadPlan::Known(PayloadHash::Sha256(digest)));
        assert_eq!(PayloadPlan::of(Client, with(b"STREAMING")), PayloadPlan::HashBody);
        assert_eq!(PayloadPlan::of(Auto, with(&digest)), PayloadPlan::HashBody);
    }
}
