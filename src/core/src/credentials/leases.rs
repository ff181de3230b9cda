//! The identities that the loaded policies require. A policy holds a lease on its own, which ends unless it is renewed.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Identity;
use super::changes::{CALLERS_CHANGED, UNSEEN, bump_generation};
use super::shared_data::{SetError, SharedData};
use super::store::CredentialStore;

/// The lifetime of a lease without renewal. A removed policy's identities stay required that long.
pub const LEASE: Duration = Duration::from_secs(30);

/// A lease is renewed when less than this is left, so that a worker can miss a tick or two.
pub(super) const RENEWAL: Duration = Duration::from_secs(20);

/// A virtual machine whose clock jumps by more seconds than this was paused, or its clock was set: a lease that looks
/// expired may be in use.
const LONGEST_TICK: u64 = 10;

pub(super) const LEASES: &str = "sigv4.wanted";

/// Follows a policy's name in the lease on the identities of its callers.
pub(super) const CALLERS: &str = "/callers";

/// A virtual machine's record of passing time, which decides when expired leases may be ended.
///
/// After a pause of the whole process (a suspended machine, a stopped process, a clock that was set), every lease but the
/// watching policy's own looks expired, because the others have not been renewed yet.
///
/// It also records when the list of leases, which may be long, must be read again.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    since: u64,
    last: u64,
    /// The generation of the list when it was last read, and the second from which a lease in it is due.
    generation: u64,
    due: u64,
}

impl Watch {
    /// Starts at `now`.
    pub fn new(now: SystemTime) -> Self {
        Self { since: seconds(now), last: seconds(now), generation: UNSEEN, due: 0 }
    }

    /// Records `now`, and returns whether leases that look expired may be ended.
    fn tick(&mut self, now: SystemTime) -> bool {
        let now = seconds(now);
        if now < self.last || now - self.last > LONGEST_TICK {
            self.since = now;
            // A lease may now end later than any that can be granted.
            self.due = 0;
        }
        self.last = now;
        now - self.since >= LEASE.as_secs()
    }
}

/// The ids of all required identities, as of one generation.
#[derive(Debug, Clone)]
pub struct RequiredIds {
    generation: u64,
    sorted: Vec<String>,
}

impl Default for RequiredIds {
    fn default() -> Self {
        Self { generation: UNSEEN, sorted: Vec::new() }
    }
}

/// The identities that one policy requires, until the lease ends.
#[derive(Serialize, Deserialize)]
pub(super) struct IdentityLease {
    pub(super) policy: String,
    pub(super) until: u64,
    pub(super) identities: Vec<Identity>,
    /// For the identities of [callers](super::caller_leases): the second in which each was last known to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used: Option<Vec<u64>>,
}

impl IdentityLease {
    /// By the name: an earlier version of the filter drops the times when it rewrites the list.
    fn is_of_callers(&self) -> bool {
        self.policy.ends_with(CALLERS)
    }
}

impl<D: SharedData> CredentialStore<D> {
    /// Renews the lease of a policy, if there is one, and [sweeps](Self::sweep) once the watch has lasted long enough.
    /// Reads the list of leases only if it may have changed or a lease in it is due.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn tend_leases(
        &self,
        watch: &mut Watch,
        own: Option<(&str, &[Identity])>,
        now: SystemTime,
    ) -> Result<(), SetError> {
        let sweep = watch.tick(now);
        let generation = self.generation();
        if seconds(now) >= watch.due || self.changes(watch.generation, generation).is_none() {
            watch.due = self.renew(own, now, sweep)?;
        }
        watch.generation = generation;
        Ok(())
    }

    /// Records that `policy` requires `identities` until its lease ends; with `sweep`, [sweeps](Self::sweep) too.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn lease(&self, policy: &str, identities: &[Identity], now: SystemTime, sweep: bool) -> Result<(), SetError> {
        self.renew(Some((policy, identities)), now, sweep).map(drop)
    }

    /// Ends expired leases, and wipes the credentials that no policy requires any more. Only for a caller that has watched for
    /// a whole lease: see [`Watch`].
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn sweep(&self, now: SystemTime) -> Result<(), SetError> {
        self.renew(None, now, true).map(drop)
    }

    /// Renews or sweeps leases, and returns the second from which the next lease is due.
    fn renew(&self, own: Option<(&str, &[Identity])>, now: SystemTime, sweep: bool) -> Result<u64, SetError> {
        let mut renewal = Renewal::default();
        self.0.update(LEASES, |leases: &mut Vec<IdentityLease>| {
            renewal = Renewal::of(leases, own, now, sweep);
            renewal.writes
        })?;
        if renewal.changed {
            // Before wiping, so that no intake still sees the identity as required and stores credentials for it again.
            bump_generation(&self.0, now, None)?;
        }
        if !renewal.dropped.is_empty() {
            renewal.dropped.iter().try_for_each(|identity| self.erase(identity.id()))?;
            bump_generation(&self.0, now, None)?;
        }
        Ok(renewal.due)
    }

    /// Returns all required identities, each once, in a stable order.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub fn required(&self) -> Result<Vec<Identity>, SetError> {
        Ok(self.requirements()?.identities.into_iter().map(|(identity, _)| identity).collect())
    }

    /// Returns what the loaded policies require, each identity once, in a stable order.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub fn requirements(&self) -> Result<Requirements, SetError> {
        let leases = self.leases()?;
        let (callers, named): (Vec<_>, Vec<_>) = leases.iter().partition(|lease| lease.is_of_callers());
        let named_ids = distinct(identities_of(named));
        let is_callers = |identity: &Identity| !contains(&named_ids, identity);
        let identities =
            distinct(identities_of(&leases)).into_iter().map(|identity| (identity.clone(), is_callers(identity)));
        Ok(Requirements {
            is_loaded: !leases.is_empty(),
            takes_callers: !callers.is_empty(),
            identities: identities.collect(),
        })
    }

    fn leases(&self) -> Result<Vec<IdentityLease>, SetError> {
        match self.0.get(LEASES) {
            Some((bytes, _)) => serde_json::from_slice(&bytes).map_err(|_| SetError::Unreadable),
            None => Ok(Vec::new()),
        }
    }

    /// Returns whether a policy requires the identity of this id. `ids` are read again only if the leases may have changed.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub fn is_required(&self, ids: &mut RequiredIds, id: &str) -> Result<bool, SetError> {
        // Read before the leases, so that a concurrent change is seen by the next call.
        let generation = self.generation();
        let changes = self.changes(ids.generation, generation);
        if changes.is_none_or(|ids| ids.iter().any(|id| id == CALLERS_CHANGED)) {
            ids.sorted = self.required()?.iter().map(|identity| identity.id().to_owned()).collect();
        }
        ids.generation = generation;
        Ok(ids.sorted.binary_search_by(|required| required.as_str().cmp(id)).is_ok())
    }
}

/// The identities that the loaded policies require.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// `true` if a policy is loaded.
    pub is_loaded: bool,
    /// `true` if a policy has routes whose identities come with their callers.
    pub takes_callers: bool,
    /// The identities, each with whether only a caller requires it.
    pub identities: Vec<(Identity, bool)>,
}

/// The effects of a renewal on the list of leases.
#[derive(Default)]
struct Renewal {
    /// `true` if the list must be written.
    writes: bool,
    /// `true` if the required identities have changed.
    changed: bool,
    /// The identities that no policy requires any more.
    dropped: Vec<Identity>,
    /// The second from which the next lease is due.
    due: u64,
}

impl Renewal {
    fn of(leases: &mut Vec<IdentityLease>, own: Option<(&str, &[Identity])>, now: SystemTime, sweep: bool) -> Self {
        let (until, now) = (seconds(now + LEASE), seconds(now));
        let mut renewal = Self::default();
        // A lease that ends later was granted before the clock was set back.
        for lease in leases.iter_mut().filter(|lease| lease.until > until) {
            lease.until = until;
            renewal.writes = true;
        }
        let renewed_from = |until: u64| until.saturating_sub(RENEWAL.as_secs() - 1);
        if let Some((policy, identities)) = own {
            let index = leases.iter().position(|lease| lease.policy == policy);
            match index {
                // By all settings: an earlier version of the filter that rewrote the list has dropped those that it does not
                // know, and their ids have stayed.
                Some(index) if leases[index].identities == identities => {
                    if now >= renewed_from(leases[index].until) {
                        leases[index].until = until;
                        renewal.writes = true;
                    }
                }
                _ => {
                    renewal.dropped.extend(index.map(|index| leases.remove(index).identities).into_iter().flatten());
                    let (policy, identities) = (policy.to_owned(), identities.to_vec());
                    leases.push(IdentityLease { policy, until, identities, used: None });
                    renewal.changed = true;
                }
            }
        }
        let is_own = |lease: &IdentityLease| own.is_some_and(|(policy, _)| lease.policy == policy);
        leases.retain_mut(|lease| {
            let over = sweep && lease.until <= now;
            if over {
                renewal.dropped.append(&mut lease.identities);
                renewal.changed = true;
            }
            !over
        });
        let due = |lease: &IdentityLease| if is_own(lease) { renewed_from(lease.until) } else { lease.until };
        renewal.due = leases.iter().map(due).min().unwrap_or(u64::MAX);
        renewal.writes |= renewal.changed;
        if !renewal.dropped.is_empty() {
            keep_unrequired(&mut renewal.dropped, leases);
        }
        renewal
    }
}

fn identities_of<'l>(leases: impl IntoIterator<Item = &'l IdentityLease>) -> Vec<&'l Identity> {
    leases.into_iter().flat_map(|lease| &lease.identities).collect()
}

/// Returns the identities, each once, sorted by id.
pub(super) fn distinct(mut identities: Vec<&Identity>) -> Vec<&Identity> {
    identities.sort_unstable_by(|a, b| a.id().cmp(b.id()));
    identities.dedup_by(|a, b| a.id() == b.id());
    identities
}

/// Returns the identity with the same id among [distinct] ones.
pub(super) fn found<'l>(distinct: &[&'l Identity], identity: &Identity) -> Option<&'l Identity> {
    let at = distinct.binary_search_by(|each| each.id().cmp(identity.id())).ok()?;
    distinct.get(at).copied()
}

/// Returns whether an identity with the same id is among [distinct] ones.
pub(super) fn contains(distinct: &[&Identity], identity: &Identity) -> bool {
    found(distinct, identity).is_some()
}

/// Removes the identities that are required by another lease.
pub(super) fn keep_unrequired(dropped: &mut Vec<Identity>, leases: &[IdentityLease]) {
    let required = distinct(identities_of(leases));
    dropped.retain(|identity| !contains(&required, identity));
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::credentials::test_data::{at, credentials, role};
    use crate::test_support::Memory;

    #[test]
    fn identities_that_several_policies_require_are_listed_once() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("a", &[Identity::default_chain(), role("reader")], at(0), true).unwrap();
        store.lease("b", &[Identity::default_chain(), role("writer")], at(0), true).unwrap();
        store.lease("b", &[Identity::default_chain(), role("writer")], at(1), true).unwrap();
        let ids: Vec<_> =
            store.required().unwrap().iter().map(|i| i.id().split('-').next().unwrap().to_owned()).collect();
        assert_eq!(ids, ["default", "reader", "writer"]);
    }

    #[test]
    fn identities_of_a_removed_policy_are_not_required_and_their_credentials_are_wiped() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("old", &[role("reader"), Identity::default_chain()], at(0), true).unwrap();
        store.put(role("reader").id(), &credentials("AKIDONE")).unwrap();
        store.put("default", &credentials("AKIDTWO")).unwrap();
        store.lease("new", &[Identity::default_chain()], at(29), true).unwrap();
        assert_eq!(store.required().unwrap().len(), 2);
        let generation = store.generation();
        store.lease("new", &[Identity::default_chain()], at(31), true).unwrap();
        assert_eq!(store.required().unwrap(), [Identity::default_chain()]);
        assert!(store.generation() > generation);
        assert!(store.get(role("reader").id()).is_none());
        assert!(store.get("default").is_some());
    }

    #[test]
    fn a_lease_that_is_renewed_in_time_does_not_end() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        for second in 0..100 {
            store.lease("a", &[Identity::default_chain()], at(second), true).unwrap();
            assert_eq!(store.required().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_watch_believes_only_what_it_has_seen() {
        let mut watch = Watch::new(at(0));
        assert!((1..30).all(|second| !watch.tick(at(second))));
        assert!(watch.tick(at(30)) && watch.tick(at(40)));
        // A pause, and a clock that is set back.
        for jump in [200, 100] {
            assert!((jump..jump + 30).all(|second| !watch.tick(at(second))));
            assert!(watch.tick(at(jump + 30)));
        }
    }

    #[test]
    fn a_pause_takes_nothing_from_a_policy_that_has_not_had_its_turn() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let (mine, other) = ([Identity::default_chain()], [role("other")]);
        store.lease("mine", &mine, at(0), true).unwrap();
        store.lease("other", &other, at(0), true).unwrap();
        store.put(other[0].id(), &credentials("AKIDREVOKED")).unwrap();
        store.revoke(other[0].id()).unwrap();
        store.put(other[0].id(), &credentials("AKIDONE")).unwrap();

        store.lease("mine", &mine, at(100), false).unwrap();
        assert_eq!(store.required().unwrap().len(), 2);
        assert!(store.get(other[0].id()).is_some());
        assert_eq!(store.revoked(other[0].id()).unwrap(), ["AKIDREVOKED"]);
        store.lease("other", &other, at(101), false).unwrap();
        store.sweep(at(102)).unwrap();
        assert_eq!(store.required().unwrap().len(), 2);
    }

    /// Shared data that counts how often the list of leases is read.
    #[derive(Default)]
    struct Counted(Memory, Cell<usize>);

    impl SharedData for &Counted {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            self.1.set(self.1.get() + usize::from(key == LEASES));
            (&self.0).get(key)
        }

        fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
            (&self.0).set(key, value, cas)
        }
    }

    #[test]
    fn the_list_of_leases_is_read_only_when_it_changed_or_a_lease_is_due() {
        let (memory, mine) = (Counted::default(), [Identity::default_chain()]);
        let store = CredentialStore(&memory);
        let (mut signer, mut intake) = (Watch::new(at(0)), Watch::new(at(0)));
        let (mut ids, own) = (RequiredIds::default(), Some(("mine", &mine[..])));
        let reads = |action: &mut dyn FnMut()| {
            let before = memory.1.get();
            action();
            memory.1.get() - before
        };
        for second in 0..2 {
            store.tend_leases(&mut signer, own, at(second)).unwrap();
            store.tend_leases(&mut intake, None, at(second)).unwrap();
        }
        assert_eq!(store.is_required(&mut ids, "default"), Ok(true));
        let pushes = reads(&mut || {
            for second in 2..9 {
                assert_eq!(store.is_required(&mut ids, "default"), Ok(true));
                store.put("default", &credentials(&format!("AKID{second}"))).unwrap();
                store.tend_leases(&mut signer, own, at(second)).unwrap();
                store.tend_leases(&mut intake, None, at(second)).unwrap();
            }
        });
        assert_eq!(pushes, 0);
        assert!((1..=3).contains(&reads(&mut || {
            (9..20).for_each(|second| store.tend_leases(&mut signer, own, at(second)).unwrap());
        })));
        CredentialStore(&memory.0).lease("other", &[role("other")], at(20), true).unwrap();
        assert_eq!(store.is_required(&mut ids, role("other").id()), Ok(true));
        (20..60).for_each(|second| store.tend_leases(&mut intake, None, at(second)).unwrap());
        assert!(store.required().unwrap().is_empty());
        assert_eq!(store.is_required(&mut ids, "default"), Ok(false));
        store.tend_leases(&mut signer, own, at(60)).unwrap();
        assert_eq!(store.required().unwrap(), mine);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_lease_for_long() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("gone", &[role("gone")], at(10_000), true).unwrap();
        store.sweep(at(0)).unwrap();
        assert_eq!(store.required().unwrap().len(), 1);
        store.sweep(at(31)).unwrap();
        assert!(store.required().unwrap().is_empty());
    }

    #[test]
    fn the_intake_alone_sweeps_what_the_last_policy_left() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("last", &[Identity::default_chain()], at(0), true).unwrap();
        store.put("default", &credentials("AKIDONE")).unwrap();
        let generation = store.generation();
        store.sweep(at(29)).unwrap();
        assert_eq!(store.generation(), generation);
        store.sweep(at(31)).unwrap();
        assert!(store.required().unwrap().is_empty() && store.get("default").is_none());
        assert!(store.generation() > generation);
    }

    #[test]
    fn a_policy_that_requires_other_identities_than_before_takes_effect_immediately() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("policy", &[role("old")], at(0), true).unwrap();
        let generation = store.generation();
        assert_eq!(generation, (1_000_000) * 1000);
        store.lease("policy", &[role("new")], at(0), true).unwrap();
        assert_eq!(store.required().unwrap(), [role("new")]);
        assert!(store.generation() > generation);
    }

    /// Checks, byte for byte, the values that earlier versions wrote and can read.
    #[test]
    fn versions_read_each_other() {
        const LEASES_BEFORE: &str = r#"[{"policy":"a","until":1000030,"identities":[{"id":"default"}]}]"#;
        let memory = Memory::default();
        (&memory).set(LEASES, LEASES_BEFORE.as_bytes(), 0).unwrap();
        (&memory).set("sigv4.generation", b"7", 0).unwrap();
        let store = CredentialStore(&memory);
        assert_eq!(store.required().unwrap(), [Identity::default_chain()]);
        store.lease("b", &[], at(0), true).unwrap();
        let written = String::from_utf8((&memory).get(LEASES).unwrap().0).unwrap();
        assert!(written.starts_with(LEASES_BEFORE.trim_end_matches(']')), "{written}");
        assert!(store.generation() > 7);
    }

    #[test]
    fn what_a_later_version_wrote_is_not_overwritten() {
        let memory = Memory::default();
        (&memory).set(LEASES, br#"{"wants": []}"#, 0).unwrap();
        let store = CredentialStore(&memory);
        assert_eq!(store.lease("mine", &[role("mine")], at(0), true), Err(SetError::Unreadable));
        assert_eq!(store.required(), Err(SetError::Unreadable));
        assert_eq!((&memory).get(LEASES).unwrap().0, br#"{"wants": []}"#);
    }

    /// A writer that loses its first race.
    struct Contended<'a>(&'a Memory, RefCell<bool>);

    impl SharedData for Contended<'_> {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            (&self.0).get(key)
        }

        fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
            if self.1.replace(false) {
                CredentialStore(self.0).lease("other", &[role("other")], at(0), true).unwrap();
            }
            (&self.0).set(key, value, cas)
        }
    }

    #[test]
    fn a_lost_race_loses_no_lease() {
        let memory = Memory::default();
        CredentialStore(&memory).lease("first", &[Identity::default_chain()], at(0), true).unwrap();
        let store = CredentialStore(Contended(&memory, RefCell::new(true)));
        store.lease("mine", &[role("mine")], at(0), true).unwrap();
        assert_eq!(store.required().unwrap().len(), 3);
    }
}
