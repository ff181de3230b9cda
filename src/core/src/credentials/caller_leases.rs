//! The identities of callers: those that a policy requires since a caller came, until none has come for a while.
//!
//! All workers of a policy share one lease on them. Each identity in it has the second in which it was last known to be
//! used. When there are as many as there may be, another one takes the place of the longest-idle one, or of one whose
//! credentials do not come.

use std::time::{Duration, SystemTime};

use super::Identity;
use super::changes::{CALLERS_CHANGED, bump_generation};
use super::leases::{
    CALLERS, IdentityLease, LEASE, LEASES, RENEWAL, contains, distinct, found, keep_unrequired, seconds,
};
use super::shared_data::{SetError, SharedData};
use super::store::CredentialStore;

/// The seconds after which another use is recorded.
const USE_RECORDED_EVERY: u64 = 30;

/// The bounds on the identities of a policy's callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerBounds {
    /// The most identities.
    pub most: usize,
    /// An identity that has had no credentials for this time keeps its place only while there is room.
    pub failed: Duration,
    /// Any other identity that was used within this time keeps its place. Longer than uses may go unrecorded.
    pub in_use: Duration,
    /// An identity that was not used for this time is given up.
    pub idle: Duration,
}

impl<D: SharedData> CredentialStore<D> {
    /// Renews the lease of a policy on the identities of its callers: records those that were `used`, adds the `new` ones,
    /// and gives up those that are idle. Returns those of `new` for which there is no room, sorted by id.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn lease_callers(
        &self,
        policy: &str,
        (used, new): (Vec<&Identity>, Vec<&Identity>),
        bounds: CallerBounds,
        now: SystemTime,
    ) -> Result<Vec<Identity>, SetError> {
        let policy = [policy, CALLERS].concat();
        // There may be thousands, to be found among thousands.
        let (used, new) = (distinct(used), distinct(new));
        let mut renewal = CallerRenewal::default();
        self.0.update(LEASES, |leases: &mut Vec<IdentityLease>| {
            renewal = CallerRenewal::of(leases, &policy, (&used, &new), (bounds, &|id| self.is_stored(id)), now);
            renewal.writes
        })?;
        if renewal.changed {
            // Before wiping, so that no intake still sees the identity as required and stores credentials for it again.
            bump_generation(&self.0, SystemTime::UNIX_EPOCH, Some(CALLERS_CHANGED))?;
        }
        for identity in &renewal.dropped {
            self.forget(identity.id())?;
        }
        Ok(renewal.refused)
    }
}

/// Returns whether credentials are stored for the identity of this id.
type IsStored<'s> = &'s dyn Fn(&str) -> bool;

/// Returns the index of the identity that makes room for another one; `None` if all are in use.
fn replaceable(
    entries: &[(Identity, u64)],
    (bounds, is_stored): (CallerBounds, IsStored<'_>),
    now: u64,
) -> Option<usize> {
    let longest_idle = (0..).zip(entries).min_by_key(|(_, (_, last))| *last);
    let idle = longest_idle.filter(|(_, (_, last))| last + bounds.in_use.as_secs() <= now).map(|(index, _)| index);
    let has_failed =
        |(identity, last): &(Identity, u64)| last + bounds.failed.as_secs() <= now && !is_stored(identity.id());
    idle.or_else(|| entries.iter().position(has_failed))
}

/// The effects of a renewal on the list of leases.
#[derive(Default)]
struct CallerRenewal {
    /// `true` if the list must be written.
    writes: bool,
    /// `true` if the required identities have changed.
    changed: bool,
    dropped: Vec<Identity>,
    refused: Vec<Identity>,
}

impl CallerRenewal {
    fn of(
        leases: &mut Vec<IdentityLease>,
        policy: &str,
        (used, new): (&[&Identity], &[&Identity]),
        (bounds, is_stored): (CallerBounds, IsStored<'_>),
        now: SystemTime,
    ) -> Self {
        let mut renewal = Self::default();
        let mut lease = match leases.iter().position(|lease| lease.policy == policy) {
            Some(index) => leases.remove(index),
            None => {
                renewal.changed = true;
                IdentityLease { policy: policy.to_owned(), until: 0, identities: Vec::new(), used: Some(Vec::new()) }
            }
        };
        let (until, due, now) = (seconds(now + LEASE), seconds(now + RENEWAL), seconds(now));
        // A lease that has ended, but was not swept, is that of a process that was paused, or of a clock that was set
        // forward: nobody was idle meanwhile.
        let pause = if lease.until < now { now - lease.until + LEASE.as_secs() } else { 0 };
        if !(due..=until).contains(&lease.until) {
            lease.until = until;
            renewal.writes = true;
        }
        let times = lease.used.take().unwrap_or_default();
        let times = times.into_iter().map(|last| last.saturating_add(pause).min(now.max(last)));
        let mut entries: Vec<_> =
            std::mem::take(&mut lease.identities).into_iter().zip(times.chain(std::iter::repeat(now))).collect();
        for (identity, last) in &mut entries {
            // A time in the future is of a clock that was set back.
            let is_recorded = *last <= now && *last + USE_RECORDED_EVERY > now;
            if *last > now || (!is_recorded && contains(used, identity)) {
                *last = now;
                renewal.writes = true;
            }
        }
        let is_idle = |last: u64| last + bounds.idle.as_secs() <= now;
        renewal.dropped.extend(entries.extract_if(.., |(_, last)| is_idle(*last)).map(|(identity, _)| identity));
        renewal.add(&mut entries, new, (bounds, is_stored), now);
        renewal.changed |= !renewal.dropped.is_empty();
        renewal.writes |= renewal.changed;
        let (identities, times) = entries.into_iter().unzip();
        (lease.identities, lease.used) = (identities, Some(times));
        leases.push(lease);
        if !renewal.dropped.is_empty() {
            keep_unrequired(&mut renewal.dropped, leases);
        }
        renewal
    }

    /// Adds new identities, each with the second of its last use, as far as there is room.
    fn add(
        &mut self,
        entries: &mut Vec<(Identity, u64)>,
        new: &[&Identity],
        (bounds, is_stored): (CallerBounds, IsStored<'_>),
        now: u64,
    ) {
        for (identity, _) in entries.iter_mut() {
            // An earlier version of the filter that rewrote the list has dropped the settings that it does not know.
            if let Some(whole) = found(new, identity).filter(|whole| *whole != identity) {
                identity.clone_from(whole);
                self.changed = true;
            }
        }
        let known = distinct(entries.iter().map(|(identity, _)| identity).collect());
        let missing: Vec<_> = new.iter().filter(|identity| !contains(&known, identity)).collect();
        let mut is_full = false;
        for identity in missing {
            if !is_full && entries.len() >= bounds.most {
                match replaceable(entries, (bounds, is_stored), now) {
                    Some(index) => self.dropped.push(entries.swap_remove(index).0),
                    None => is_full = true,
                }
            }
            if is_full {
                self.refused.push((*identity).clone());
            } else {
                entries.push(((*identity).clone(), now));
                self.changed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::test_data::at;
    use crate::credentials::{RequiredIds, Role, Watch};
    use crate::test_support::{Memory, credentials};

    const BOUNDS: CallerBounds = CallerBounds {
        most: 3,
        failed: Duration::from_secs(10),
        in_use: Duration::from_secs(120),
        idle: Duration::from_secs(1800),
    };

    fn role(name: &str) -> Identity {
        Identity::assumed_for_caller(Role::new(format!("arn:aws:iam::123456789012:role/{name}"), "s"))
    }

    /// Pushes the credentials of roles.
    fn supply(store: &CredentialStore<&Memory>, roles: &[&str]) {
        for name in roles {
            store.put(role(name).id(), &credentials("AKIDEXAMPLE", "secret")).unwrap();
        }
    }

    fn ids(identities: &[Identity]) -> Vec<String> {
        identities.iter().map(|identity| identity.id().to_owned()).collect()
    }

    /// Renews the lease once.
    fn lease(store: &CredentialStore<&Memory>, (used, new): (&[Identity], &[Identity]), second: u64) -> Vec<Identity> {
        let (used, new) = (used.iter().collect(), new.iter().collect());
        store.lease_callers("p", (used, new), BOUNDS, at(second)).unwrap()
    }

    /// Renews the lease every ten seconds from one time to another, with the same uses.
    fn renew(store: &CredentialStore<&Memory>, used: &[Identity], from: u64, to: u64) {
        for second in (from..=to).step_by(10) {
            lease(store, (used, &[]), second);
            store.sweep(at(second)).unwrap();
        }
    }

    #[test]
    fn an_identity_is_required_from_its_first_caller_until_it_is_idle() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        lease(&store, (&[], &[role("a"), role("b")]), 0);
        store.put(role("a").id(), &credentials("AKIDA", "secret")).unwrap();
        store.put(role("b").id(), &credentials("AKIDB", "secret")).unwrap();
        renew(&store, &[role("a")], 0, 1790);
        assert_eq!(store.required().unwrap().len(), 2);
        renew(&store, &[role("a")], 1800, 1800);
        assert_eq!(store.required().unwrap(), [role("a")]);
        assert!(store.get(role("b").id()).is_none() && store.get(role("a").id()).is_some());
    }

    #[test]
    fn the_longest_idle_makes_room_and_one_in_use_does_not() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        lease(&store, (&[], &[role("a"), role("b"), role("c")]), 0);
        supply(&store, &["a", "b", "c", "d"]);
        renew(&store, &[role("a"), role("c")], 0, 100);
        let more = |name: &str, second| lease(&store, (&[], &[role(name)]), second);
        assert_eq!(more("d", 110), [role("d")]);
        assert_eq!(more("d", 121), []);
        let required = ids(&store.required().unwrap());
        assert!(!required.contains(&role("b").id().to_owned()) && required.len() == 3, "{required:?}");
        // A flood finds no more room.
        let flood: Vec<_> = (0..1000).map(|number| role(&format!("flood-{number}"))).collect();
        renew(&store, &[role("a"), role("c"), role("d")], 122, 132);
        assert_eq!(lease(&store, (&[], &flood), 140).len(), 1000);
        assert_eq!(ids(&store.required().unwrap()), required);
    }

    #[test]
    fn an_identity_whose_credentials_do_not_come_makes_room_though_it_is_used() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let all = [role("a"), role("b"), role("c")];
        lease(&store, (&[], &all), 0);
        supply(&store, &["a", "c"]);
        assert_eq!(lease(&store, (&all, &[role("d")]), 9), [role("d")]);
        assert_eq!(lease(&store, (&all, &[role("d")]), 10), []);
        let required = ids(&store.required().unwrap());
        assert!(!required.contains(&role("b").id().to_owned()) && required.len() == 3, "{required:?}");
    }

    #[test]
    fn what_a_policy_names_is_not_wiped_with_a_caller_and_readiness_is_about_it_alone() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let required = || {
            let required = store.requirements().unwrap();
            let names =
                required.identities.into_iter().map(|(identity, is_callers)| (identity.id().to_owned(), is_callers));
            (required.is_loaded, required.takes_callers, names.collect::<Vec<_>>())
        };
        assert_eq!(required(), (false, false, vec![]));
        store.lease("p", &[role("a")], at(0), false).unwrap();
        lease(&store, (&[], &[role("a"), role("b")]), 0);
        store.put(role("a").id(), &credentials("AKIDA", "secret")).unwrap();
        let names = [role("a"), role("b")].map(|identity| identity.id().to_owned());
        assert_eq!(required(), (true, true, vec![(names[0].clone(), false), (names[1].clone(), true)]));
        for second in (0..=1800).step_by(10) {
            store.lease("p", &[role("a")], at(second), false).unwrap();
            lease(&store, (&[], &[]), second);
        }
        assert_eq!(store.required().unwrap(), [role("a")]);
        assert!(store.get(role("a").id()).is_some());
    }

    #[test]
    fn a_pause_of_the_process_takes_no_identity_from_its_callers() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let all = [role("a"), role("b"), role("c")];
        lease(&store, (&[], &all), 0);
        supply(&store, &["a", "b", "c"]);
        renew(&store, &all, 0, 100);
        // An hour, as of a suspended machine. The first worker to resume has seen the uses of one caller alone.
        let resumed = 3700;
        lease(&store, (&[role("a")], &[]), resumed);
        assert_eq!(store.required().unwrap().len(), 3);
        assert!(store.get(role("b").id()).is_some());
        assert_eq!(lease(&store, (&[], &[role("d")]), resumed + 1), [role("d")], "all are in use");
        // Those that nobody uses after the pause are idle in time.
        renew(&store, &[role("a")], resumed, resumed + 1840);
        assert_eq!(store.required().unwrap(), [role("a")]);
    }

    /// Rewrites the list of leases like a version of the filter that knows no callers and no source identities.
    fn rewrite_as_an_earlier_version(memory: &Memory) {
        let mut leases: serde_json::Value =
            serde_json::from_slice(&SharedData::get(&memory, LEASES).unwrap().0).unwrap();
        for lease in leases.as_array_mut().unwrap() {
            lease.as_object_mut().unwrap().remove("used");
            for identity in lease["identities"].as_array_mut().unwrap() {
                identity.as_object_mut().unwrap().remove("sourceIdentity").unwrap();
            }
        }
        SharedData::set(&memory, LEASES, leases.to_string().as_bytes(), 0).unwrap();
    }

    #[test]
    fn what_an_earlier_version_drops_from_the_list_is_written_again() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let with_source = |name: &str| Role {
            source_identity: Some("me".to_owned()),
            ..Role::new(format!("arn:aws:iam::123456789012:role/{name}"), "s")
        };
        let (named, callers) =
            (Identity::assumed(with_source("named")), Identity::assumed_for_caller(with_source("callers")));
        store.lease("p", std::slice::from_ref(&named), at(0), false).unwrap();
        lease(&store, (&[], std::slice::from_ref(&callers)), 0);
        rewrite_as_an_earlier_version(&memory);
        let required = store.requirements().unwrap().identities;
        assert!(required.iter().all(|(identity, _)| !identity.is_understood()), "{required:?}");
        assert!(required.iter().any(|(_, is_callers)| *is_callers), "a caller's identity makes nothing unready");
        store.lease("p", std::slice::from_ref(&named), at(1), false).unwrap();
        // Its request has no credentials, and asks again.
        lease(&store, (std::slice::from_ref(&callers), std::slice::from_ref(&callers)), 1);
        let mut required = store.required().unwrap();
        required.sort();
        let mut all = [named, callers];
        all.sort();
        assert_eq!(required, all);
    }

    #[test]
    fn the_callers_of_a_removed_policy_are_forgotten() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        lease(&store, (&[], &[role("a")]), 0);
        store.put(role("a").id(), &credentials("AKIDA", "secret")).unwrap();
        store.sweep(at(29)).unwrap();
        assert!(store.get(role("a").id()).is_some());
        store.sweep(at(30)).unwrap();
        assert!(store.required().unwrap().is_empty() && store.get(role("a").id()).is_none());
        assert!(!store.requirements().unwrap().takes_callers);
    }

    #[test]
    fn an_intake_sees_a_new_caller_and_workers_read_nothing_else_again() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let mut required = RequiredIds::default();
        lease(&store, (&[], &[]), 0);
        assert_eq!(store.is_required(&mut required, role("a").id()), Ok(false));
        let seen = store.generation();
        lease(&store, (&[], &[role("a")]), 1);
        assert_eq!(store.is_required(&mut required, role("a").id()), Ok(true));
        assert_eq!(store.changes(seen, store.generation()).map(|ids| ids.len()), Some(1));
        // Nothing new, nothing due.
        let seen = store.generation();
        lease(&store, (&[role("a")], &[role("a")]), 2);
        assert_eq!(store.generation(), seen);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_identity_for_long() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        lease(&store, (&[], &[role("a")]), 100_000);
        renew(&store, &[], 0, 1790);
        assert_eq!(store.required().unwrap().len(), 1);
        renew(&store, &[], 1800, 1800);
        assert!(store.required().unwrap().is_empty());
    }

    #[test]
    fn a_policys_own_lease_and_that_of_its_callers_do_not_meet() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        let (own, mut watch) = ([role("named")], Watch::new(at(0)));
        for second in 0..100 {
            store.tend_leases(&mut watch, Some(("p", &own)), at(second)).unwrap();
            if second % 10 == 0 {
                lease(&store, (&[], &[role("a")]), second);
            }
            assert_eq!(store.required().unwrap().len(), 2, "{second}");
        }
    }
}
