//! Roles and a proxy's socket for the tests.

use std::path::PathBuf;
use std::time::Duration;

use sigv4_core::credentials::{Identity, Role};
use tempfile::TempDir;

pub const HOUR: Duration = Duration::from_secs(3600);
pub const READER: &str = "arn:aws:iam::123456789012:role/orders-reader";
pub const WRITER: &str = "arn:aws:iam::123456789012:role/orders-writer";

pub fn role(arn: &str) -> Identity {
    Identity::assumed(Role { external_id: Some("x-1".to_owned()), ..Role::new(arn, "orders") })
}

pub fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("credentials.sock")
}
