//! The identities that routes sign as.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// The default session name, as in the Backstage plugin.
pub const DEFAULT_SESSION_NAME: &str = "tempAssumeRoleSession";

/// A role to assume with STS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// The role's ARN.
    #[serde(rename = "roleArn")]
    pub arn: String,
    /// The session's name, as CloudTrail records it.
    #[serde(rename = "roleSessionName")]
    pub session_name: String,
    /// The external id that the role's trust policy requires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The length of a session; `None` for STS's default, an hour.
    #[serde(rename = "roleDurationSeconds", skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u32>,
    /// The session's tags, each a key and a value, sorted.
    #[serde(rename = "roleTags", default, with = "as_object", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// The ARNs of the roles to assume first, each with the credentials of the previous one.
    #[serde(rename = "roleChain", default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<String>,
    /// The person or workload on whose behalf the sessions act, as CloudTrail records it; every role of the chain gets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// The ARNs of the managed policies that limit the session, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_arns: Vec<String>,
    /// The inline policy that limits the session, as the JSON that STS receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<String>,
}

impl Role {
    /// Makes a role that is assumed with a session name and nothing else.
    pub fn new(arn: impl Into<String>, session_name: impl Into<String>) -> Self {
        Self {
            arn: arn.into(),
            session_name: session_name.into(),
            external_id: None,
            duration_seconds: None,
            tags: Vec::new(),
            chain: Vec::new(),
            source_identity: None,
            policy_arns: Vec::new(),
            session_policy: None,
        }
    }

    /// Returns the ARNs of all roles to assume, in order, this role's last.
    pub fn path(&self) -> impl Iterator<Item = &str> {
        self.chain.iter().chain([&self.arn]).map(String::as_str)
    }

    /// Returns the role's name and `digest_length` bytes of a digest of its settings: an id that is stable across restarts and
    /// readable in a log. Unset members do not enter the digest, so a new member changes no existing id.
    fn id(&self, digest_length: usize) -> String {
        let mut digest = Sha256::new();
        // Inlined at each call, it would add several KiB to the filter.
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
        if let Some(source) = &self.source_identity {
            add("sourceIdentity");
            add(source);
        }
        for arn in &self.policy_arns {
            add("policyArn");
            add(arn);
        }
        if let Some(policy) = &self.session_policy {
            add("sessionPolicy");
            add(policy);
        }
        let digest = digest.finalize();
        let name = self.arn.rsplit('/').next().unwrap_or_default().chars();
        let name: String = name.filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
        let digest = digest.get(..digest_length).unwrap_or_default();
        [&name, "-", &base16ct::lower::encode_string(digest)].concat()
    }
}

/// Pairs serialized as an object. (A `BTreeMap` would add more than ten KiB to the filter.)
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

/// The length of the digest in the id of a role that a policy names. Its author chooses all that enters the digest.
const NAMED_DIGEST: usize = 4;

/// The length of the digest in the id of a caller's role. Callers choose some of what enters it: a shorter one would let them
/// search for the id of another caller, and sign as that one.
const CALLER_DIGEST: usize = 16;

/// The id of the refresher's own credentials.
const DEFAULT_ID: &str = "default";

/// An identity that a route signs as: the refresher's own credentials, or a role assumed with them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    id: String,
    #[serde(flatten)]
    role: Option<Role>,
}

impl Identity {
    /// Returns the identity of AWS's provider chain, with the id `default`.
    pub fn default_chain() -> Self {
        Self { id: DEFAULT_ID.to_owned(), role: None }
    }

    /// Returns the identity of a role, with an id derived from its settings.
    pub fn assumed(role: Role) -> Self {
        Self { id: role.id(NAMED_DIGEST), role: Some(role) }
    }

    /// Returns the identity of a role with values of a caller. No caller can find values that make another one's id.
    pub fn assumed_for_caller(role: Role) -> Self {
        Self { id: role.id(CALLER_DIGEST), role: Some(role) }
    }

    /// Returns whether the id matches the settings that this version reads. If not, another version of the filter wants
    /// settings that this one can't read, and credentials without them must not be pushed for it.
    pub fn is_understood(&self) -> bool {
        match &self.role {
            None => self.id == DEFAULT_ID,
            Some(role) => [NAMED_DIGEST, CALLER_DIGEST].iter().any(|length| self.id == role.id(*length)),
        }
    }

    /// Returns the id that the intake uses, which needs no escape in a URL's path.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the role to assume; `None` for the chain's own credentials.
    pub fn role(&self) -> Option<&Role> {
        self.role.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "arn:aws:iam::123456789012:role/path/orders-reader";

    /// Session names of one role whose digests begin with the same four bytes: found in a second by trying.
    const COLLIDING: [&str; 2] = ["user-34839", "user-44019"];

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
            Role { source_identity: Some("a".to_owned()), ..plain() },
            Role { source_identity: Some("b".to_owned()), ..plain() },
            Role { policy_arns: vec!["a".to_owned()], ..plain() },
            Role { policy_arns: vec!["a".to_owned(), "b".to_owned()], ..plain() },
            Role { session_policy: Some("a".to_owned()), ..plain() },
            Role { session_policy: Some("b".to_owned()), ..plain() },
        ];
        let ids: std::collections::HashSet<_> = roles.iter().map(|role| role.id(NAMED_DIGEST)).collect();
        assert_eq!(ids.len(), roles.len());
        assert!(ids.iter().all(|id| id.starts_with("orders-reader-")));
        assert_eq!(Identity::default_chain().id(), "default");
    }

    #[test]
    fn values_that_a_caller_can_search_for_make_no_id_of_another_caller() {
        let [one, other] = COLLIDING.map(|name| Role::new("arn:aws:iam::123456789012:role/bedrock", name));
        assert_eq!(Identity::assumed(one.clone()).id(), Identity::assumed(other.clone()).id());
        let [one, other] = [one, other].map(Identity::assumed_for_caller);
        assert_ne!(one.id(), other.id());
        assert_eq!(one.id().len(), "bedrock-".len() + 32);
        assert!(one.is_understood() && other.is_understood());
    }

    #[test]
    fn an_id_stays_what_it_was_before_roles_had_more_members() {
        assert_eq!(reader(None).id(), "orders-reader-61df6d51");
        assert_eq!(reader(Some("x")).id(), "orders-reader-fbb132fc");
    }
}
