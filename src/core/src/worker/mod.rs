//! State shared by all requests of one worker under one policy.

mod callers;
mod clock;
mod credentials;
mod metrics;
mod sampling;

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::clock_skew::{ClockSkew, SkewGauges};
use crate::credentials::{CredentialStore, Identity, SetError, Watch};
use crate::host::{Host, HostError};
use crate::local_reply::{self, Outcome, Refusal};
use crate::policy::{Admitted, Policy, RecentHosts, Route, RouteIdentity};
use crate::signing::{Scope, Signer, SigningCredentials, WireUri};
use crate::wakeup;

use callers::{CallerIdentities, CallerIdentity};
use clock::Clock;
use credentials::CredentialCache;
use metrics::Metrics;
use sampling::Sampling;

/// The period of lease renewals, and of reads of the shared generation in case a notification was lost.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The period while requests wait for credentials, so that none waits noticeably past its deadline.
pub(crate) const FAST_TICK: Duration = Duration::from_millis(20);

/// Reported as the remaining life of credentials that never expire: larger than any alert threshold.
const NEVER_EXPIRES: Duration = Duration::from_secs(u32::MAX as u64);

/// A worker: the policy, its credentials, and the buffers reused across requests.
pub struct Worker<H: Host> {
    pub(crate) host: H,
    pub(crate) policy: Policy,
    /// An id that distinguishes the policy from other plugins' and is equal on all workers.
    policy_id: String,
    store: CredentialStore<H>,
    credentials: CredentialCache,
    /// Of a policy with routes whose identities come with their callers.
    callers: CallerIdentities,
    pub(crate) signer: RefCell<Signer>,
    pub(crate) buffers: RefCell<SigningBuffers>,
    /// A buffer for the description of a request.
    description: RefCell<String>,
    clock_skew: RefCell<ClockSkew>,
    skew_gauges: RefCell<SkewGauges>,
    /// The slot whose queue notifies the worker of new credentials.
    slot: Cell<Option<usize>>,
    watch: Cell<Watch>,
    /// The time of the last housekeeping, which is due once a second regardless of the tick's period.
    last_housekeeping: Cell<SystemTime>,
    pub(crate) clock: Clock,
    pub(crate) sampling: Sampling,
    pub(crate) metrics: Metrics<H>,
}

/// The identity that a request is signed as.
pub(crate) enum SignsAs {
    /// An index in [`Policy::identities`].
    Named(usize),
    /// That of its caller.
    Caller(Rc<CallerIdentity>),
}

/// Buffers that are reused across requests.
#[derive(Default)]
pub(crate) struct SigningBuffers {
    pub(crate) hosts: RecentHosts,
    /// The authority of a target that has the bucket in it.
    pub(crate) authority: Vec<u8>,
    pub(crate) path: Vec<u8>,
    pub(crate) uri: WireUri,
}

impl<H: Host> Worker<H> {
    /// Starts to sign under a policy; `document` is its text.
    pub(crate) fn start(host: H, policy: Policy, document: &[u8]) -> Result<Self, HostError> {
        // Another version of the filter may derive other identities from the same text.
        let mut digest = Sha256::new_with_prefix(document);
        policy.identities().iter().for_each(|identity| digest.update(identity.id()));
        let policy_id = base16ct::lower::encode_string(digest.finalize().get(..8).unwrap_or_default());
        host.set_tick_period(TICK)?;
        let worker = Self {
            policy_id,
            store: CredentialStore(host.clone()),
            credentials: CredentialCache::new(policy.identities()),
            callers: CallerIdentities::new(policy.max_caller_identities),
            signer: RefCell::default(),
            buffers: RefCell::default(),
            description: RefCell::default(),
            clock_skew: RefCell::default(),
            skew_gauges: RefCell::new(SkewGauges::new(&policy)),
            slot: Cell::new(None),
            watch: Cell::new(Watch::new(host.now())),
            last_housekeeping: Cell::new(SystemTime::UNIX_EPOCH),
            clock: Clock::default(),
            sampling: Sampling::default(),
            metrics: Metrics::new(host.clone(), policy.routes().len()),
            policy,
            host,
        };
        worker.read_clock();
        worker.reload();
        worker.on_tick();
        worker.metrics.publish();
        Ok(worker)
    }

    /// Reads the proxy's clock.
    pub(crate) fn read_clock(&self) -> SystemTime {
        self.clock.read(&self.host)
    }

    /// Reads credentials that have changed in the shared data. Returns whether any have.
    pub(crate) fn reload(&self) -> bool {
        self.credentials.reload(&self.store, &self.policy, &self.callers)
    }

    /// Does the housekeeping if it is due, once a second. Returns whether it was.
    pub(crate) fn on_tick(&self) -> bool {
        let now = self.clock.now();
        self.callers.on_tick();
        self.lease_callers();
        if now.duration_since(self.last_housekeeping.get()).is_ok_and(|passed| passed < TICK - FAST_TICK) {
            return false;
        }
        self.last_housekeeping.set(now);
        if let Err(error) = self.renew_leases(now) {
            log::error!("{error}; it will be retried");
        }
        self.exchange_clock_skew(now);
        for (remaining, identity) in self.credentials.remaining(now).into_iter().zip(self.policy.identities()) {
            self.metrics.remaining_life(identity.id(), remaining.unwrap_or(NEVER_EXPIRES));
        }
        self.sampling.reset();
        true
    }

    /// Drains a queue by which another worker notified this one of changed credentials.
    pub(crate) fn on_wakeup(&self, queue: u32) {
        if let Err(error) = self.host.drain_queue(queue) {
            log::error!("{error}");
        }
    }

    fn renew_leases(&self, now: SystemTime) -> Result<(), SetError> {
        let mut watch = self.watch.get();
        let tended = self.store.tend_leases(&mut watch, Some((&self.policy_id, self.policy.identities())), now);
        self.watch.set(watch);
        tended?;
        if let Some(slot) = self.slot.get()
            && self.store.renew_slot(slot, now)?
        {
            return Ok(());
        }
        let slot = self.store.claim_slot(now)?;
        match self.host.register_queue(&wakeup::queue_name(slot)) {
            Ok(()) => self.slot.set(Some(slot)),
            Err(error) => log::error!("{error}; changes of credentials will be seen on the next tick"),
        }
        Ok(())
    }

    /// Renews the lease on the identities of callers, if the policy has such.
    fn lease_callers(&self) {
        if self.policy.has_caller_identities()
            && let Err(error) =
                self.callers.lease(&self.store, &self.policy_id, (self.clock.elapsed(), self.clock.now()))
        {
            log::error!("{error}; it will be retried");
        }
    }

    /// Returns the identity that signs a request of a route, whose caller is `admitted`.
    ///
    /// # Errors
    /// If the caller's values make no role, or there is no room for another identity.
    pub(crate) fn signs_as(&self, route: &Route, admitted: Option<&Admitted<'_>>) -> Result<SignsAs, Refusal> {
        let (template, caller) = match (&route.identity, admitted) {
            (RouteIdentity::Fixed(identity), _) => return Ok(SignsAs::Named(*identity)),
            (RouteIdentity::Caller(template), Some(caller)) => (template, caller),
            (RouteIdentity::Caller(_), None) => return Err(Refusal::Unauthenticated),
        };
        let times = (self.clock.elapsed(), self.clock.now());
        let identity = self.callers.identity(&self.store, (route.index, template), caller, times)?;
        if self.callers.is_early() {
            self.lease_callers();
        }
        Ok(SignsAs::Caller(identity))
    }

    /// Returns the credentials of an identity, if there are any that are valid at `now`.
    pub(crate) fn credentials<'a>(
        &'a self,
        identity: &'a SignsAs,
        now: SystemTime,
    ) -> Option<Ref<'a, SigningCredentials>> {
        match identity {
            SignsAs::Named(identity) => self.credentials.valid(*identity, now),
            SignsAs::Caller(identity) => identity.credentials(now),
        }
    }

    /// Returns the refusal of a request whose identity has no valid credentials.
    pub(crate) fn no_credentials(&self, identity: &SignsAs) -> Refusal {
        if self.is_refused(identity) {
            return Refusal::Overloaded;
        }
        Refusal::NoCredentials { identity: self.id_of(identity).to_owned() }
    }

    /// Returns whether there was no room for an identity.
    pub(crate) fn is_refused(&self, identity: &SignsAs) -> bool {
        matches!(identity, SignsAs::Caller(identity) if identity.is_refused())
    }

    fn id_of<'a>(&'a self, identity: &'a SignsAs) -> &'a str {
        match identity {
            SignsAs::Named(identity) => self.policy.identities().get(*identity).map_or("", Identity::id),
            SignsAs::Caller(identity) => identity.id(),
        }
    }

    /// Counts the outcome of the stream's request, and describes it for the access log.
    pub(crate) fn record(
        &self,
        route: Option<&Route>,
        identity: Option<&SignsAs>,
        signing_name: &str,
        outcome: Outcome<'_>,
    ) {
        self.metrics.count(route, outcome);
        if matches!(outcome, Outcome::Signed) && !self.policy.access_log {
            return;
        }
        let named = route.and_then(|route| match route.identity {
            RouteIdentity::Fixed(identity) => Some(SignsAs::Named(identity)),
            RouteIdentity::Caller(_) => None,
        });
        let members = [
            ("outcome=", outcome.code()),
            (" route=", route.map_or("", |route| &route.name)),
            (" identity=", identity.or(named.as_ref()).map_or("", |identity| self.id_of(identity))),
            (" signing_name=", signing_name),
        ];
        // One text, because each property costs a host call.
        let text = &mut *self.description.borrow_mut();
        text.clear();
        for (name, value) in members.into_iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(name);
            text.push_str(value);
        }
        self.describe("sigv4.request", text);
    }

    /// Answers the stream's request with a refusal. The stream must stop after that.
    pub(crate) fn refuse(&self, refusal: &Refusal, route: Option<&Route>) {
        self.record(route, None, "", Outcome::Refused(refusal));
        local_reply::send(&self.host, refusal, route);
    }

    /// Reports that a request was signed for another scope than its client signed for.
    #[cold]
    pub(crate) fn report_overridden_scope(
        &self,
        route: &Route,
        authority: &[u8],
        used: Scope<&str>,
        signed_for: Scope<&str>,
    ) {
        log::debug!(
            "route {}: the client signed for {} in {}, but {} is signed for {} in {}; set service and region, or              signing.scope: client-first",
            route.name,
            signed_for.service,
            signed_for.region,
            String::from_utf8_lossy(authority),
            used.service,
            used.region
        );
        self.metrics.scope_mismatch(route);
    }

    /// Stores a property of the stream's request in the proxy's filter state, for its access log and its own local replies.
    /// A failure does not fail the request.
    pub(crate) fn describe(&self, property: &str, value: &str) {
        if let Err(error) = self.host.set_property(property, value.as_bytes()) {
            log::error!("{error}");
        }
    }

    /// Returns `now` by the clock of the host that verifies the signature.
    pub(crate) fn signing_time(&self, authority: &[u8], now: SystemTime) -> SystemTime {
        self.clock_skew.borrow().correct(authority, now)
    }

    /// Learns a host's clock from the `date` of a refusal, in seconds since 1970.
    pub(crate) fn learn_clock(&self, authority: &[u8], date: i64, now: SystemTime) {
        let learned = self.clock_skew.borrow_mut().learn(authority, date, now);
        if let Some(seconds) = learned {
            let authority = String::from_utf8_lossy(authority);
            log::warn!("the clock of {authority} is {seconds} s ahead of this proxy's; requests are signed by it");
            self.exchange_clock_skew(now);
        }
    }

    /// Shares the clocks that this worker has learned, and reads those of others.
    fn exchange_clock_skew(&self, now: SystemTime) {
        let clock_skew = &mut self.clock_skew.borrow_mut();
        if let Err(error) = clock_skew.share(&self.host, now) {
            log::error!("{error}; it will be retried");
        }
        if clock_skew.reload(&self.host) {
            let show = |host: &str, seconds| self.metrics.clock_skew(host, seconds);
            self.skew_gauges.borrow_mut().update(clock_skew.by_host(), show);
        }
    }
}
