//! The role of a route, and its session.

use crate::credentials::{DEFAULT_SESSION_NAME, Role};

use super::super::document::{Entries, RawJson, RouteDocument, WholeNumber};
use super::super::error::{Location, PolicyError};
use super::super::iam_names::{is_iam_arn, is_session_word, is_tag_character, is_tag_value, is_word};
use super::super::role_template::{check_is_fixed, sample};
use super::session_policy::{policy_arns, session_policy};

/// The shortest and longest session, in seconds. Source: STS API reference, AssumeRole, `DurationSeconds`.
const DURATION_MIN: u32 = 900;
const DURATION_MAX: u32 = 43_200;

/// Source: IAM User Guide, "Role chaining".
const CHAINED_DURATION_MAX: u32 = 3600;

/// Source: STS API reference, AssumeRole, `Tags`; it and its type `Tag` define the other bounds too.
const TAGS_MAX: usize = 50;

/// The settings of a route's role.
pub(super) struct RoleSettings {
    arn: Option<String>,
    session_name: Option<String>,
    external_id: Option<String>,
    duration_seconds: Option<WholeNumber>,
    tags: Option<Entries<String>>,
    chain: Option<Vec<String>>,
    source_identity: Option<String>,
    policy_arns: Option<Vec<String>>,
    session_policy: Option<RawJson>,
}

impl RoleSettings {
    /// Takes the settings from a route's document.
    pub(super) fn take(document: &mut RouteDocument) -> Self {
        Self {
            arn: document.role_arn.take(),
            session_name: document.role_session_name.take(),
            external_id: document.external_id.take(),
            duration_seconds: document.role_duration_seconds.take(),
            tags: document.role_tags.take(),
            chain: document.role_chain.take(),
            source_identity: document.source_identity.take(),
            policy_arns: document.policy_arns.take(),
            session_policy: document.session_policy.take(),
        }
    }

    /// Compiles the role. Source: IAM and STS API references, the patterns and lengths of AssumeRole's parameters.
    pub(super) fn compile(self, location: &Location) -> Result<Option<Role>, PolicyError> {
        let Some(arn) = &self.arn else { return self.without_role(location) };
        check_role_arn(arn, &location.key("roleArn"))?;
        check_session_word(self.session_name.as_deref(), &location.key("roleSessionName"))?;
        if let Some(id) = &self.external_id
            && (!(2..=1224).contains(&id.len()) || !id.bytes().all(|b| is_word(b, b"+=,.@:/-")))
        {
            return Err(location.key("externalId").error("must be 2 to 1224 letters, digits and _+=,.@:/-"));
        }
        let chain = role_chain(self.chain, &location.key("roleChain"))?;
        check_session_word(self.source_identity.as_deref(), &location.key("sourceIdentity"))?;
        let policy_arns = policy_arns(self.policy_arns, arn, &location.key("policyArns"))?;
        Ok(Some(Role {
            arn: arn.clone(),
            session_name: self.session_name.unwrap_or_else(|| DEFAULT_SESSION_NAME.to_owned()),
            external_id: self.external_id,
            duration_seconds: role_duration(self.duration_seconds, &chain, &location.key("roleDurationSeconds"))?,
            tags: role_tags(self.tags, &location.key("roleTags"))?,
            chain,
            source_identity: self.source_identity,
            session_policy: session_policy(self.session_policy, &policy_arns, &location.key("sessionPolicy"))?,
            policy_arns,
        }))
    }

    /// Checks that a route without a role has no settings of one.
    fn without_role(&self, location: &Location) -> Result<Option<Role>, PolicyError> {
        let members = [
            ("roleSessionName", self.session_name.is_some()),
            ("externalId", self.external_id.is_some()),
            ("roleDurationSeconds", self.duration_seconds.is_some()),
            ("roleTags", self.tags.is_some()),
            ("roleChain", self.chain.is_some()),
            ("sourceIdentity", self.source_identity.is_some()),
            ("policyArns", self.policy_arns.is_some()),
            ("sessionPolicy", self.session_policy.is_some()),
        ];
        match members.into_iter().find(|(_, is_written)| *is_written) {
            Some((key, _)) => Err(location.key(key).error("belongs to a role; add \"roleArn\", or remove this")),
            None => Ok(None),
        }
    }
}

/// Checks a session's name or source identity. AWS reserves those that begin with `aws:`, which has no allowed colon.
fn check_session_word(word: Option<&str>, location: &Location) -> Result<(), PolicyError> {
    match word {
        Some(word) if !is_session_word(&sample(word)) => {
            Err(location.error("must be 2 to 64 letters, digits and _+=,.@-"))
        }
        _ => Ok(()),
    }
}

fn role_chain(written: Option<Vec<String>>, location: &Location) -> Result<Vec<String>, PolicyError> {
    let Some(chain) = written else { return Ok(Vec::new()) };
    if chain.is_empty() {
        return Err(location.error("is empty; list the roles to assume before roleArn, or remove this"));
    }
    for (i, arn) in chain.iter().enumerate() {
        check_is_fixed(arn, &location.index(i))?;
        check_role_arn(arn, &location.index(i))?;
    }
    Ok(chain)
}

fn role_duration(
    written: Option<WholeNumber>,
    chain: &[String],
    location: &Location,
) -> Result<Option<u32>, PolicyError> {
    let Some(WholeNumber(seconds)) = written else { return Ok(None) };
    let longest = if chain.is_empty() { DURATION_MAX } else { CHAINED_DURATION_MAX };
    match u32::try_from(seconds) {
        Ok(seconds) if (DURATION_MIN..=longest).contains(&seconds) => Ok(Some(seconds)),
        Ok(seconds) if (CHAINED_DURATION_MAX..=DURATION_MAX).contains(&seconds) => {
            Err(location.error(format!(
                "{seconds} is too long: AWS limits a session obtained through a roleChain to one hour; use at most {longest}"
            )))
        }
        _ => Err(location.error(format!("{seconds} is out of range; use {DURATION_MIN} to {longest}"))),
    }
}

fn role_tags(written: Option<Entries<String>>, location: &Location) -> Result<Vec<(String, String)>, PolicyError> {
    let Some(Entries(mut tags)) = written else { return Ok(Vec::new()) };
    if tags.len() > TAGS_MAX {
        return Err(location.error(format!("has {} tags; use at most {TAGS_MAX}", tags.len())));
    }
    for (i, (key, value)) in tags.iter().enumerate() {
        let location = location.key(key);
        if !(1..=128).contains(&key.chars().count()) || !key.chars().all(is_tag_character) {
            return Err(location.error("the key must be 1 to 128 letters, digits, blanks and _.:/=+-@"));
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(location.error("keys that begin with aws: are reserved by AWS; use another"));
        }
        if !is_tag_value(&sample(value)) {
            return Err(location.error("the value must be up to 256 letters, digits, blanks and _.:/=+-@"));
        }
        // AWS treats them as one key.
        if let Some((twin, _)) = tags.iter().take(i).find(|(other, _)| other.eq_ignore_ascii_case(key)) {
            return Err(location.error(format!("is {twin:?} in another spelling; keep one")));
        }
    }
    // Order is not significant.
    tags.sort_unstable();
    Ok(tags)
}

/// Checks a role's ARN, whatever its placeholders stand for.
fn check_role_arn(arn: &str, location: &Location) -> Result<(), PolicyError> {
    if is_iam_arn(&sample(arn), "role/") {
        return Ok(());
    }
    Err(location.error(format!("{arn:?} is not the ARN of an IAM role; use arn:aws:iam::123456789012:role/name")))
}
