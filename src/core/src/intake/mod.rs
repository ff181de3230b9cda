//! The private API that receives credentials: its configuration, its calls, and the listing that the refresher reads.

mod api;
mod config;
mod listing;
pub(crate) mod worker;

pub use api::{MAX_BODY, Reply, answer, awaited_generation};
pub use config::{Caller, IntakeConfig, IntakeConfigError};
pub use listing::{CredentialSummary, IdentityListing, IdentityStatus, NO_POLICY, PROTOCOL};
pub use worker::{LONGEST_WAIT, MOST_WAITING};
