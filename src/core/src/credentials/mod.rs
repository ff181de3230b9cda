//! Credentials in transit: their identity, their document, the store in the proxy, and its listing.

mod document;
mod identity;
mod store;

pub use document::{CredentialDocumentError, Credentials, parse_expiration};
pub use identity::{DEFAULT_SESSION_NAME, HeldCredentials, Identities, Identity, IdentityStatus, PROTOCOL, Role};
pub use store::{CredentialStore, LEASE, SetError, SharedData, WantedIds, Watch};
