//! The JSON of the listing and of the readiness, which the intake writes and the refresher reads.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::credentials::{
    CredentialStore, Credentials, Identity, Requirements, SetError, SharedData, format_expiration,
};
use crate::instant;

/// A page of the listing ends after the identity that makes it exceed this many bytes. It bounds the memory of the caller
/// and of the virtual machine.
pub(super) const PAGE: usize = 8 << 20;

/// The problem of an intake whose `vm_id` no signer shares.
pub const NO_POLICY: &str = "no policy is loaded under the intake's vm_id: give the signer's plugin the same vm_id";

/// The version of the listing. A breaking change increments it.
pub const PROTOCOL: u32 = 1;

/// The answer of `GET /v1/identities`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityListing {
    /// [`PROTOCOL`] of the intake; 0 for intakes without a version, generation and fingerprints.
    #[serde(default)]
    pub version: u32,
    /// A number that changes with each change of the listing, and with a restart of the proxy.
    #[serde(default)]
    pub generation: u64,
    /// All identities that the loaded policies require, or a page of them.
    pub identities: Vec<IdentityStatus>,
    /// `true` if a policy has routes whose identities come with their callers, so that there may be none yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub callers: bool,
    /// The id that the next page begins with; `None` on the last page, or if no page was requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A required identity and the credentials that the proxy holds for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// The identity.
    #[serde(flatten)]
    pub identity: Identity,
    /// The credentials held; `None` before the first push.
    pub held: Option<CredentialSummary>,
    /// The ids of access keys that a `DELETE` revoked, latest last. They are not accepted again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<String>,
    /// `true` if only a caller requires it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub caller: bool,
    /// The reason why the credentials are not used, such as unreadable revocations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The public properties of held credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialSummary {
    /// The access key's id.
    pub access_key_id: String,
    /// The time at which they expire, RFC 3339; omitted for long-lived ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// The salt that their pusher chose, a colon and the fingerprint; omitted if there is no salt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

impl From<&Credentials> for CredentialSummary {
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

impl CredentialSummary {
    /// Returns whether the fingerprint is that of `credentials`; false if there is none.
    pub fn matches(&self, credentials: &Credentials) -> bool {
        let (Some((salt, print)), id) =
            (self.fingerprint.as_deref().and_then(|print| print.rsplit_once(':')), &self.access_key_id)
        else {
            return false;
        };
        id == credentials.access_key_id() && print == credentials.fingerprint(salt)
    }

    /// Returns the expiry as an instant; `None` for long-lived credentials or a text that is not an instant.
    pub fn expires_at(&self) -> Option<SystemTime> {
        instant::parse_rfc3339(self.expiration.as_deref()?).ok()
    }
}

impl IdentityListing {
    /// Lists required identities and held credentials: all of them, or a page that begins with an id.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub(super) fn read(store: &CredentialStore<impl SharedData>, from: Option<&[u8]>) -> Result<Self, SetError> {
        // Read before the listing, so that a concurrent change ends the next wait.
        let generation = store.generation();
        let Requirements { takes_callers, identities: required, .. } = store.requirements()?;
        let mut required = required.into_iter().peekable();
        let (mut identities, mut size) = (Vec::new(), 0);
        while let Some((identity, is_callers)) = required.next_if(|_| size <= PAGE) {
            if from.is_some_and(|from| identity.id().as_bytes() < from) {
                continue;
            }
            let status = IdentityStatus { caller: is_callers, ..describe(store, identity) };
            if from.is_some() {
                size += serde_json::to_vec(&status).map_or(0, |json| json.len());
            }
            identities.push(status);
        }
        let next = required.next().map(|(identity, _)| identity.id().to_owned());
        Ok(Self { version: PROTOCOL, generation, identities, callers: takes_callers, next })
    }
}

fn describe(store: &CredentialStore<impl SharedData>, identity: Identity) -> IdentityStatus {
    let held = store.get(identity.id()).as_ref().map(CredentialSummary::from);
    let (revoked, problem) = match store.revoked(identity.id()) {
        Ok(revoked) => (revoked, None),
        Err(error) => (Vec::new(), Some(unreadable(error))),
    };
    IdentityStatus { identity, held, revoked, problem, caller: false }
}

/// The answer of `GET /v1/status`.
#[derive(Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    missing: Vec<String>,
    expired: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Readiness {
    /// Returns whether a policy is loaded and every identity that it names holds unexpired credentials.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub(super) fn read(store: &CredentialStore<impl SharedData>, now: SystemTime) -> Result<Self, SetError> {
        // A caller whose role does not exist must not make the proxy unready.
        let required = store.requirements()?;
        let mut readiness = Self { ready: required.is_loaded, missing: Vec::new(), expired: Vec::new(), problem: None };
        if !required.is_loaded {
            readiness.problem = Some(NO_POLICY.to_owned());
        }
        let named = required.identities.into_iter().filter(|(_, is_callers)| !is_callers);
        for (identity, _) in named {
            match store.get(identity.id()) {
                Some(credentials) if credentials.hold_at(now) => continue,
                Some(_) => readiness.expired.push(identity.id().to_owned()),
                None => readiness.missing.push(identity.id().to_owned()),
            }
            readiness.ready = false;
            if let Err(error) = store.revoked(identity.id()) {
                readiness.problem = Some(format!("{}: {}", identity.id(), unreadable(error)));
            }
        }
        Ok(readiness)
    }
}

/// Returns the problem of an identity whose revocations can't be read.
fn unreadable(error: SetError) -> String {
    format!("its revocations can't be read, so nothing is signed for it: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{DEFAULT_SESSION_NAME, Role};
    use crate::test_support::credentials;

    const READER: &str = "arn:aws:iam::123456789012:role/path/orders-reader";

    fn reader(external_id: Option<&str>) -> Identity {
        let external_id = external_id.map(str::to_owned);
        Identity::assumed(Role { external_id, ..Role::new(READER, DEFAULT_SESSION_NAME) })
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
    fn a_session_is_not_understood_without_one_of_its_limits() {
        let whole = Identity::assumed(Role {
            source_identity: Some("me".to_owned()),
            policy_arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()],
            session_policy: Some(r#"{"Statement":[]}"#.to_owned()),
            ..Role::new(READER, "orders")
        });
        let listed = serde_json::to_value(&whole).unwrap();
        let read = |json: serde_json::Value| serde_json::from_value::<Identity>(json).unwrap();
        assert!(read(listed.clone()).is_understood());
        for member in ["sourceIdentity", "policyArns", "sessionPolicy"] {
            // As a version reads it that does not know the member.
            let mut lacking = listed.clone();
            lacking.as_object_mut().unwrap().remove(member).unwrap();
            assert!(!read(lacking).is_understood(), "without {member}");
        }
    }

    #[test]
    fn the_listing_has_the_shape_of_the_contract() {
        let whole = Identity::assumed(Role {
            external_id: Some("x".to_owned()),
            duration_seconds: Some(900),
            tags: vec![("team".to_owned(), "a".to_owned())],
            chain: vec!["arn:aws:iam::123456789012:role/hub".to_owned()],
            source_identity: Some("me".to_owned()),
            policy_arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".to_owned()],
            session_policy: Some(r#"{"Statement":[]}"#.to_owned()),
            ..Role::new(READER, "orders")
        });
        let held = CredentialSummary {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            expiration: Some("2026-01-02T03:04:05Z".to_owned()),
            fingerprint: Some("salt:0a1b".to_owned()),
        };
        let status = |identity, held, revoked: &[&str]| {
            let revoked = revoked.iter().map(|id| (*id).to_owned()).collect();
            IdentityStatus { identity, held, revoked, problem: None, caller: false }
        };
        let listing = IdentityListing {
            version: PROTOCOL,
            generation: 7,
            identities: vec![
                status(Identity::default_chain(), Some(held), &[]),
                status(reader(Some("x")), None, &["ASIAOLD"]),
                status(whole.clone(), None, &[]),
            ],
            callers: false,
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
                 "roleChain": ["arn:aws:iam::123456789012:role/hub"], "sourceIdentity": "me",
                 "policyArns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
                 "sessionPolicy": "{\"Statement\":[]}", "held": null},
            ]})
        );
        assert_eq!(serde_json::from_value::<IdentityListing>(json).unwrap(), listing);
    }

    #[test]
    fn a_listing_of_an_earlier_version_is_read() {
        let json = r#"{"identities": [{"id": "default", "held": {"accessKeyId": "AKIDEXAMPLE"}}]}"#;
        let listing: IdentityListing = serde_json::from_str(json).unwrap();
        assert_eq!((listing.version, listing.generation), (0, 0));
        assert_eq!(listing.identities[0].held.as_ref().unwrap().fingerprint, None);
    }

    #[test]
    fn held_credentials_match_those_with_the_same_secret_and_expiry() {
        let key = |secret: &str, salt: Option<&str>| {
            credentials("AKIDEXAMPLE", secret).with_fingerprint_salt(salt.map(str::to_owned))
        };
        let held = CredentialSummary::from(&key("secret", Some("a:b")));
        assert!(held.matches(&key("secret", Some("another"))) && held.matches(&key("secret", None)));
        assert!(!held.matches(&key("wrong", Some("a:b"))));
        assert!(!CredentialSummary::from(&key("secret", None)).matches(&key("secret", None)));
        let salt = CredentialSummary { fingerprint: Some("no colon".to_owned()), ..held };
        assert!(!salt.matches(&key("secret", None)));
    }
}
