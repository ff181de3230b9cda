//! Brings each proxy to hold what its policy wants.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use sigv4_core::credentials::{Credentials, HeldCredentials, Identity, IdentityStatus};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info, warn};
use wildmatch::WildMatch;

use crate::keeper::{Keeper, KeptIdentity};
use crate::proxy_client::{ProxyClient, ProxyError};
use crate::status::Status;

/// How often a proxy is looked at that does not answer, or that wants nothing yet.
const UNSETTLED_INTERVAL: Duration = Duration::from_millis(250);

/// The roles that may be assumed, whatever a proxy asks for.
#[derive(Debug, Clone)]
pub struct AllowedRoles(Vec<WildMatch>);

impl AllowedRoles {
    /// Identities of whose roles each one, of a chain too, matches a pattern; all of them where there is no pattern.
    pub fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| WildMatch::new(pattern)).collect())
    }

    fn allow(&self, identity: &Identity) -> bool {
        let Some(role) = identity.role() else {
            return true;
        };
        let matches = |arn: &str| self.0.iter().any(|pattern| pattern.matches(arn));
        self.0.is_empty() || role.path().all(matches)
    }
}

/// One proxy and what has been done for it.
#[derive(Debug)]
pub struct Proxy {
    client: ProxyClient,
    allowed_roles: AllowedRoles,
    status: Arc<Status>,
    /// Held on to while the proxy is down, so that it is supplied as soon as it is back.
    wanted: Vec<Arc<KeptIdentity>>,
    refused: HashMap<Identity, Refusal>,
    pushed: HashMap<Identity, HeldCredentials>,
    last_problem: Option<String>,
}

/// Why an identity that a proxy wants is not supplied.
#[derive(Debug)]
pub struct Unsupplied {
    /// The identity's id.
    pub identity: String,
    /// Why it is not.
    pub why: Lack,
}

/// Why there is nothing in the proxy yet.
#[derive(Debug)]
pub enum Lack {
    /// It is not supplied at all.
    Refused(Refusal),
    /// The source has not answered yet, or its last answer was this failure.
    NoCredentials(Option<String>),
    /// The proxy did not take them.
    PushFailed(ProxyError),
}

/// Why an identity is not supplied, whatever its source would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `--allow-role` does not cover one of its roles.
    NotAllowed,
    /// The proxy's filter is newer: it wants something of the session that this version knows nothing of.
    NotUnderstood,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAllowed => "no --allow-role covers every role of it",
            Self::NotUnderstood => {
                "the proxy wants more of it than this version knows of: upgrade credential-refresher"
            }
        })
    }
}

impl fmt::Display for Unsupplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.identity)?;
        match &self.why {
            Lack::Refused(refusal) => refusal.fmt(f),
            Lack::NoCredentials(Some(failure)) => f.write_str(failure),
            Lack::NoCredentials(None) => f.write_str("its source has not answered yet"),
            Lack::PushFailed(error) => error.fmt(f),
        }
    }
}

impl Proxy {
    /// A proxy that nothing is known of yet.
    pub fn new(client: ProxyClient, allowed_roles: AllowedRoles, status: Arc<Status>) -> Self {
        Self {
            client,
            allowed_roles,
            status,
            wanted: Vec::new(),
            refused: HashMap::new(),
            pushed: HashMap::new(),
            last_problem: None,
        }
    }

    /// Supplies the proxy for ever: looks at it every `interval`, as soon as there are new credentials, and at once when
    /// it has ended, so that it is supplied as soon as it is back.
    pub async fn keep_supplied(mut self, keeper: Arc<Keeper>, interval: Duration) {
        let mut renewals = keeper.renewals();
        let soon = interval.min(UNSETTLED_INTERVAL);
        loop {
            renewals.mark_unchanged();
            let last_look = Instant::now();
            // What goes wrong has been logged, and is tried again at the next look.
            let settled = self.reconcile(&keeper).await.is_ok() && !self.wants_nothing();
            tokio::select! {
                () = sleep_until(last_look + if settled { interval } else { soon }) => {}
                // The keeper, and with it the sender, lives as long as this task.
                _ = renewals.changed() => {}
                () = self.client.disconnected() => sleep_until(last_look + soon).await,
            }
        }
    }

    /// Supplies the proxy once, with all that it wants, and waits until `deadline` for what is not ready yet.
    ///
    /// # Errors
    /// What is missing at the deadline, one line each.
    pub async fn supply_once(
        mut self,
        keeper: Arc<Keeper>,
        interval: Duration,
        deadline: Instant,
    ) -> Result<(), Vec<String>> {
        let mut renewals = keeper.renewals();
        loop {
            renewals.mark_unchanged();
            let outcome = self.reconcile(&keeper).await;
            let may_change = match &outcome {
                Ok(_) if self.wants_nothing() => true,
                Ok(unsupplied) => unsupplied.iter().any(|unsupplied| !matches!(unsupplied.why, Lack::Refused(_))),
                Err(_) => true,
            };
            if !may_change || Instant::now() >= deadline {
                return self.verdict(outcome);
            }
            let next = deadline.min(Instant::now() + interval);
            let _ = timeout_at(next, renewals.changed()).await;
        }
    }

    fn verdict(&self, outcome: Result<Vec<Unsupplied>, ProxyError>) -> Result<(), Vec<String>> {
        let proxy = self.client.address();
        match outcome {
            Ok(_) if self.wants_nothing() => Err(vec![format!("{proxy}: wants no credentials: is its policy loaded?")]),
            Ok(unsupplied) if unsupplied.is_empty() => Ok(()),
            Ok(unsupplied) => Err(unsupplied.iter().map(|unsupplied| format!("{proxy}: {unsupplied}")).collect()),
            Err(error) => Err(vec![format!("{proxy}: {error}")]),
        }
    }

    /// A proxy that has just started may be asked before its policy is loaded.
    fn wants_nothing(&self) -> bool {
        self.wanted.is_empty() && self.refused.is_empty()
    }

    /// Asks the proxy what it wants and holds, and pushes what it lacks.
    ///
    /// # Errors
    /// A [`ProxyError`] where the proxy could not even be asked.
    async fn reconcile(&mut self, keeper: &Keeper) -> Result<Vec<Unsupplied>, ProxyError> {
        let outcome = self.supply(keeper).await;
        self.status.reconciled(self.client.address(), &outcome);
        outcome
    }

    async fn supply(&mut self, keeper: &Keeper) -> Result<Vec<Unsupplied>, ProxyError> {
        let listing = self.client.identities().await;
        self.note_whether_reached(listing.as_ref().err());
        let (mut allowed, mut refused) = (Vec::new(), HashMap::new());
        for status in listing?.identities {
            match self.refusal_of(&status.identity) {
                None => allowed.push(status),
                Some(refusal) => drop(refused.insert(status.identity, refusal)),
            }
        }
        let mut unsupplied = self.note_refused(refused);
        self.wanted = allowed.iter().map(|status| keeper.keep(&status.identity)).collect();
        for (kept, status) in self.wanted.iter().zip(&allowed) {
            kept.revoke(&status.revoked);
        }
        keeper.forget_unwanted();
        self.pushed.retain(|identity, _| allowed.iter().any(|status| status.identity == *identity));

        for (kept, status) in self.wanted.clone().iter().zip(&allowed) {
            let why = match kept.credentials() {
                None => Lack::NoCredentials(kept.failure()),
                Some(credentials) if self.is_supplied(status, &credentials) => continue,
                Some(credentials) => match self.push(kept.identity(), &credentials).await {
                    Ok(()) => {
                        self.pushed.insert(kept.identity().clone(), HeldCredentials::from(&*credentials));
                        continue;
                    }
                    Err(error @ ProxyError::Refused { .. }) => Lack::PushFailed(error),
                    // Not about these credentials: the next push would fare no better, and may take as long to fail.
                    Err(error) => return Err(error),
                },
            };
            unsupplied.push(Unsupplied { identity: status.identity.id().to_owned(), why });
        }
        Ok(unsupplied)
    }

    /// Whether the proxy may go on with what it holds. New credentials are always pushed, once; where somebody else has
    /// pushed since, theirs stay as long as they outlive ours. Two refreshers for one proxy thus don't take turns.
    fn is_supplied(&self, status: &IdentityStatus, credentials: &Credentials) -> bool {
        let Some(held) = &status.held else {
            return false;
        };
        let pushed_before = self.pushed.get(&status.identity).is_some_and(|pushed| pushed.are(credentials));
        held.are(credentials) || (pushed_before && outlives(held, credentials))
    }

    async fn push(&mut self, identity: &Identity, credentials: &Credentials) -> Result<(), ProxyError> {
        let told = HeldCredentials::from(credentials);
        let outcome = self.client.push(identity, credentials).await;
        let proxy = self.client.address();
        match outcome {
            Ok(()) => {
                self.status.pushed(proxy, true);
                info!(
                    %proxy,
                    identity = identity.id(),
                    access_key_id = told.access_key_id,
                    expires = told.expiration,
                    "pushed credentials"
                );
                Ok(())
            }
            Err(ProxyError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                debug!(%proxy, identity = identity.id(), "no policy wants this identity any longer");
                Ok(())
            }
            Err(error) => {
                self.status.pushed(proxy, false);
                warn!(%proxy, identity = identity.id(), %error, "the proxy did not take the credentials");
                Err(error)
            }
        }
    }

    /// A proxy that stays down is worth one line, not one each interval.
    fn note_whether_reached(&mut self, problem: Option<&ProxyError>) {
        let proxy = self.client.address();
        let problem = problem.map(ToString::to_string);
        match (&problem, &self.last_problem) {
            (Some(now), Some(before)) if now == before => debug!(%proxy, error = now, "still can't ask the proxy"),
            (Some(now), _) => {
                warn!(%proxy, error = now, "can't ask the proxy what it wants; trying again until it answers")
            }
            (None, Some(_)) => info!(%proxy, "the proxy answers again"),
            (None, None) => {}
        }
        self.last_problem = problem;
    }

    fn refusal_of(&self, identity: &Identity) -> Option<Refusal> {
        if !identity.is_understood() {
            Some(Refusal::NotUnderstood)
        } else if !self.allowed_roles.allow(identity) {
            Some(Refusal::NotAllowed)
        } else {
            None
        }
    }

    fn note_refused(&mut self, refused: HashMap<Identity, Refusal>) -> Vec<Unsupplied> {
        for (identity, refusal) in &refused {
            if !self.refused.contains_key(identity) {
                warn!(
                    proxy = %self.client.address(),
                    identity = identity.id(),
                    role = identity.role().map(|role| role.arn.as_str()),
                    reason = %refusal,
                    "the proxy wants an identity that it is not given"
                );
            }
        }
        self.refused = refused;
        let unsupplied = |(identity, refusal): (&Identity, &Refusal)| Unsupplied {
            identity: identity.id().to_owned(),
            why: Lack::Refused(*refusal),
        };
        self.refused.iter().map(unsupplied).collect()
    }
}

/// Whether what is held lasts longer than `credentials`. Long-lived ones of somebody else count for nothing: there is
/// no telling whether they still hold.
fn outlives(held: &HeldCredentials, credentials: &Credentials) -> bool {
    match (held.expires_at(), credentials.expiration()) {
        (Some(held), Some(ours)) => held >= ours && held > SystemTime::now(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use sigv4_core::credentials::Role;

    use super::*;

    #[test]
    fn a_pattern_covers_roles_and_never_stands_in_the_way_of_the_default_identity() {
        let role = |arn: &str| Identity::assumed(Role::new(arn, "s"));
        let allowed = AllowedRoles::new(&["arn:aws:iam::123456789012:role/*".to_owned()]);
        assert!(allowed.allow(&role("arn:aws:iam::123456789012:role/team/orders")));
        assert!(!allowed.allow(&role("arn:aws:iam::999999999999:role/orders")));
        assert!(!allowed.allow(&role("x:arn:aws:iam::123456789012:role/orders")));
        assert!(allowed.allow(&Identity::default_chain()));
        let spoke = "arn:aws:iam::123456789012:role/spoke";
        let behind = |hub: &str| Identity::assumed(Role { chain: vec![hub.to_owned()], ..Role::new(spoke, "s") });
        assert!(allowed.allow(&behind("arn:aws:iam::123456789012:role/hub")));
        assert!(!allowed.allow(&behind("arn:aws:iam::999999999999:role/hub")));
        assert!(AllowedRoles::new(&[]).allow(&role("arn:aws:iam::999999999999:role/orders")));
    }
}
