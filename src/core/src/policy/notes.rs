//! Valid settings that may not do what the author of a policy expects.

use super::{PayloadMode, Policy, Route, RouteIdentity};
use crate::signing::{takes_nothing_else, takes_unsigned_payload};

impl Policy {
    /// Returns a note for each route whose requests are likely to be rejected by their service, or to be signed as a role
    /// that is meant for another caller.
    pub fn notes(&self) -> impl Iterator<Item = String> {
        self.routes.iter().flat_map(|route| payload(route).into_iter().chain(ambiguous_role(route)))
    }
}

/// Returns a note if different values of callers may make one role: `{namespace}-{serviceAccount}` is `a-b-c` for `a` and
/// `b-c`, and for `a-b` and `c`.
fn ambiguous_role(route: &Route) -> Option<String> {
    let RouteIdentity::Caller(template) = &route.identity else { return None };
    let part = template.role().arn.split('/').find(|part| part.matches('{').count() > 1)?;
    Some(format!(
        "{}: \"{part}\" in roleArn is the same for different callers, such as -{{…}}-{{…}} for \"a\" and \"b-c\" and for \
         \"a-b\" and \"c\"; put a / between placeholders, which no value has",
        route.name
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_callers_with_other_values_may_have_is_noted() {
        for (role, is_noted) in [
            ("mesh-{namespace}-{serviceAccount}", true),
            ("{trustDomain}{namespace}/app", true),
            ("mesh/{namespace}/{serviceAccount}", false),
            ("mesh-{namespace}", false),
        ] {
            let document = format!(
                r#"{{"routes": {{"/a": {{"target": "https://sqs.eu-west-1.amazonaws.com", "callers":
                ["spiffe://td/ns/*/sa/*"], "roleArn": "arn:aws:iam::123456789012:role/{role}"}}}}}}"#
            );
            let notes: Vec<_> = Policy::from_json(document.as_bytes()).unwrap().notes().collect();
            assert_eq!(notes.len(), usize::from(is_noted), "{role}: {notes:?}");
            assert!(notes.iter().all(|note| note.contains("put a / between placeholders")), "{notes:?}");
        }
    }
}
