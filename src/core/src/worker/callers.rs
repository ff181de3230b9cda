//! A worker's cache of the identities of callers, and their credentials.

use std::cell::{Cell, Ref, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use crate::credentials::{CallerBounds, CredentialStore, Identity, SetError, SharedData};
use crate::local_reply::Refusal;
use crate::policy::{Admitted, NotAdmitted, RoleTemplate};
use crate::signing::SigningCredentials;

/// An identity that was used within this time is not given up for another one.
const IN_USE: Duration = Duration::from_secs(120);

/// An identity that was not used for this time is given up.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// The time between renewals of the lease: less than a lease lasts, and than an identity stays in use.
const RENEWAL: Duration = Duration::from_secs(10);

/// The time after which an identity without credentials is requested again, in case the proxy has dropped it.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// An identity that has had no credentials for this time is given up for another one, even if it is used: its role may not
/// exist.
const FAILED: Duration = Duration::from_secs(30);

/// The identity of a caller.
pub(crate) struct CallerIdentity {
    identity: Identity,
    credentials: RefCell<Option<SigningCredentials>>,
    /// Times are by [`Clock::elapsed`](super::Clock::elapsed).
    since: Duration,
    used: Cell<Duration>,
    asked: Cell<Duration>,
    /// `true` if it is to be leased.
    is_new: Cell<bool>,
    /// `true` if there was no room for it.
    is_refused: Cell<bool>,
}

impl CallerIdentity {
    /// Returns its id.
    pub(crate) fn id(&self) -> &str {
        self.identity.id()
    }

    /// Returns its credentials, if they are valid at `now`.
    pub(super) fn credentials(&self, now: SystemTime) -> Option<Ref<'_, SigningCredentials>> {
        let held = |credentials: &SigningCredentials| credentials.credentials().hold_at(now);
        Ref::filter_map(self.credentials.borrow(), |credentials| credentials.as_ref().filter(|it| held(it))).ok()
    }

    /// Returns whether the proxy holds as many identities of callers as it may, all of them in use.
    pub(super) fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    fn reload(&self, store: &CredentialStore<impl SharedData>) {
        let stored = store.get(self.id());
        let mut credentials = self.credentials.borrow_mut();
        // Unchanged credentials keep their derived keys.
        if credentials.as_ref().map(SigningCredentials::credentials) != stored.as_ref() {
            *credentials = stored.map(SigningCredentials::from);
        }
    }
}

/// The identities of callers by their values.
pub(crate) struct CallerIdentities {
    most: usize,
    by_values: RefCell<HashMap<Vec<u8>, Rc<CallerIdentity>>>,
    /// The key of a request, whose memory is reused.
    key: RefCell<Vec<u8>>,
    /// `true` if an identity is to be leased.
    has_new: Cell<bool>,
    renewed: Cell<Option<Duration>>,
    /// `true` if something was leased outside of a tick since the last one.
    leased_early: Cell<bool>,
}

impl CallerIdentities {
    /// Knows no caller yet.
    pub(super) fn new(most: u32) -> Self {
        Self {
            most: most as usize,
            by_values: RefCell::default(),
            key: RefCell::default(),
            has_new: Cell::default(),
            renewed: Cell::default(),
            leased_early: Cell::default(),
        }
    }

    /// Returns the identity of a caller, and asks for it if it has no credentials.
    ///
    /// # Errors
    /// If the caller's values make no role, or there is no room for another identity.
    pub(super) fn identity(
        &self,
        store: &CredentialStore<impl SharedData>,
        (route, template): (usize, &RoleTemplate),
        caller: &Admitted<'_>,
        (elapsed, now): (Duration, SystemTime),
    ) -> Result<Rc<CallerIdentity>, Refusal> {
        let mut key = self.key.borrow_mut();
        key.clear();
        key.extend_from_slice(&(route as u32).to_le_bytes());
        let start = key.len();
        template.values(caller, &mut key).map_err(NotAdmitted::from)?;
        let mut known = self.by_values.borrow_mut();
        if let Some(identity) = known.get(key.as_slice()) {
            identity.used.set(elapsed);
            if elapsed.saturating_sub(identity.asked.get()) >= ASK_AGAIN && identity.credentials(now).is_none() {
                identity.asked.set(elapsed);
                identity.is_refused.set(false);
                identity.is_new.set(true);
                self.has_new.set(true);
            }
            return Ok(Rc::clone(identity));
        }
        let role = template.expand(key.get(start..).unwrap_or_default()).map_err(NotAdmitted::from)?;
        self.make_room(&mut known, elapsed)?;
        let identity = Rc::new(CallerIdentity {
            identity: Identity::assumed_for_caller(role),
            credentials: RefCell::default(),
            since: elapsed,
            used: Cell::new(elapsed),
            asked: Cell::new(elapsed),
            is_new: Cell::new(true),
            is_refused: Cell::new(false),
        });
        // Another worker may have asked for it.
        identity.reload(store);
        self.has_new.set(true);
        known.insert(key.clone(), Rc::clone(&identity));
        Ok(identity)
    }

    /// Forgets a caller that is idle, or whose role does not come, if there are as many as there may be.
    fn make_room(&self, known: &mut HashMap<Vec<u8>, Rc<CallerIdentity>>, elapsed: Duration) -> Result<(), Refusal> {
        if known.len() < self.most {
            return Ok(());
        }
        let may_go = |identity: &CallerIdentity| {
            let has_failed =
                identity.credentials.borrow().is_none() && elapsed.saturating_sub(identity.since) >= FAILED;
            has_failed || elapsed.saturating_sub(identity.used.get()) >= IN_USE
        };
        let candidates = known.iter().filter(|(_, identity)| may_go(identity));
        let longest = candidates.min_by_key(|(_, identity)| identity.used.get()).map(|(values, _)| values.clone());
        known.remove(&longest.ok_or(Refusal::Overloaded)?);
        Ok(())
    }

    /// Returns whether an identity should be leased before the next tick.
    pub(super) fn is_early(&self) -> bool {
        self.has_new.get() && !self.leased_early.replace(true)
    }

    /// Renews the lease on all identities that are in use, if that is due or there are new ones.
    ///
    /// # Errors
    /// If the proxy refuses the value. The new ones are leased with the next renewal.
    pub(super) fn lease(
        &self,
        store: &CredentialStore<impl SharedData>,
        policy: &str,
        (elapsed, now): (Duration, SystemTime),
    ) -> Result<(), SetError> {
        let since = self.renewed.get();
        if !self.has_new.get() && since.is_some_and(|since| elapsed.saturating_sub(since) < RENEWAL) {
            return Ok(());
        }
        let mut known = self.by_values.borrow_mut();
        known.retain(|_, identity| elapsed.saturating_sub(identity.used.get()) < IDLE);
        let is_used = |identity: &&Rc<CallerIdentity>| since.is_none_or(|since| identity.used.get() >= since);
        let used = known.values().filter(is_used).map(|identity| &identity.identity).collect();
        let new = known.values().filter(|identity| identity.is_new.get()).map(|identity| &identity.identity).collect();
        let bounds = CallerBounds { most: self.most, failed: FAILED, in_use: IN_USE, idle: IDLE };
        let refused = store.lease_callers(policy, (used, new), bounds, now)?;
        self.renewed.set(Some(elapsed));
        self.has_new.set(false);
        for identity in known.values().filter(|identity| identity.is_new.replace(false)) {
            let is_refused = refused.binary_search_by(|refused| refused.id().cmp(identity.id())).is_ok();
            identity.is_refused.set(is_refused);
        }
        Ok(())
    }

    /// Begins another tick.
    pub(super) fn on_tick(&self) {
        self.leased_early.set(false);
    }

    /// Reads the credentials of these ids, or of all identities.
    pub(super) fn reload(&self, store: &CredentialStore<impl SharedData>, ids: Option<&[String]>) {
        for identity in self.by_values.borrow().values() {
            if ids.is_none_or(|ids| ids.iter().any(|id| id == identity.id())) {
                identity.reload(store);
            }
        }
    }
}
