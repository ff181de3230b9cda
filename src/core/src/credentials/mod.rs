//! Credentials as they travel: who they are for, the document that carries them, and what a proxy says of them.

mod document;
mod identity;
mod store;

pub use document::{CredentialDocumentError, Credentials, parse_expiration};
pub use identity::{DEFAULT_SESSION_NAME, HeldCredentials, Identities, Identity, IdentityStatus, PROTOCOL, Role};
pub use store::{CredentialStore, LEASE, SetError, SharedData, WantedIds, Watch};
