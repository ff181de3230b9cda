//! Valid settings that may not do what the author of a policy expects.

use super::{PayloadMode, Policy, Route};
use crate::signing::{takes_nothing_else, takes_unsigned_payload};

impl Policy {
    /// Returns a note for each route whose requests are likely to be rejected by their service.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.routes.iter().filter_map(payload)
    }
}

/// Returns a note if the service of a route is not known to accept its payload mode.
fn payload(route: &Route) -> Option<String> {
    let service = route.service.as_deref().or(route.scope.as_ref().map(|scope| scope.service.as_str()));
    let name = &route.name;
    if route.payload == PayloadMode::Signed && service.is_some_and(takes_nothing_else) {
        return Some(format!("{name}: VPC Lattice accepts only \"payload\": \"unsigned\"; use that, or \"auto\""));
    }
    if route.payload != PayloadMode::Unsigned || service.is_some_and(takes_unsigned_payload) {
        return None;
    }
    Some(format!(
        "{name}: \"payload\": \"unsigned\" is for S3, VPC Lattice and single operations of EBS, Lex, MediaStore and \
         HealthOmics; {} is not known to accept UNSIGNED-PAYLOAD. Use \"auto\"",
        service.unwrap_or("another service")
    ))
}
