//! Whom a route signs as, and what the proxy tells of it on its intake.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Credentials;
use super::document::format_expiration;

/// The session name of a role for which the policy gives none, as in the Backstage plugin.
pub const DEFAULT_SESSION_NAME: &str = "tempAssumeRoleSession";

/// A role to assume with STS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// The role's ARN.
    #[serde(rename = "roleArn")]
    pub arn: String,
    /// The session's name, which shows in CloudTrail.
    #[serde(rename = "roleSessionName")]
    pub session_name: String,
    /// The external id that the role's trust policy asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// Whom a route signs as: the refresher's own credentials, or a role assumed on top of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    id: String,
    #[serde(flatten)]
    role: Option<Role>,
}

impl Identity {
    /// The credentials that AWS's provider chain gives, under the id `default`.
    pub fn default_chain() -> Self {
        Self { id: "default".to_owned(), role: None }
    }

    /// A role. Its id is the role's name and a digest of all that tells it apart, so that it stays the same over
    /// restarts and reads well in a log.
    pub fn assumed(role: Role) -> Self {
        let mut digest = Sha256::new();
        for part in [role.arn.as_str(), role.session_name.as_str(), role.external_id.as_deref().unwrap_or_default()] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        let digest = digest.finalize();
        let name: String = role
            .arn
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            .collect();
        let id = format!("{name}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
        Self { id, role: Some(role) }
    }

    /// The name under which the intake knows it; safe in a URL's path as it is.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The role to assume; `None` for the chain's own credentials.
    pub fn role(&self) -> Option<&Role> {
        self.role.as_ref()
    }
}

/// The answer of `GET /v1/identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identities {
    /// All identities that the loaded policies want.
    pub identities: Vec<IdentityStatus>,
}

/// One wanted identity and what the proxy holds for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// What is held; `None` before the first push.
    pub held: Option<HeldCredentials>,
}

/// What may be told of held credentials: never a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldCredentials {
    /// The access key's id.
    pub access_key_id: String,
    /// When they cease to hold, RFC 3339; left out for long-lived ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
}

impl From<&Credentials> for HeldCredentials {
    fn from(credentials: &Credentials) -> Self {
        Self {
            access_key_id: credentials.access_key_id().to_owned(),
            expiration: credentials.expiration().map(format_expiration),
        }
    }
}

impl HeldCredentials {
    /// Whether these are the very credentials held: same key, same expiry to the second.
    pub fn are(&self, credentials: &Credentials) -> bool {
        *self == Self::from(credentials)
    }

    /// The expiry as an instant; `None` for long-lived credentials or a text that is no instant.
    pub fn expires_at(&self) -> Option<SystemTime> {
        let text = self.expiration.as_deref()?;
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok().map(SystemTime::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(external_id: Option<&str>) -> Identity {
        Identity::assumed(Role {
            arn: "arn:aws:iam::123456789012:role/path/orders-reader".to_owned(),
            session_name: DEFAULT_SESSION_NAME.to_owned(),
            external_id: external_id.map(str::to_owned),
        })
    }

    #[test]
    fn an_id_reads_well_and_tells_identities_apart() {
        assert!(reader(None).id().starts_with("orders-reader-"));
        assert_eq!(reader(None), reader(None));
        assert_ne!(reader(None).id(), reader(Some("x")).id());
        assert_eq!(Identity::default_chain().id(), "default");
    }

    #[test]
    fn the_listing_has_the_shape_of_the_contract() {
        let listing = Identities {
            identities: vec![
                IdentityStatus {
                    identity: Identity::default_chain(),
                    held: Some(HeldCredentials {
                        access_key_id: "AKIDEXAMPLE".to_owned(),
                        expiration: Some("2026-01-02T03:04:05Z".to_owned()),
                    }),
                },
                IdentityStatus { identity: reader(Some("x")), held: None },
            ],
        };
        let json = serde_json::to_value(&listing).unwrap();
        let id = reader(Some("x")).id().to_owned();
        assert_eq!(
            json,
            serde_json::json!({"identities": [
                {"id": "default", "held": {"accessKeyId": "AKIDEXAMPLE", "expiration": "2026-01-02T03:04:05Z"}},
                {"id": id, "roleArn": "arn:aws:iam::123456789012:role/path/orders-reader",
                 "roleSessionName": "tempAssumeRoleSession", "externalId": "x", "held": null},
            ]})
        );
        assert_eq!(serde_json::from_value::<Identities>(json).unwrap(), listing);
    }
}
