//! Test data of the modules that share state between workers: a clock that starts well after the epoch, roles and keys.

use std::time::SystemTime;

use super::{Credentials, Identity, Role};
use crate::test_support;

/// Returns the point in time this many seconds after the start.
pub(crate) fn at(seconds: u64) -> SystemTime {
    test_support::at(1_000_000 + seconds)
}

/// Returns the identity of a role with this name.
pub(crate) fn role(name: &str) -> Identity {
    let arn = format!("arn:aws:iam::123456789012:role/{name}");
    Identity::assumed(Role::new(arn, "s"))
}

/// Returns long-lived credentials with this access key.
pub(crate) fn credentials(key: &str) -> Credentials {
    test_support::credentials(key, "secret")
}
