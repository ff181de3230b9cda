//! The slots of workers: a number for each worker, which names the queue by which it is notified of changes.

use std::time::SystemTime;

use super::leases::{LEASE, RENEWAL, seconds};
use super::shared_data::{SetError, SharedData};
use super::store::CredentialStore;

const SLOTS: &str = "sigv4.watchers";

impl<D: SharedData> CredentialStore<D> {
    /// Claims the lowest free slot until the lease ends.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn claim_slot(&self, now: SystemTime) -> Result<usize, SetError> {
        let mut slot = 0;
        self.0.update(SLOTS, |slots: &mut Vec<u64>| {
            let until = seconds(now + LEASE);
            // A paused process gets some time to renew its own.
            match slots.iter().position(|held| *held + LEASE.as_secs() <= seconds(now)) {
                Some(free) => {
                    slot = free;
                    slots[free] = until;
                }
                None => {
                    slot = slots.len();
                    slots.push(until);
                }
            }
            true
        })?;
        Ok(slot)
    }

    /// Renews the lease of a slot, even if it has expired meanwhile, as in a pause of the process. Returns
    /// `false` if there is no such slot.
    ///
    /// # Errors
    /// If the proxy refuses the value.
    pub fn renew_slot(&self, slot: usize, now: SystemTime) -> Result<bool, SetError> {
        let mut held = true;
        self.0.update(SLOTS, |slots: &mut Vec<u64>| {
            let (due, latest) = (seconds(now + RENEWAL), seconds(now + LEASE));
            match slots.get_mut(slot) {
                Some(until) if (due..=latest).contains(until) => false,
                Some(until) => {
                    *until = latest;
                    true
                }
                None => {
                    held = false;
                    false
                }
            }
        })?;
        Ok(held)
    }

    /// Returns the slots of all live workers.
    pub fn live_slots(&self, now: SystemTime) -> Vec<usize> {
        let slots: Vec<u64> = self.0.read(SLOTS);
        (0..).zip(slots).filter(|(_, until)| *until > seconds(now)).map(|(slot, _)| slot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::test_data::at;
    use crate::test_support::Memory;

    #[test]
    fn slots_are_reused() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert_eq!(store.claim_slot(at(0)), Ok(0));
        assert_eq!(store.claim_slot(at(0)), Ok(1));
        assert_eq!(store.renew_slot(1, at(20)), Ok(true));
        assert_eq!(store.live_slots(at(31)), [1]);
        assert_eq!(store.renew_slot(2, at(31)), Ok(false));
        assert_eq!(store.claim_slot(at(31)), Ok(2));
        assert_eq!(store.claim_slot(at(60)), Ok(0));
        assert_eq!(store.live_slots(at(60)), [0, 2]);
    }

    #[test]
    fn a_worker_keeps_its_slot_over_a_pause_and_a_clock_that_is_set_back() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert_eq!(store.claim_slot(at(1000)), Ok(0));
        assert_eq!(store.renew_slot(0, at(1100)), Ok(true));
        assert_eq!(store.live_slots(at(1101)), [0]);
        assert_eq!(store.renew_slot(0, at(0)), Ok(true));
        assert!(store.live_slots(at(31)).is_empty());
    }
}
