//! The objects that a request to S3 names beside its path.

use crate::header_map::HeaderMap;
use crate::policy::{self, CopySourceError, Policy, Route};

use super::head::RequestHead;

/// Checks that no header that goes to S3, and no query parameter, names an object outside of the route.
pub(super) fn check_copy_source(
    policy: &Policy,
    route: &Route,
    headers: &HeaderMap,
    head: &RequestHead<'_>,
) -> Result<(), CopySourceError> {
    head.path.query().map_or(Ok(()), policy::check_query)?;
    if !head.names_copy_source {
        return Ok(());
    }
    let mut seen = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| route.request_headers.keeps(name)) {
        let Some(name) = policy::copy_source_header(name) else { continue };
        if seen.contains(&name) {
            return Err(CopySourceError::Repeated(name));
        }
        seen.push(name);
        policy.check_copy_source(route, (head.authority, &head.path), (name, value))?;
    }
    Ok(())
}
