//! Calls that race: another worker acts before each access of a call to the shared data, in turn.

use std::cell::Cell;

use super::*;
use crate::credentials::Identity;
use crate::credentials::test_data::{at, credentials};
use crate::test_support::Memory;

/// Shared data in which another worker acts just before a given access.
struct Interrupted<'a> {
    memory: &'a Memory,
    accesses: Cell<usize>,
    at: usize,
    other: &'a dyn Fn(CredentialStore<&Memory>),
}

impl Interrupted<'_> {
    fn count(&self) {
        self.accesses.set(self.accesses.get() + 1);
        if self.accesses.get() == self.at {
            (self.other)(CredentialStore(self.memory));
        }
    }
}

impl SharedData for &Interrupted<'_> {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.count();
        self.memory.get(key)
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
        self.count();
        self.memory.set(key, value, cas)
    }
}

/// Runs `first` and lets `other` act before each of its accesses in turn, and once after all of them.
fn interleave(
    first: &dyn Fn(CredentialStore<&Interrupted<'_>>),
    other: &dyn Fn(CredentialStore<&Memory>),
    check: &dyn Fn(CredentialStore<&Memory>, usize),
) {
    for access in 1.. {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.lease("policy", &[Identity::default_chain()], at(0), true).unwrap();
        store.put("default", &credentials("AKIDBEFORE")).unwrap();
        let data = Interrupted { memory: &memory, accesses: Cell::new(0), at: access, other };
        first(CredentialStore(&data));
        let over = data.accesses.get() < access;
        if over {
            other(store);
        }
        check(store, access);
        if over {
            assert!(access > 3, "{access} accesses");
            return;
        }
    }
}

fn push(store: CredentialStore<impl SharedData>, key: &str, query: &str) -> u16 {
    let document = credentials(key).to_document();
    let path = format!("/v1/identities/default/credentials{query}");
    super::answer(&store, &mut RequiredIds::default(), b"PUT", path.as_bytes(), &document, at(0)).status
}

#[test]
fn a_push_that_races_with_a_revocation_leaves_nothing_of_the_revoked_key() {
    let delete = |store: CredentialStore<&Memory>| store.revoke("default").unwrap();
    let gone = |store: CredentialStore<&Memory>, at: usize| {
        assert!(store.get("default").is_none(), "interrupted at {at}");
        assert!(!store.is_stored("default"), "interrupted at {at}, it lies there");
        assert!(store.revoked("default").unwrap().contains(&"AKIDBEFORE".to_owned()));
    };
    let pushes = |store: CredentialStore<&Interrupted<'_>>| {
        assert!([204, 409].contains(&push(store, "AKIDBEFORE", "?unless-revoked")));
    };
    interleave(&pushes, &delete, &gone);

    // The reverse: the push comes in the middle of the revocation.
    let revoke = |store: CredentialStore<&Interrupted<'_>>| store.revoke("default").unwrap();
    let push_it = |store: CredentialStore<&Memory>| _ = push(store, "AKIDBEFORE", "?unless-revoked");
    interleave(&revoke, &push_it, &|store, at| {
        assert!(store.get("default").is_none(), "interrupted at {at}");
        assert!(!store.is_stored("default"), "interrupted at {at}, it lies there");
    });
}

#[test]
fn of_two_pushes_that_race_one_is_left_whole_and_every_worker_sees_it() {
    let first = |store: CredentialStore<&Interrupted<'_>>| assert_eq!(push(store, "AKIDFIRST", ""), 204);
    let other = |store: CredentialStore<&Memory>| assert_eq!(push(store, "AKIDOTHER", ""), 204);
    let seen = Cell::new(0);
    interleave(&first, &other, &|store, at| {
        let held = store.get("default").unwrap();
        assert!(["AKIDFIRST", "AKIDOTHER"].contains(&held.access_key_id()));
        assert_eq!(held.secret_access_key(), "secret");
        // Two changes after the initial ones: a worker that saw either reads again.
        let generation = store.generation();
        if seen.get() == 0 {
            seen.set(generation);
        }
        assert_eq!(generation, seen.get(), "interrupted at {at}");
        let ids = store.changes(generation - 2, generation);
        assert!(ids.is_none_or(|ids| ids == ["default", "default"]), "interrupted at {at}");
    });
}
