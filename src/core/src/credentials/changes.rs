//! The generation of a store, and the log of its changes, by which a worker reads only what changed.

use std::time::SystemTime;

use super::shared_data::{SetError, SharedData};

const GENERATION: &str = "sigv4.generation";
const CHANGES: &str = "sigv4.changes";

/// The size of the change log in bytes, a few hundred changes. A worker that missed more reads everything.
const CHANGES_MAX: usize = 16 << 10;

/// Logged instead of an id if the identities of callers changed. Another version of the filter finds no identity of this id.
pub(super) const CALLERS_CHANGED: &str = "*";

/// A number that is not a generation of any store.
pub(super) const UNSEEN: u64 = u64::MAX;

/// Returns a number that changes with every change of the credentials and leases. It starts at the clock's milliseconds,
/// so that it differs after a restart of the proxy.
pub(super) fn generation(data: &impl SharedData) -> u64 {
    data.read(GENERATION)
}

/// Returns the ids of the identities whose credentials changed after generation `seen` and up to `generation`. `None` if
/// something else changed too, if `seen` is too old, or if another version of the filter made a change: then read
/// everything again.
pub(super) fn changes(data: &impl SharedData, seen: u64, generation: u64) -> Option<Vec<String>> {
    let missed = usize::try_from(generation.checked_sub(seen)?).ok()?;
    if missed == 0 {
        return Some(Vec::new());
    }
    let (log, _) = data.get(CHANGES)?;
    let log = std::str::from_utf8(&log).ok()?;
    let mut ids = Vec::new();
    for (number, id) in log.lines().filter_map(|line| line.split_once(' ')) {
        if (seen + 1..=generation).contains(&number.parse().ok()?) {
            ids.push(id.to_owned());
        }
    }
    // Each generation has one line, or none if it changed something other than one identity's credentials.
    (ids.len() == missed).then_some(ids)
}

/// Begins another generation, in which the credentials of one identity changed, or else the leases.
pub(super) fn bump_generation(data: &impl SharedData, start: SystemTime, id: Option<&str>) -> Result<(), SetError> {
    let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut begun = 0;
    data.update(GENERATION, |generation: &mut u64| {
        *generation = start.max(*generation + 1);
        begun = *generation;
        true
    })?;
    let Some(id) = id else { return Ok(()) };
    data.update_bytes(CHANGES, &mut |log| {
        let line = format!("{begun} {id}\n");
        // Only whole lines are dropped: a partial line could be read as another id.
        let cut = match (log.len() + line.len()).saturating_sub(CHANGES_MAX) {
            0 => 0,
            surplus => {
                let end = log.iter().skip(surplus - 1).position(|byte| *byte == b'\n');
                end.map_or(log.len(), |end| surplus + end)
            }
        };
        Some([&log[cut..], line.as_bytes()].concat())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::test_data::{at, credentials};
    use crate::credentials::{CredentialStore, Identity};
    use crate::test_support::Memory;

    #[test]
    fn a_worker_is_told_which_credentials_changed_or_to_read_everything() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.put("a", &credentials("AKIDONE")).unwrap();
        let seen = store.generation();
        assert_eq!(store.changes(seen, seen), Some(Vec::new()));
        store.put("b", &credentials("AKIDONE")).unwrap();
        store.revoke("a").unwrap();
        let now = store.generation();
        assert_eq!(store.changes(seen, now), Some(vec!["b".to_owned(), "a".to_owned()]));
        assert_eq!(store.changes(seen, seen + 1), Some(vec!["b".to_owned()]));
        assert_eq!(store.changes(UNSEEN, now), None);

        // Like another version of the filter, which logs no id.
        (&memory).set(GENERATION, (now + 1).to_string().as_bytes(), 0).unwrap();
        assert_eq!(store.changes(now, store.generation()), None);
        // A change of the leases.
        let seen = store.generation();
        store.lease("policy", &[Identity::default_chain()], at(0), true).unwrap();
        assert_eq!(store.changes(seen, store.generation()), None);
        // More changes than the bounded log holds.
        let seen = store.generation();
        for _ in 0..1000 {
            store.put("default", &credentials("AKIDONE")).unwrap();
        }
        assert_eq!(store.changes(seen, store.generation()), None);
        assert_eq!(store.changes(store.generation() - 300, store.generation()).map(|ids| ids.len()), Some(300));
        assert!((&memory).get(CHANGES).unwrap().0.len() <= CHANGES_MAX);
    }
}
