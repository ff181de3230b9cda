//! Keeps the credentials of every wanted identity fresh, each in a task of its own: a role that can't be assumed delays
//! no other, and ten proxies that want the same one cost one call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use sigv4_filter::credentials::{Credentials, HeldCredentials, Identity};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use crate::sources::AwsSource;
use crate::telemetry::instant;

/// Credentials without an expiry may be replaced at their source at any time: so often it is looked at again.
const LONG_LIVED_RECHECK: Duration = Duration::from_secs(60);

/// No source is asked more often than this about one identity.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// All identities that some proxy wants.
#[derive(Debug)]
pub struct Keeper {
    source: Arc<AwsSource>,
    kept: Mutex<HashMap<Identity, Weak<KeptIdentity>>>,
    renewals: watch::Sender<()>,
}

/// One identity whose credentials are kept fresh for as long as somebody holds this.
#[derive(Debug)]
pub struct KeptIdentity {
    identity: Identity,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    credentials: Option<Arc<Credentials>>,
    failure: Option<String>,
}

impl Keeper {
    /// Keeps nothing yet.
    pub fn new(source: AwsSource) -> Self {
        Self { source: Arc::new(source), kept: Mutex::default(), renewals: watch::Sender::new(()) }
    }

    /// Keeps `identity` fresh from now on, or joins those who have it kept already.
    pub fn keep(&self, identity: &Identity) -> Arc<KeptIdentity> {
        let mut all = locked(&self.kept);
        if let Some(kept) = all.get(identity).and_then(Weak::upgrade) {
            return kept;
        }
        all.retain(|_, kept| kept.strong_count() > 0);
        let state = Arc::<Mutex<State>>::default();
        let renewing = keep_fresh(identity.clone(), self.source.clone(), state.clone(), self.renewals.clone());
        let task = tokio::spawn(renewing).abort_handle();
        let kept = Arc::new(KeptIdentity { identity: identity.clone(), state, task });
        all.insert(identity.clone(), Arc::downgrade(&kept));
        kept
    }

    /// Changes whenever an identity has new credentials.
    pub fn renewals(&self) -> watch::Receiver<()> {
        self.renewals.subscribe()
    }
}

impl KeptIdentity {
    /// Whose credentials these are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The newest credentials; `None` before the first, and when they have expired.
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        locked(&self.state).credentials.clone().filter(|credentials| credentials.hold_at(SystemTime::now()))
    }

    /// Why the source's last answer was none, until it gives one.
    pub fn failure(&self) -> Option<String> {
        locked(&self.state).failure.clone()
    }
}

impl Drop for KeptIdentity {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nothing that holds the lock can leave the value half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keep_fresh(identity: Identity, source: Arc<AwsSource>, state: Arc<Mutex<State>>, renewals: watch::Sender<()>) {
    let mut failures = 0;
    loop {
        let wait = match source.credentials_of(&identity).await {
            Ok(credentials) => {
                failures = 0;
                let wait = renewal_wait(credentials.remaining(SystemTime::now()));
                if take_in(&state, credentials, &identity, wait) {
                    renewals.send_replace(());
                }
                wait
            }
            Err(error) => {
                failures += 1;
                let wait = retry_wait(failures);
                let mut state = locked(&state);
                state.failure = Some(error.to_string());
                let held = state.credentials.as_ref().filter(|credentials| credentials.hold_at(SystemTime::now()));
                warn!(
                    identity = identity.id(),
                    role = identity.role().map(|role| role.arn.as_str()),
                    %error,
                    retry_in = %rounded(wait),
                    serving_until = held.and_then(|credentials| credentials.expiration()).map(instant),
                    "can't get credentials"
                );
                wait
            }
        };
        sleep_until(SystemTime::now() + wait).await;
    }
}

/// Takes what the source gave; whether it is new.
fn take_in(state: &Mutex<State>, credentials: Credentials, identity: &Identity, next: Duration) -> bool {
    let told = HeldCredentials::from(&credentials);
    let mut state = locked(state);
    state.failure = None;
    if state.credentials.as_ref().is_some_and(|held| told.are(held)) {
        debug!(identity = identity.id(), next_look_in = %rounded(next), "the source still gives the same credentials");
        return false;
    }
    info!(
        identity = identity.id(),
        role = identity.role().map(|role| role.arn.as_str()),
        access_key_id = told.access_key_id,
        expires = told.expiration,
        renewal_in = %rounded(next),
        "got credentials"
    );
    state.credentials = Some(Arc::new(credentials));
    true
}

/// When to ask again for credentials that live on for `remaining`: after half of it or a little more, at random, so
/// that identities that were got together are not renewed together. A source that still gives the old ones, as EC2's
/// does until five minutes before their end, is asked again after half of what is left.
fn renewal_wait(remaining: Option<Duration>) -> Duration {
    remaining.map_or(LONG_LIVED_RECHECK, |remaining| remaining.mul_f64(0.5 + 0.2 * fastrand::f64()).max(SHORTEST_WAIT))
}

/// How long to wait after so many failures in a row: twice as long each time, less up to a half at random.
fn retry_wait(failures: u32) -> Duration {
    let full = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST_RETRY);
    full.mul_f64(1.0 - 0.5 * fastrand::f64())
}

/// Sleeps by the wall clock, which expiries are told in: a timer of the runtime stands still while the machine sleeps.
async fn sleep_until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(Duration::from_secs(15))).await;
    }
}

fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let whole =
        if duration < Duration::from_secs(10) { duration.as_millis() } else { duration.as_millis() / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(u64::try_from(whole).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_well_before_the_expiry_and_not_at_one_instant() {
        let hour = Duration::from_secs(3600);
        let waits: Vec<_> = (0..100).map(|_| renewal_wait(Some(hour))).collect();
        assert!(waits.iter().all(|wait| (hour / 2..=hour * 7 / 10).contains(wait)));
        let distinct_seconds: std::collections::HashSet<_> = waits.iter().map(Duration::as_secs).collect();
        assert!(distinct_seconds.len() > 50, "{distinct_seconds:?}");
        assert_eq!(renewal_wait(Some(Duration::ZERO)), SHORTEST_WAIT);
        assert_eq!(renewal_wait(None), LONG_LIVED_RECHECK);
    }

    #[test]
    fn retries_get_rarer_up_to_a_minute() {
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)] {
            let longest = Duration::from_secs(longest);
            assert!((longest / 2..=longest).contains(&retry_wait(failures)), "{failures}");
        }
    }
}
