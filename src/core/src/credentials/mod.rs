//! Credentials in transit: their identity, their document, and the state shared by the workers of one proxy: which identities
//! the loaded policies require, the credentials held for them, and which workers to notify when they change.

mod caller_leases;
mod changes;
mod document;
mod identity;
mod leases;
mod shared_data;
mod slots;
mod store;
#[cfg(test)]
pub(crate) mod test_data;

pub use caller_leases::CallerBounds;
pub(crate) use document::format_expiration;
pub use document::{CredentialDocumentError, Credentials, parse_expiration};
pub use identity::{DEFAULT_SESSION_NAME, Identity, Role};
pub use leases::{LEASE, RequiredIds, Requirements, Watch};
pub use shared_data::{SetError, SharedData};
pub use store::CredentialStore;
