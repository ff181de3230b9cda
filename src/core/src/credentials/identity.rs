//! Whom a route signs as, and what the proxy tells of it on its intake.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Credentials;
use super::document::format_expiration;
use crate::instant;

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
    /// How long a session lasts; `None` for as long as STS gives by itself, an hour.
    #[serde(rename = "roleDurationSeconds", skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u32>,
    /// The session's tags, each a key and a value, sorted.
    #[serde(rename = "roleTags", default, with = "as_object", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// The ARNs of the roles that are assumed before, each with the credentials of the one before it.
    #[serde(rename = "roleChain", default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
}

impl Role {
    /// A role that is assumed with nothing but a session name.
    pub fn new(arn: impl Into<String>, session_name: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            session_name: session_name.into(),
            external_id: None,
            duration_seconds: None,
            tags: Vec::new(),
            chain: Vec::new(),
        }
    }

    /// The ARNs of all roles that are assumed on the way, in their order, the last one's included.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.chain.iter().chain([&self.arn]).map(String::as_str)
    }

    /// The role's name and a digest of all that tells it apart, so that the id stays the same over restarts and reads
    /// well in a log. What is not set leaves no trace in it: a new member changes no id that exists.
    fn id(&self) -> String {
        let mut digest = Sha256::new();
        // Inlined at each call, it would be several KiB of the filter.
        #[inline(never)]
        fn update(digest: &mut Sha256, part: &str) {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        let mut add = |part: &str| update(&mut digest, part);
        add(&self.arn);
        add(&self.session_name);
        add(self.external_id.as_deref().unwrap_or_default());
        if let Some(seconds) = self.duration_seconds {
            add("duration");
            add(&seconds.to_string());
        }
        for (key, value) in &self.tags {
            add("tag");
            add(key);
            add(value);
        }
        for arn in &self.chain {
            add("chain");
            add(arn);
        }
        let digest = digest.finalize();
        let name = self.arn.rsplit('/').next().unwrap_or_default().chars();
        let name: String = name.filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        format!("{name}-{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
    }
}

/// Pairs that are written as an object. (A `BTreeMap` would do the same, and cost the filter more than ten KiB.)
mod as_object {
    use serde::de::{Deserializer, MapAccess, Visitor};
    use serde::ser::Serializer;

    use super::fmt;

    pub(super) fn serialize<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pairs.iter().map(|(key, value)| (key, value)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Vec<(String, String)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs)
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// The id of the refresher's own credentials.
const DEFAULT_ID: &str = "default";

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
        Self { id: DEFAULT_ID.to_owned(), role: None }
    }

    /// A role, under an id that is made of all that tells it apart.
    pub fn assumed(role: Role) -> Self {
        Self { id: role.id(), role: Some(role) }
    }

    /// Whether the id belongs to what is known of the identity. Where it does not, a filter of another version wants
    /// something that this one can't read: credentials for less than that must not be taken for it.
    pub fn is_understood(&self) -> bool {
        match &self.role {
            None => self.id == DEFAULT_ID,
            Some(role) => self.id == role.id(),
        }
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

/// The version of the listing. A change that a reader of this version would misunderstand raises it.
pub const PROTOCOL: u32 = 1;

/// The answer of `GET /v1/identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identities {
    /// [`PROTOCOL`] of the intake; 0 before there were versions, without generation and fingerprints.
    #[serde(default)]
    pub version: u32,
    /// Changes with each change of what is listed, and with a restart of the proxy.
    #[serde(default)]
    pub generation: u64,
    /// All identities that the loaded policies want, or a page of them.
    pub identities: Vec<IdentityStatus>,
    /// The id that the next page begins with; `None` on the last one, and if no page was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One wanted identity and what the proxy holds for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Which one.
    #[serde(flatten)]
    pub identity: Identity,
    /// What is held; `None` before the first push.
    pub held: Option<HeldCredentials>,
    /// The ids of access keys that a `DELETE` took away, latest last: none of them is taken again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<String>,
    /// Why nothing is used that is held, such as revocations that can't be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
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
    /// The salt that their pusher chose, a colon and the fingerprint under it; left out if the pusher chose none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl From<&Credentials> for HeldCredentials {
    fn from(credentials: &Credentials) -> Self {
        let fingerprint =
            credentials.fingerprint_salt().map(|salt| [salt, ":", &credentials.fingerprint(salt)].concat());
        Self {
            fingerprint,
            access_key_id: credentials.access_key_id().to_owned(),
            expiration: credentials.expiration().map(format_expiration),
        }
    }
}

impl HeldCredentials {
    /// Returns whether the fingerprint is that of `credentials`; false if there is none.
    pub fn matches(&self, credentials: &Credentials) -> bool {
        let (Some((salt, print)), id) =
            (self.fingerprint.as_deref().and_then(|print| print.rsplit_once(':')), &self.access_key_id)
        else {
            return false;
        };
        id == credentials.access_key_id() && print == credentials.fingerprint(salt)
    }

    /// The expiry as an instant; `None` for long-lived credentials or a text that is no instant.
    pub fn expires_at(&self) -> Option<SystemTime> {
        instant::parse_rfc3339(self.expiration.as_deref()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::credentials;

    const READER: &str = "arn:aws:iam::123456789012:role/path/orders-reader";

    fn reader(external_id: Option<&str>) -> Identity {
        let external_id = external_id.map(str::to_owned);
        Identity::assumed(Role { external_id, ..Role::new(READER, DEFAULT_SESSION_NAME) })
    }

    #[test]
    fn an_id_reads_well_and_tells_identities_apart() {
        let tags = |key: &str, value: &str| vec![(key.to_owned(), value.to_owned())];
        let plain = || Role::new(READER, DEFAULT_SESSION_NAME);
        let roles = [
            plain(),
            Role { external_id: Some("x".to_owned()), ..plain() },
            Role { duration_seconds: Some(900), ..plain() },
            Role { duration_seconds: Some(3600), ..plain() },
            Role { tags: tags("team", "a"), ..plain() },
            Role { tags: tags("team", "b"), ..plain() },
            Role { chain: vec![READER.to_owned()], ..plain() },
            Role { chain: vec![READER.to_owned(); 2], ..plain() },
        ];
        let ids: std::collections::HashSet<_> = roles.iter().map(Role::id).collect();
        assert_eq!(ids.len(), roles.len());
        assert!(ids.iter().all(|id| id.starts_with("orders-reader-")));
        assert_eq!(Identity::default_chain().id(), "default");
    }

    #[test]
    fn an_id_stays_what_it_was_before_roles_had_more_members() {
        assert_eq!(reader(None).id(), "orders-reader-61df6d51");
        assert_eq!(reader(Some("x")).id(), "orders-reader-fbb132fc");
    }

    #[test]
    fn what_a_later_version_wants_is_not_mistaken_for_what_this_one_knows() {
        let listed = |members: &str| serde_json::from_str::<IdentityStatus>(members).unwrap().identity;
        let role = r#""roleArn": "arn:aws:iam::123456789012:role/path/orders-reader", "roleSessionName": "tempAssumeRoleSession""#;
        let id = reader(None).id().to_owned();
        assert!(listed(r#"{"id": "default", "held": null}"#).is_understood());
        assert!(listed(&format!(r#"{{"id": "{id}", {role}, "held": null}}"#)).is_understood());
        assert!(
            !listed(&format!(r#"{{"id": "orders-reader-0a0b0c0d", {role}, "rolePolicy": "{{}}", "held": null}}"#))
                .is_understood()
        );
        assert!(
            !listed(r#"{"id": "user-0a0b0c0d", "userArn": "arn:aws:iam::123456789012:user/x", "held": null}"#)
                .is_understood()
        );
        assert!(!listed(&format!(r#"{{"id": "{id}", {role}, "roleTags": 5, "held": null}}"#)).is_understood());
    }

    #[test]
    fn the_listing_has_the_shape_of_the_contract() {
        let whole = Identity::assumed(Role {
            external_id: Some("x".to_owned()),
            duration_seconds: Some(900),
            tags: vec![("team".to_owned(), "a".to_owned())],
            chain: vec!["arn:aws:iam::123456789012:role/hub".to_owned()],
            ..Role::new(READER, "orders")
        });
        let listing = Identities {
            version: PROTOCOL,
            generation: 7,
            identities: vec![
                IdentityStatus {
                    identity: Identity::default_chain(),
                    held: Some(HeldCredentials {
                        access_key_id: "AKIDEXAMPLE".to_owned(),
                        expiration: Some("2026-01-02T03:04:05Z".to_owned()),
                        fingerprint: Some("salt:0a1b".to_owned()),
                    }),
                    revoked: Vec::new(),
                    problem: None,
                },
                IdentityStatus {
                    identity: reader(Some("x")),
                    held: None,
                    revoked: vec!["ASIAOLD".to_owned()],
                    problem: None,
                },
                IdentityStatus { identity: whole.clone(), held: None, revoked: Vec::new(), problem: None },
            ],
            next: None,
        };
        let json = serde_json::to_value(&listing).unwrap();
        let id = reader(Some("x")).id().to_owned();
        assert_eq!(
            json,
            serde_json::json!({"version": 1, "generation": 7, "identities": [
                {"id": "default", "held": {"accessKeyId": "AKIDEXAMPLE", "expiration": "2026-01-02T03:04:05Z",
                                           "fingerprint": "salt:0a1b"}},
                {"id": id, "roleArn": READER,
                 "roleSessionName": "tempAssumeRoleSession", "externalId": "x", "held": null,
                 "revoked": ["ASIAOLD"]},
                {"id": whole.id(), "roleArn": READER, "roleSessionName": "orders", "externalId": "x",
                 "roleDurationSeconds": 900, "roleTags": {"team": "a"},
                 "roleChain": ["arn:aws:iam::123456789012:role/hub"], "held": null},
            ]})
        );
        assert_eq!(serde_json::from_value::<Identities>(json).unwrap(), listing);
    }

    #[test]
    fn a_listing_of_an_earlier_version_is_read() {
        let json = r#"{"identities": [{"id": "default", "held": {"accessKeyId": "AKIDEXAMPLE"}}]}"#;
        let listing: Identities = serde_json::from_str(json).unwrap();
        assert_eq!((listing.version, listing.generation), (0, 0));
        assert_eq!(listing.identities[0].held.as_ref().unwrap().fingerprint, None);
    }

    #[test]
    fn held_credentials_match_those_with_the_same_secret_and_expiry() {
        let key = |secret: &str, salt: Option<&str>| {
            credentials("AKIDEXAMPLE", secret).with_fingerprint_salt(salt.map(str::to_owned))
        };
        let held = HeldCredentials::from(&key("secret", Some("a:b")));
        assert!(held.matches(&key("secret", Some("another"))) && held.matches(&key("secret", None)));
        assert!(!held.matches(&key("wrong", Some("a:b"))));
        assert!(!HeldCredentials::from(&key("secret", None)).matches(&key("secret", None)));
        let salt = HeldCredentials { fingerprint: Some("no colon".to_owned()), ..held };
        assert!(!salt.matches(&key("secret", None)));
    }
}
