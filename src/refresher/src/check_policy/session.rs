//! A role's session in text.

use sigv4_core::credentials::Role;

/// Returns the properties that identify a role's session.
pub(super) fn session(role: &Role) -> String {
    let external_id = role.external_id.as_ref().map(|id| format!("external id {id}"));
    let duration = role.duration_seconds.map(|seconds| format!("{seconds} s"));
    let tags = role.tags.iter().map(|(key, value)| format!("{key}={value}"));
    let source = role.source_identity.as_ref().map(|source| format!("source identity {source}"));
    let policies = role.policy_arns.iter().map(|arn| format!("limited by {arn}"));
    let inline = role.session_policy.as_ref().map(|policy| format!("limited by {policy}"));
    let parts = std::iter::once(role.session_name.clone()).chain(source).chain(external_id).chain(duration);
    let parts = parts.chain(tags).chain(policies).chain(inline);
    parts.collect::<Vec<_>>().join(", ")
}
