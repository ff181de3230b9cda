//! Test data for several modules: shared data without a proxy, credentials, and points in time.

mod memory;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::credentials::{Credentials, SetError, SharedData};

pub(crate) use memory::Memory;

/// Returns credentials without a session token, which never expire.
pub(crate) fn credentials(access_key_id: &str, secret: &str) -> Credentials {
    Credentials::new(access_key_id, secret.to_owned(), None, None).unwrap()
}

/// Returns the point in time this many seconds after the epoch.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}
