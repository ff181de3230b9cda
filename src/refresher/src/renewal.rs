//! Renews the credentials of every wanted identity, each in a task of its own: a role that can't be assumed delays no
//! other, and ten proxies that want the same role cost one call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sigv4_core::credentials::{Credentials, Identity};
use sigv4_core::intake::CredentialSummary;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::aws_source::{AwsSource, SourceError};
use crate::log::instant;
use crate::metrics::Metrics;
use crate::sync::lock;

/// The interval for asking the source of credentials without an expiry, which may be replaced at any time.
const LONG_LIVED_RECHECK: Duration = Duration::from_secs(60);

/// No source is asked more often than this about one identity.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);

/// The time to keep an identity that nobody wants. A proxy that has just started wants nothing until its policy is
/// loaded.
const UNWANTED_GRACE: Duration = Duration::from_secs(60);

/// The longest delay, after the machine resumes, of a renewal that fell due while it was suspended.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// The interval for comparing the two clocks, and the difference that means that the wall clock was set.
const CLOCK_INTERVAL: Duration = Duration::from_millis(500);
const CLOCK_JUMP: Duration = Duration::from_secs(5);

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The longest wait of an identity without credentials, if few have none: its source may have recovered.
const LONGEST_RETRY_IF_MISSING: Duration = Duration::from_secs(4);

/// The rate of retries of all identities without credentials together; each waits longer if there are many.
const RETRIES_PER_SECOND: usize = 10;

/// The interval at which one identity checks whether an outage is over; the others retry as soon as it is.
const PROBE_INTERVAL: Duration = Duration::from_secs(3);

/// All identities that some proxy wants.
#[derive(Debug)]
pub struct RenewalPool {
    source: Arc<AwsSource>,
    metrics: Arc<Metrics>,
    kept: Mutex<HashMap<Identity, Entry>>,
    renewals: watch::Sender<()>,
    /// The number of identities without credentials whose source fails.
    missing: Arc<AtomicUsize>,
    /// The salt of the fingerprints by which the proxies distinguish these credentials from others.
    salt: Arc<str>,
}

#[derive(Debug)]
struct Entry {
    identity: Arc<RenewalHandle>,
    last_wanted: Instant,
}

/// An identity whose credentials are being renewed.
#[derive(Debug)]
pub struct RenewalHandle {
    identity: Identity,
    state: Arc<Mutex<State>>,
    due: Arc<Notify>,
    metrics: Arc<Metrics>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    credentials: Option<Arc<Credentials>>,
    failure: Option<String>,
    /// The ids of the access keys that each proxy has revoked, from its last listing.
    revoked: HashMap<String, Vec<String>>,
}

impl State {
    fn is_revoked(&self, access_key_id: &str) -> bool {
        self.revoked.values().flatten().any(|revoked| revoked == access_key_id)
    }
}

impl RenewalPool {
    /// Creates an empty pool.
    pub fn new(source: AwsSource, metrics: Arc<Metrics>) -> Self {
        let salt = format!("{:016x}", fastrand::u64(..)).into();
        let (renewals, missing) = (watch::Sender::new(()), Arc::default());
        Self { source: Arc::new(source), metrics, kept: Mutex::default(), renewals, missing, salt }
    }

    /// Returns the handle of `identity`, and starts renewing it if it is new. Renewal goes on while somebody holds the
    /// handle, and [`UNWANTED_GRACE`] longer.
    pub fn acquire(&self, identity: &Identity) -> Arc<RenewalHandle> {
        let mut all = lock(&self.kept);
        let kept = all.entry(identity.clone()).or_insert_with_key(|identity| Entry {
            identity: Arc::new(self.start(identity)),
            last_wanted: Instant::now(),
        });
        kept.last_wanted = Instant::now();
        kept.identity.clone()
    }

    /// Forgets the identities that nobody has wanted for a while.
    pub fn forget_unwanted(&self) {
        lock(&self.kept)
            .retain(|_, kept| Arc::strong_count(&kept.identity) > 1 || kept.last_wanted.elapsed() < UNWANTED_GRACE);
    }

    fn start(&self, identity: &Identity) -> RenewalHandle {
        let (state, due) = (Arc::<Mutex<State>>::default(), Arc::<Notify>::default());
        let renewal = Renewal {
            identity: identity.clone(),
            state: state.clone(),
            due: due.clone(),
            source: self.source.clone(),
            metrics: self.metrics.clone(),
            renewals: self.renewals.clone(),
            missing: self.missing.clone(),
            salt: self.salt.clone(),
        };
        let task = tokio::spawn(renewal.keep_fresh()).abort_handle();
        RenewalHandle { identity: identity.clone(), state, due, metrics: self.metrics.clone(), task }
    }

    /// Asks every source again, and has every proxy reconciled.
    pub fn renew_all(&self) {
        self.source.forget_chain_result();
        lock(&self.kept).values().for_each(|kept| kept.identity.due.notify_one());
        self.renewals.send_replace(());
    }

    /// Asks the failing sources again whenever the wall clock is set, and has every proxy reconciled: credentials that
    /// seemed expired may be valid again.
    pub async fn watch_clock(&self) {
        let mut last = (SystemTime::now(), Instant::now());
        loop {
            tokio::time::sleep(CLOCK_INTERVAL).await;
            let now = (SystemTime::now(), Instant::now());
            let expected = last.0 + (now.1 - last.1);
            let jump = now.0.duration_since(expected).unwrap_or_else(|earlier| earlier.duration());
            if jump > CLOCK_JUMP {
                warn!(by = %rounded(jump), back = now.0 < expected, "the clock was set");
                let kept = lock(&self.kept);
                let failing = kept.values().filter(|kept| kept.identity.failure().is_some());
                failing.for_each(|kept| kept.identity.due.notify_one());
                self.renewals.send_replace(());
            }
            last = now;
        }
    }

    /// Returns a channel that changes whenever an identity has new credentials, or its source fails or recovers.
    pub fn renewals(&self) -> watch::Receiver<()> {
        self.renewals.subscribe()
    }
}

impl RenewalHandle {
    /// Returns the identity that the credentials belong to.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the newest credentials; `None` if there are none yet, or they have expired.
    pub fn credentials(&self) -> Option<Arc<Credentials>> {
        lock(&self.state).credentials.clone().filter(|credentials| credentials.hold_at(SystemTime::now()))
    }

    /// Records the access keys that a proxy has revoked, and asks the source for another if the one in use is among
    /// them. The other proxies continue to use it.
    pub fn note_revoked(&self, proxy: String, access_key_ids: &[String]) {
        let mut state = lock(&self.state);
        let before = state.revoked.insert(proxy, access_key_ids.to_vec()).unwrap_or_default();
        if before == access_key_ids {
            return;
        }
        let in_use = state.credentials.as_ref().map(|held| held.access_key_id().to_owned());
        let listed = |keys: &[String]| in_use.as_ref().is_some_and(|in_use| keys.contains(in_use));
        match (listed(&before), listed(access_key_ids)) {
            (false, true) => {
                warn!(
                    identity = self.identity.id(),
                    access_key_id = in_use,
                    "the access key was revoked; getting another"
                );
                self.due.notify_one();
            }
            (true, false) => self.due.notify_one(),
            _ => {}
        }
    }

    /// Returns the error of the source's last call, until one succeeds.
    pub fn failure(&self) -> Option<String> {
        lock(&self.state).failure.clone()
    }
}

impl Drop for RenewalHandle {
    fn drop(&mut self) {
        self.task.abort();
        self.metrics.remove_identity(&self.identity);
    }
}

/// The task of one [`RenewalHandle`].
struct Renewal {
    identity: Identity,
    state: Arc<Mutex<State>>,
    /// Notified when the source is to be asked early.
    due: Arc<Notify>,
    source: Arc<AwsSource>,
    metrics: Arc<Metrics>,
    renewals: watch::Sender<()>,
    missing: Arc<AtomicUsize>,
    salt: Arc<str>,
}

/// Counts one identity without credentials until it is dropped.
struct Missing(Arc<AtomicUsize>);

impl Missing {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all.clone())
    }

    fn longest_retry(&self) -> Duration {
        longest_retry(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Missing {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Renewal {
    async fn keep_fresh(self) {
        let (mut failures, mut is_woken, mut was_silent) = (0, false, false);
        let (mut probe, mut missing) = (None, None);
        loop {
            let asked = Instant::now();
            let answer = self.source.credentials_of(&self.identity, was_silent).await;
            let answer = answer.and_then(|credentials| {
                let wait = renewal_wait(credentials.remaining(SystemTime::now()));
                self.take_in(credentials, wait).map(|()| wait)
            });
            was_silent = answer.as_ref().is_err_and(SourceError::is_silence);
            let wait = match answer {
                Ok(wait) => {
                    (failures, is_woken, probe, missing) = (0, false, None, None);
                    wait
                }
                Err(error) => {
                    failures += 1;
                    probe = if error.is_outage() { probe.or_else(|| self.source.try_probe()) } else { None };
                    let left = self.time_left(&error);
                    missing = left.is_zero().then(|| missing.unwrap_or_else(|| Missing::new(&self.missing)));
                    let longest = match (&probe, &missing) {
                        (Some(_), _) => PROBE_INTERVAL,
                        (None, Some(missing)) => missing.longest_retry(),
                        // When they expire, they are missing.
                        (None, None) => LONGEST_RETRY.min(left),
                    };
                    let wait = retry_wait(failures, longest).max(error.retry_after());
                    self.note_failure(&error, wait);
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.due.notified() => failures = 0,
                // Only once: a failure after that has a reason of its own.
                () = self.source.recovered(), if failures > 0 && !is_woken => is_woken = true,
            }
            // Bounds the rate, whatever a proxy lists as revoked and however often.
            tokio::time::sleep_until(asked + SHORTEST_WAIT).await;
        }
    }

    /// Returns the remaining life of the credentials held; zero if there are none, or a proxy has revoked them.
    fn time_left(&self, error: &SourceError) -> Duration {
        let state = lock(&self.state);
        let held = state.credentials.as_ref().filter(|_| !matches!(error, SourceError::Revoked { .. }));
        held.map_or(Duration::ZERO, |held| held.remaining(SystemTime::now()).unwrap_or(Duration::MAX))
    }

    /// Stores credentials from the source; an error if a proxy has revoked them, although others may accept them.
    fn take_in(&self, credentials: Credentials, next: Duration) -> Result<(), SourceError> {
        let credentials = credentials.with_fingerprint_salt(Some(self.salt.to_string()));
        let summary = CredentialSummary::from(&credentials);
        let mut state = lock(&self.state);
        let revoked = state.is_revoked(credentials.access_key_id());
        if !revoked && state.failure.take().is_some() {
            self.renewals.send_replace(());
        }
        if state.credentials.as_ref().is_some_and(|held| **held == credentials) {
            let next_look_in = rounded(next);
            debug!(identity = self.identity.id(), %next_look_in, "the source returned the same credentials");
        } else {
            info!(
                identity = self.identity.id(),
                role = self.identity.role().map(|role| role.arn.as_str()),
                access_key_id = summary.access_key_id,
                expires = summary.expiration,
                renewal_in = %rounded(next),
                "got credentials"
            );
            self.metrics.renewed(&self.identity, &credentials);
            state.credentials = Some(Arc::new(credentials));
            self.renewals.send_replace(());
        }
        if revoked { Err(SourceError::Revoked { access_key_id: summary.access_key_id }) } else { Ok(()) }
    }

    fn note_failure(&self, error: &SourceError, retry: Duration) {
        self.metrics.source_failed(&self.identity, error);
        let mut state = lock(&self.state);
        let failure = Some(error.to_string());
        if matches!(error, SourceError::Revoked { .. }) && state.failure == failure {
            // Nothing new to report until somebody rotates the key.
            debug!(identity = self.identity.id(), %error, retry_in = %rounded(retry), "still can't get credentials");
            return;
        }
        if state.failure != failure {
            state.failure = failure;
            self.renewals.send_replace(());
        }
        let held = state.credentials.as_ref().filter(|credentials| credentials.hold_at(SystemTime::now()));
        warn!(
            identity = self.identity.id(),
            role = self.identity.role().map(|role| role.arn.as_str()),
            %error,
            retry_in = %rounded(retry),
            serving_until = held.and_then(|credentials| credentials.expiration()).map(instant),
            "can't get credentials"
        );
    }
}

/// Returns how long to wait before renewing credentials that are valid for `remaining`: 30 to 50 % of it, so that an
/// hour's session outlasts half an hour without STS, and at random, so that identities fetched together are not renewed
/// together. A source that still returns the old ones, as EC2's does until shortly before they expire, is asked again
/// by the same rule.
fn renewal_wait(remaining: Option<Duration>) -> Duration {
    remaining.map_or(LONG_LIVED_RECHECK, |remaining| remaining.mul_f64(0.3 + 0.2 * fastrand::f64()).max(SHORTEST_WAIT))
}

/// Returns how long to wait after consecutive failures: twice as long each time, up to `longest`, less up to a half at
/// random.
fn retry_wait(failures: u32, longest: Duration) -> Duration {
    let full = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    full.min(longest).mul_f64(1.0 - 0.5 * fastrand::f64())
}

/// Returns the longest wait of an identity without credentials, if `missing` identities have none.
fn longest_retry(missing: usize) -> Duration {
    let seconds = (missing / RETRIES_PER_SECOND).try_into().unwrap_or(u64::MAX);
    Duration::from_secs(seconds).clamp(LONGEST_RETRY_IF_MISSING, LONGEST_RETRY)
}

/// Sleeps until `wait` has passed on either clock. Expiries are wall-clock times, and the monotonic clock stops while
/// the machine is suspended; but the wall clock can be set back.
pub async fn sleep(wait: Duration) {
    let (wall, monotonic) = (SystemTime::now() + wait, Instant::now() + wait);
    loop {
        let left = wall.duration_since(SystemTime::now()).unwrap_or_default();
        let left = left.min(monotonic.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
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
        assert!(waits.iter().all(|wait| (hour * 3 / 10..=hour / 2).contains(wait)));
        let distinct_seconds: std::collections::HashSet<_> = waits.iter().map(Duration::as_secs).collect();
        assert!(distinct_seconds.len() > 50, "{distinct_seconds:?}");
        assert_eq!(renewal_wait(Some(Duration::ZERO)), SHORTEST_WAIT);
        assert_eq!(renewal_wait(None), LONG_LIVED_RECHECK);
    }

    #[test]
    fn retries_get_rarer_up_to_a_minute() {
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (1000, 60)] {
            let longest = Duration::from_secs(longest);
            assert!((longest / 2..=longest).contains(&retry_wait(failures, LONGEST_RETRY)), "{failures}");
        }
    }

    #[test]
    fn what_is_missing_is_asked_for_every_few_seconds_and_more_rarely_if_much_is() {
        for (missing, longest) in [(1, 4), (40, 4), (100, 10), (600, 60), (10_000, 60)] {
            let longest = Duration::from_secs(longest);
            assert_eq!(longest_retry(missing), longest, "{missing}");
            assert!((longest / 2..=longest).contains(&retry_wait(1000, longest_retry(missing))), "{missing}");
        }
    }
}
