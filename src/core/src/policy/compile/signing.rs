//! The signing settings of a route.

use std::time::Duration;

use crate::aws_endpoint;
use crate::signing::Algorithm;

use super::super::document::{AlgorithmName, LocationName, SigningDocument, StringOrList, WholeNumber};
use super::super::error::{Location, PolicyError};
use super::super::iam_names::is_scope_byte;
use super::super::modes::{PayloadMode, SignatureLocation};
use super::super::target::Target;

/// The longest validity of a presigned URL, seven days. Source: AWS Signature Version 4 for API requests, `X-Amz-Expires`.
const EXPIRES_MAX_SECONDS: u64 = 604_800;

/// Long enough to follow a redirect, short enough for a URL that leaks into a log.
const EXPIRES_DEFAULT_SECONDS: u64 = 300;

/// Compiles the algorithm.
pub(super) fn algorithm(signing: &SigningDocument, at: &Location) -> Result<Algorithm, PolicyError> {
    let at = at.key("regionSet");
    match (signing.algorithm.unwrap_or(AlgorithmName::SigV4), &signing.region_set) {
        (AlgorithmName::SigV4, None) => Ok(Algorithm::SigV4),
        (AlgorithmName::SigV4, Some(_)) => {
            Err(at.error("belongs to \"algorithm\": \"sigv4a\"; set that, or remove this and set \"region\""))
        }
        (AlgorithmName::SigV4a, None) => Ok(Algorithm::SigV4a { region_set: aws_endpoint::ALL_REGIONS.to_owned() }),
        (AlgorithmName::SigV4a, Some(StringOrList(regions))) => {
            let regions: Vec<&str> = regions.iter().flat_map(|regions| regions.split(',')).map(str::trim).collect();
            for region in &regions {
                if region.is_empty() || !region.bytes().all(|b| is_scope_byte(b) || b == b'*') {
                    return Err(at.error(format!(
                        "{region:?} is not a region; use names or patterns such as \"us-east-1\", \"us-*\" or \"*\""
                    )));
                }
            }
            if regions.is_empty() {
                return Err(at.error("is empty; list a region, or remove this for all"));
            }
            Ok(Algorithm::SigV4a { region_set: regions.join(",") })
        }
    }
}

/// Compiles the location of the signature, and the validity of a presigned URL.
pub(super) fn location(signing: &SigningDocument, at: &Location) -> Result<SignatureLocation, PolicyError> {
    let at = at.key("expiresSeconds");
    let expires = signing.expires_seconds.map(|WholeNumber(seconds)| seconds);
    match signing.location.unwrap_or(LocationName::Header) {
        LocationName::Header if expires.is_some() => {
            Err(at.error("belongs to \"location\": \"query\"; set that, or remove this"))
        }
        LocationName::Header => Ok(SignatureLocation::Header),
        LocationName::Query => {
            let seconds = expires.unwrap_or(EXPIRES_DEFAULT_SECONDS);
            if !(1..=EXPIRES_MAX_SECONDS).contains(&seconds) {
                return Err(at.error(format!("{seconds} is out of range; use 1 to {EXPIRES_MAX_SECONDS} (seven days)")));
            }
            Ok(SignatureLocation::Query { expires: Duration::from_secs(seconds) })
        }
    }
}

/// Rejects a redirect that a client could not follow.
pub(super) fn check_redirect(
    location: SignatureLocation,
    payload: PayloadMode,
    target: Option<&Target>,
    signed_headers: &[String],
    at: &Location,
) -> Result<(), PolicyError> {
    let redirect = at.key("signing").key("redirect");
    if location == SignatureLocation::Header {
        return Err(redirect.error("sends the client a presigned URL; add \"location\": \"query\""));
    }
    if target.is_none() {
        return Err(redirect.error("needs a target; without one the client would be redirected to the same URL"));
    }
    if matches!(payload, PayloadMode::Signed | PayloadMode::Envoy) {
        return Err(at
            .key("payload")
            .error("needs the body, which a redirected client sends elsewhere; use \"auto\" or \"unsigned\""));
    }
    if !signed_headers.is_empty() {
        return Err(at.key("signedHeaders").error("a redirected client does not send them; remove this"));
    }
    Ok(())
}
