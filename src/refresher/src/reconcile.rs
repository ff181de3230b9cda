//! Supplies each proxy with the credentials that its policy requires.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use sigv4_core::credentials::{Credentials, Identity};
use sigv4_core::intake::{CredentialSummary, IdentityListing, IdentityStatus, NO_POLICY, PROTOCOL};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use wildmatch::WildMatch;

use crate::aws_source::SourceError;
use crate::metrics::Metrics;
use crate::proxy::{ProxyClient, ProxyError};
use crate::renewal::{self, RenewalHandle, RenewalPool};
use crate::unsupplied::{Denial, Supply, Unsupplied, UnsuppliedReason};

/// The interval for checking a proxy that does not answer, or that wants nothing yet.
const UNSETTLED_INTERVAL: Duration = Duration::from_millis(250);

/// The shortest time between two checks, however often the proxy reports a change.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// While many sources answer or fail, listing a proxy takes at most a fifth of the time, as a long listing costs it as
/// much as its requests do; but the pause between listings is bounded.
const LISTINGS_APART: u32 = 5;
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Somebody else's credentials that expire within this time are replaced by ours, if ours expire later.
const EXPIRES_SOON: Duration = Duration::from_secs(300);

/// The time for which a proxy may require nothing before that is logged: its policy may not be loaded yet.
const LOADING_TIME: Duration = Duration::from_secs(5);

/// The largest number of corrected fingerprints to remember. Each is of a secret that somebody else pushed under our
/// key.
const CORRECTED_MAX: usize = 256;

/// Credentials without a fingerprint are replaced so many times in this time, for one identity: whoever pushes them by hand
/// does so a few times, and what an intake never shows is not pushed without end.
const UNMARKED_MAX: u32 = 8;
const UNMARKED_INTERVAL: Duration = Duration::from_secs(10);

/// The identities that a proxy may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Allowed {
    roles: Vec<WildMatch>,
    default: bool,
    session_names: Vec<WildMatch>,
    external_ids: Vec<WildMatch>,
    source_identities: Vec<WildMatch>,
    tags: Vec<WildMatch>,
}

impl Allowed {
    /// Allows identities whose roles, those of the chain included, all match a pattern; without patterns, any role.
    /// Session names, external ids, source identities and tags (`key=value`) likewise.
    pub fn new(
        roles: &[String],
        default: bool,
        session_names: &[String],
        external_ids: &[String],
        source_identities: &[String],
        tags: &[String],
    ) -> Self {
        let bounds = [roles, session_names, external_ids, source_identities, tags];
        let compile = |patterns: &[String]| patterns.iter().map(|pattern| WildMatch::new(pattern)).collect();
        Self {
            roles: compile(roles),
            default: default || bounds.iter().all(|patterns| patterns.is_empty()),
            session_names: compile(session_names),
            external_ids: compile(external_ids),
            source_identities: compile(source_identities),
            tags: compile(tags),
        }
    }

    fn check(&self, identity: &Identity) -> Result<(), Denial> {
        let matches =
            |patterns: &[WildMatch], text: &str| patterns.is_empty() || patterns.iter().any(|p| p.matches(text));
        let Some(role) = identity.role() else {
            return if self.default { Ok(()) } else { Err(Denial::DefaultNotAllowed) };
        };
        if !role.path().all(|arn| matches(&self.roles, arn)) {
            Err(Denial::RoleNotAllowed)
        } else if !matches(&self.session_names, &role.session_name) {
            Err(Denial::SessionNotAllowed("session name", "--allow-session-name"))
        } else if !role.external_id.as_ref().is_none_or(|id| matches(&self.external_ids, id)) {
            Err(Denial::SessionNotAllowed("external id", "--allow-external-id"))
        } else if !role.source_identity.as_ref().is_none_or(|source| matches(&self.source_identities, source)) {
            Err(Denial::SessionNotAllowed("source identity", "--allow-source-identity"))
        } else if !role.tags.iter().all(|(key, value)| matches(&self.tags, &format!("{key}={value}"))) {
            Err(Denial::SessionNotAllowed("tags", "--allow-tag"))
        } else {
            Ok(())
        }
    }
}

/// One proxy and the state of its supply.
#[derive(Debug)]
pub struct ProxyReconciler {
    client: ProxyClient,
    allowed: Allowed,
    metrics: Arc<Metrics>,
    /// The last listing's generation; `None` if the proxy did not answer, or its filter predates generations.
    generation: Option<u64>,
    /// The time since which the proxy has required nothing, and whether that has been logged.
    requires_nothing: Option<(Instant, bool)>,
    /// Kept while the proxy is down, so that it is supplied as soon as it is back.
    wanted: Vec<Arc<RenewalHandle>>,
    refused: HashMap<Identity, Denial>,
    /// The credentials of each identity's source when the proxy was last supplied.
    pushed: HashMap<Identity, CredentialSummary>,
    /// The fingerprints under our access keys that were not ours.
    corrected: HashSet<(Identity, String)>,
    /// The first time, and the number of times, that credentials without a fingerprint were replaced.
    unmarked: HashMap<Identity, (Instant, u32)>,
    last_problem: Option<String>,
    /// The duration of the last listing.
    listing_took: Duration,
}

/// The outcome for one identity.
enum Outcome {
    /// The proxy holds credentials for it.
    Held,
    Lacking(UnsuppliedReason),
    /// No policy wants it any longer.
    Unwanted,
}

impl ProxyReconciler {
    /// Creates the reconciler of a proxy that has not been asked yet.
    pub fn new(client: ProxyClient, allowed: Allowed, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            allowed,
            metrics,
            generation: None,
            requires_nothing: None,
            wanted: Vec::new(),
            refused: HashMap::new(),
            pushed: HashMap::new(),
            corrected: HashSet::new(),
            unmarked: HashMap::new(),
            last_problem: None,
            listing_took: Duration::ZERO,
        }
    }

    /// Supplies the proxy until the program ends. Checks it every `interval`, when there are new credentials, and
    /// immediately when it reports a change or disconnects, so that it is supplied when it is back.
    pub async fn keep_supplied(mut self, pool: Arc<RenewalPool>, interval: Duration) {
        let mut renewals = pool.renewals();
        let soon = interval.min(UNSETTLED_INTERVAL);
        loop {
            renewals.mark_unchanged();
            let last_look = Instant::now();
            // Errors have been logged, and are retried at the next check.
            let supply = self.reconcile(&pool).await.ok();
            let settled = supply.as_ref().is_some_and(|supply| supply.requires);
            let pause = (LISTINGS_APART * self.listing_took).clamp(SHORTEST_INTERVAL, LONGEST_PAUSE);
            tokio::select! {
                () = sleep_until(last_look + if settled { interval } else { soon }) => {}
                () = expiry(supply.and_then(|supply| supply.expires)) => {}
                // The pool, and with it the sender, lives as long as this task.
                _ = renewals.changed() => sleep_until(last_look + pause).await,
                () = self.client.changed(self.generation) => {
                    let pause = if self.generation.is_some() { SHORTEST_INTERVAL } else { soon };
                    sleep_until(last_look + pause).await;
                }
            }
        }
    }

    /// Supplies the proxy once with everything that it wants, and waits until `deadline` for what is not ready yet.
    ///
    /// # Errors
    /// The identities that are missing at the deadline, one line each.
    pub async fn supply_once(
        mut self,
        pool: Arc<RenewalPool>,
        interval: Duration,
        deadline: Instant,
    ) -> Result<(), Vec<String>> {
        let mut renewals = pool.renewals();
        loop {
            renewals.mark_unchanged();
            let outcome = self.reconcile(&pool).await;
            let may_change = match &outcome {
                Ok(supply) if !supply.requires => true,
                Ok(supply) => {
                    supply.unsupplied.iter().any(|unsupplied| !matches!(unsupplied.why, UnsuppliedReason::Denied(_)))
                }
                Err(_) => true,
            };
            if !may_change || Instant::now() >= deadline {
                return self.verdict(outcome);
            }
            let next = deadline.min(Instant::now() + interval);
            let _ = timeout_at(next, renewals.changed()).await;
        }
    }

    fn verdict(&self, outcome: Result<Supply, ProxyError>) -> Result<(), Vec<String>> {
        let proxy = self.client.address();
        match outcome {
            Ok(supply) if !supply.requires => {
                Err(vec![format!("{proxy}: wants no credentials: is its policy loaded? {NO_POLICY}")])
            }
            Ok(Supply { unsupplied, .. }) if unsupplied.is_empty() => Ok(()),
            Ok(supply) => Err(supply.unsupplied.iter().map(|unsupplied| format!("{proxy}: {unsupplied}")).collect()),
            Err(error) => Err(vec![format!("{proxy}: {error}")]),
        }
    }

    /// Asks the proxy what it wants and holds, and pushes what it lacks.
    ///
    /// # Errors
    /// A [`ProxyError`] if the proxy could not even be asked.
    async fn reconcile(&mut self, pool: &RenewalPool) -> Result<Supply, ProxyError> {
        self.generation = None;
        let asked = Instant::now();
        let listing = self.client.identities().await;
        self.listing_took = asked.elapsed();
        self.note_whether_reached(listing.as_ref().err());
        let outcome = match listing {
            Ok(listing) => self.supply(pool, listing).await,
            Err(error) => Err(error),
        };
        self.metrics.reconciled(self.client.address(), &outcome);
        outcome
    }

    async fn supply(&mut self, pool: &RenewalPool, listing: IdentityListing) -> Result<Supply, ProxyError> {
        let has_versions = listing.version >= PROTOCOL;
        self.generation = has_versions.then_some(listing.generation);
        self.note_whether_required(listing.callers || !listing.identities.is_empty());
        let mut supply = summary(&listing);
        let (mut allowed, mut refused) = (Vec::new(), HashMap::new());
        for status in listing.identities {
            match self.check(&status.identity, has_versions) {
                Ok(()) => allowed.push(status),
                Err(denial) => drop(refused.insert(status.identity, denial)),
            }
        }
        supply.unsupplied = self.note_refused(refused);
        let proxy = self.client.address().to_string();
        let required: HashSet<_> = allowed.iter().map(|status| &status.identity).collect();
        for kept in self.wanted.iter().filter(|kept| !required.contains(kept.identity())) {
            // What this proxy no longer requires it no longer lists as revoked.
            kept.note_revoked(proxy.clone(), &[]);
        }
        self.wanted = allowed.iter().map(|status| pool.acquire(&status.identity)).collect();
        for (kept, status) in self.wanted.iter().zip(&allowed) {
            kept.note_revoked(proxy.clone(), &status.revoked);
        }
        pool.forget_unwanted();
        let wanted: HashSet<_> = allowed.iter().map(|status| &status.identity).collect();
        self.pushed.retain(|identity, _| wanted.contains(identity));
        self.corrected.retain(|(identity, _)| wanted.contains(identity));
        self.unmarked.retain(|identity, _| wanted.contains(identity));

        for (kept, status) in self.wanted.clone().iter().zip(&allowed) {
            match self.supply_identity(kept, status, has_versions).await? {
                Outcome::Held => supply.holds = true,
                Outcome::Unwanted => {}
                Outcome::Lacking(why) => {
                    supply.unsupplied.push(Unsupplied { identity: status.identity.id().to_owned(), why });
                }
            }
        }
        Ok(supply)
    }

    /// Pushes an identity's credentials if the proxy lacks them.
    async fn supply_identity(
        &mut self,
        kept: &RenewalHandle,
        status: &IdentityStatus,
        has_versions: bool,
    ) -> Result<Outcome, ProxyError> {
        let Some(credentials) = kept.credentials() else {
            return Ok(Outcome::Lacking(UnsuppliedReason::NoCredentials(kept.failure())));
        };
        let access_key_id = credentials.access_key_id();
        if status.revoked.iter().any(|revoked| revoked == access_key_id) {
            // Somebody else's credentials may be held, and serve.
            if status.held.as_ref().is_some_and(|held| is_unexpired(held, SystemTime::now())) {
                return Ok(Outcome::Held);
            }
            let revoked = SourceError::Revoked { access_key_id: access_key_id.to_owned() };
            return Ok(Outcome::Lacking(UnsuppliedReason::Revoked(revoked.to_string())));
        }
        let ours = CredentialSummary::from(&*credentials);
        if self.must_push(status, &credentials, &ours, has_versions) {
            match self.push(kept.identity(), &credentials, &ours).await {
                Ok(true) => {}
                Ok(false) => return Ok(Outcome::Unwanted),
                Err(error @ ProxyError::Refused { .. }) => {
                    return Ok(Outcome::Lacking(UnsuppliedReason::PushFailed(error)));
                }
                // Not specific to these credentials: the next push would also fail, and may take as long.
                Err(error) => return Err(error),
            }
        }
        self.pushed.insert(kept.identity().clone(), ours);
        Ok(Outcome::Held)
    }

    /// Returns whether to push `credentials`: if the proxy holds none, if our source has changed since we last supplied
    /// it, if somebody else's are about to expire, or if it holds another secret under our access key. Another access
    /// key is otherwise left alone, so that two refreshers for one proxy don't take turns.
    fn must_push(
        &mut self,
        status: &IdentityStatus,
        credentials: &Credentials,
        ours: &CredentialSummary,
        has_versions: bool,
    ) -> bool {
        let Some(held) = &status.held else {
            return true;
        };
        let is_new = self.pushed.get(&status.identity) != Some(ours);
        if held.access_key_id != ours.access_key_id {
            return is_new || outlasts(credentials, held, SystemTime::now());
        }
        if !has_versions {
            return held.expiration != ours.expiration && (is_new || outlasts(credentials, held, SystemTime::now()));
        }
        // Of one access key, too, others may have credentials that expire earlier.
        let is_due = is_new || outlasts(credentials, held, SystemTime::now());
        !held.matches(credentials) && (is_due || self.may_correct(&status.identity, held))
    }

    /// Returns whether to replace what the proxy holds under our access key: once for each fingerprint, as either of
    /// two refreshers with different secrets for one access key may be wrong. Credentials pushed by hand have no
    /// fingerprint, and are always replaced.
    fn may_correct(&mut self, identity: &Identity, held: &CredentialSummary) -> bool {
        let access_key_id = &held.access_key_id;
        // Another refresher may push without a fingerprint what it is right about.
        if held.fingerprint.is_none() {
            let (since, count) = self.unmarked.entry(identity.clone()).or_insert_with(|| (Instant::now(), 0));
            if since.elapsed() >= UNMARKED_INTERVAL {
                (*since, *count) = (Instant::now(), 0);
            }
            *count += 1;
            if *count > UNMARKED_MAX {
                return false;
            }
        }
        if let Some(fingerprint) = &held.fingerprint {
            if self.corrected.len() >= CORRECTED_MAX {
                self.corrected.clear();
            }
            if !self.corrected.insert((identity.clone(), fingerprint.clone())) {
                return false;
            }
        }
        warn!(
            proxy = %self.client.address(),
            identity = identity.id(),
            access_key_id,
            "the proxy holds another secret, token or expiry under this access key; replacing it"
        );
        true
    }

    /// Pushes credentials. Returns `false` if no policy wants the identity any longer.
    async fn push(
        &mut self,
        identity: &Identity,
        credentials: &Credentials,
        summary: &CredentialSummary,
    ) -> Result<bool, ProxyError> {
        let outcome = self.client.push(identity, credentials).await;
        let proxy = self.client.address();
        match outcome {
            Ok(()) => {
                self.metrics.pushed(proxy, true);
                info!(
                    %proxy,
                    identity = identity.id(),
                    access_key_id = summary.access_key_id,
                    expires = summary.expiration,
                    "pushed credentials"
                );
                Ok(true)
            }
            Err(ProxyError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                debug!(%proxy, identity = identity.id(), "no policy wants this identity any longer");
                Ok(false)
            }
            Err(error) => {
                self.metrics.pushed(proxy, false);
                warn!(%proxy, identity = identity.id(), %error, "can't push the credentials");
                Err(error)
            }
        }
    }

    /// Logs whether the proxy answered: one line while it stays down, not one each interval.
    fn note_whether_reached(&mut self, problem: Option<&ProxyError>) {
        let proxy = self.client.address();
        let problem = problem.map(ToString::to_string);
        match (&problem, &self.last_problem) {
            (Some(now), Some(before)) if now == before => debug!(%proxy, error = now, "still can't ask the proxy"),
            (Some(now), _) => {
                warn!(%proxy, error = now, "can't ask the proxy what it wants; retrying until it answers")
            }
            (None, Some(_)) => info!(%proxy, "the proxy answers again"),
            (None, None) => {}
        }
        self.last_problem = problem;
    }

    fn check(&self, identity: &Identity, has_versions: bool) -> Result<(), Denial> {
        match identity.is_understood() {
            false if has_versions => Err(Denial::NotUnderstood),
            false => Err(Denial::OlderIntake),
            true => self.allowed.check(identity),
        }
    }

    /// Warns if the proxy requires nothing: its requests get 503 while everything else looks healthy.
    fn note_whether_required(&mut self, requires: bool) {
        if requires {
            self.requires_nothing = None;
            return;
        }
        let (since, logged) = self.requires_nothing.get_or_insert_with(|| (Instant::now(), false));
        if !*logged && since.elapsed() >= LOADING_TIME {
            *logged = true;
            warn!(proxy = %self.client.address(), reason = NO_POLICY, "the proxy requires no credentials");
        }
    }

    fn note_refused(&mut self, refused: HashMap<Identity, Denial>) -> Vec<Unsupplied> {
        for (identity, denial) in &refused {
            if !self.refused.contains_key(identity) {
                warn!(
                    proxy = %self.client.address(),
                    identity = identity.id(),
                    role = identity.role().map(|role| role.arn.as_str()),
                    reason = %denial,
                    "not supplying an identity that the proxy wants"
                );
            }
        }
        self.refused = refused;
        let unsupplied = |(identity, denial): (&Identity, &Denial)| Unsupplied {
            identity: identity.id().to_owned(),
            why: UnsuppliedReason::Denied(*denial),
        };
        self.refused.iter().map(unsupplied).collect()
    }
}

/// Returns the state that a listing describes, before anything is pushed.
fn summary(listing: &IdentityListing) -> Supply {
    let now = SystemTime::now();
    let all = &listing.identities;
    let held = |status: &IdentityStatus| status.held.as_ref().is_some_and(|held| is_unexpired(held, now));
    Supply {
        unsupplied: Vec::new(),
        requires: listing.callers || !all.is_empty(),
        // What callers require may lack a source through their own fault.
        holds: all.iter().any(held) || (listing.callers && all.iter().all(|status| status.caller)),
        was_supplied: all.iter().any(|status| status.held.is_some()),
        expires: all.iter().filter_map(|status| status.held.as_ref()?.expires_at()).filter(|at| *at > now).min(),
    }
}

/// Waits until `at`; forever if it is `None`.
async fn expiry(at: Option<SystemTime>) {
    match at {
        Some(at) => renewal::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}

fn is_unexpired(held: &CredentialSummary, now: SystemTime) -> bool {
    held.expires_at().is_none_or(|at| at > now)
}

/// Returns whether somebody else's credentials are about to expire, and `ours` expire later.
fn outlasts(ours: &Credentials, held: &CredentialSummary, now: SystemTime) -> bool {
    let lasts_longer = |at| ours.expiration().is_none_or(|ours| ours > at);
    held.expires_at().is_some_and(|at| at < now + EXPIRES_SOON && lasts_longer(at))
}

#[cfg(test)]
mod tests {
    use sigv4_core::credentials::Role;

    use super::*;

    fn allowed(roles: &[&str], default: bool) -> Allowed {
        let roles: Vec<_> = roles.iter().map(|&role| role.to_owned()).collect();
        Allowed::new(&roles, default, &[], &[], &[], &[])
    }

    #[test]
    fn a_pattern_covers_every_role_of_a_chain() {
        let role = |arn: &str| Identity::assumed(Role::new(arn, "s"));
        let check = |identity: &Identity| allowed(&["arn:aws:iam::123456789012:role/*"], false).check(identity);
        let refused = Err(Denial::RoleNotAllowed);
        assert_eq!(check(&role("arn:aws:iam::123456789012:role/team/orders")), Ok(()));
        assert_eq!(check(&role("arn:aws:iam::999999999999:role/orders")), refused);
        assert_eq!(check(&role("x:arn:aws:iam::123456789012:role/orders")), refused);
        let spoke = "arn:aws:iam::123456789012:role/spoke";
        let behind = |hub: &str| Identity::assumed(Role { chain: vec![hub.to_owned()], ..Role::new(spoke, "s") });
        assert_eq!(check(&behind("arn:aws:iam::123456789012:role/hub")), Ok(()));
        assert_eq!(check(&behind("arn:aws:iam::999999999999:role/hub")), refused);
        assert_eq!(allowed(&[], false).check(&role("arn:aws:iam::999999999999:role/orders")), Ok(()));
    }

    #[test]
    fn the_base_identity_needs_a_permission_of_its_own_once_roles_are_bounded() {
        let default = Identity::default_chain();
        assert_eq!(allowed(&[], false).check(&default), Ok(()));
        assert_eq!(allowed(&["arn:*"], false).check(&default), Err(Denial::DefaultNotAllowed));
        assert_eq!(allowed(&["arn:*"], true).check(&default), Ok(()));
    }

    #[test]
    fn names_external_ids_source_identities_and_tags_of_a_session_can_be_bounded() {
        let bounds = |text: &str| vec![text.to_owned()];
        let allowed = Allowed::new(&[], false, &bounds("app-*"), &bounds("x-?"), &bounds("*@a"), &bounds("team=*"));
        let role = || Role {
            external_id: Some("x-1".to_owned()),
            source_identity: Some("me@a".to_owned()),
            tags: vec![("team".to_owned(), "orders".to_owned())],
            ..Role::new("arn:aws:iam::123456789012:role/r", "app-1")
        };
        let check = |role: Role| allowed.check(&Identity::assumed(role));
        assert_eq!(check(role()), Ok(()));
        assert_eq!(check(Role { external_id: None, source_identity: None, tags: Vec::new(), ..role() }), Ok(()));
        let told = |role: Role| check(role).unwrap_err().to_string();
        assert!(told(Role { session_name: "other".to_owned(), ..role() }).contains("--allow-session-name"));
        assert!(told(Role { external_id: Some("y-1".to_owned()), ..role() }).contains("--allow-external-id"));
        assert!(told(Role { source_identity: Some("me@b".to_owned()), ..role() }).contains("--allow-source-identity"));
        let tags = vec![("team".to_owned(), "a".to_owned()), ("admin".to_owned(), "yes".to_owned())];
        assert!(told(Role { tags, ..role() }).contains("--allow-tag"));
    }

    #[test]
    fn a_proxy_is_ready_that_can_sign_for_somebody_or_could_until_a_source_failed() {
        let lacking = |why| vec![Unsupplied { identity: "x".to_owned(), why }];
        let failed = || lacking(UnsuppliedReason::NoCredentials(Some("no".to_owned())));
        let pending = || lacking(UnsuppliedReason::NoCredentials(None));
        let revoked = || lacking(UnsuppliedReason::Revoked("no".to_owned()));
        for (requires, holds, was_supplied, unsupplied, ready) in [
            (false, false, false, Vec::new(), false),
            (true, true, true, failed(), true),
            (true, false, false, failed(), false),
            (true, false, true, failed(), true),
            (true, false, true, pending(), false),
            (true, false, true, revoked(), false),
            (true, true, true, revoked(), true),
        ] {
            let supply = Supply { unsupplied, requires, holds, was_supplied, expires: None };
            assert_eq!(supply.is_ready(), ready, "{supply:?}");
        }
    }
}
