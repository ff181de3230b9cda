//! What the workers of one proxy share: which identities the loaded policies want, the credentials held for them,
//! and who is to be told when they change.
//!
//! Everything lives in the proxy's shared data, a map of bytes in its memory that all virtual machines of one
//! `vm_id` see. The map has no deletion and outlives a single policy, so nothing here grows with time: wants and
//! watchers are leases that run out when nobody renews them, and forgotten credentials are overwritten by nothing.

use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Credentials, Identity};

/// How long a want or a watcher lasts without renewal. A policy that was taken away stays wanted that long.
pub const LEASE: Duration = Duration::from_secs(30);

/// Renewed when less than this is left, so that a worker that misses a tick or two loses nothing.
const RENEWAL: Duration = Duration::from_secs(20);

/// A virtual machine whose clock jumps by more seconds than this was paused, or had its clock set: what looks expired may be in use.
const LONGEST_TICK: u64 = 10;

/// A writer that loses this many races in a row gives up; with one try a tick and worker it can't happen by chance.
const ATTEMPTS: usize = 64;

/// So many revoked access keys of an identity are remembered; nobody revokes that many while an older one still holds.
const REVOKED_MAX: usize = 16;

const WANTED: &str = "sigv4.wanted";
const WATCHERS: &str = "sigv4.watchers";
const GENERATION: &str = "sigv4.generation";
const CHANGES: &str = "sigv4.changes";

/// So many bytes of the latest changes are kept, a few hundred changes. A worker that missed more reads everything.
const CHANGES_MAX: usize = 16 << 10;

/// The proxy's shared data.
pub trait SharedData {
    /// The value under a key and its compare-and-swap number; `None` where nothing was ever set.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets a value, with `cas` only where the number is still that one (0: any).
    ///
    /// # Errors
    /// [`SetError::Raced`] where another writer was faster.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError>;

    /// Returns the value under a key, which is JSON; the default where there is none, or none of this type.
    fn read<T: DeserializeOwned + Default>(&self, key: &str) -> T {
        self.get(key).and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Updates a value with compare-and-swap, retrying on conflict. `change` gets the value and returns the new one, or
    /// `None` if there is nothing to write.
    ///
    /// A value that was never set has no number to compare, so the very first write of a key is not guarded. The
    /// proxy makes it before it starts its workers, when it tries a policy out on its main thread.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    fn update_bytes(&self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (bytes, cas) = self.get(key).unwrap_or_default();
            let Some(changed) = change(&bytes) else { return Ok(()) };
            match self.set(key, &changed, cas) {
                Err(SetError::Raced) => {}
                done => return done,
            }
        }
        Err(SetError::Raced)
    }

    /// [Updates](Self::update_bytes) a value that is JSON. `change` returns whether to write.
    ///
    /// # Errors
    /// If the proxy does not take the value, or if it is one that another version wrote and this one can't read: to
    /// overwrite it would take away what that version's policies require.
    fn update<T, F>(&self, key: &str, mut change: F) -> Result<(), SetError>
    where
        T: Serialize + DeserializeOwned + Default,
        F: FnMut(&mut T) -> bool,
    {
        let mut readable = true;
        self.update_bytes(key, &mut |bytes| {
            let value = if bytes.is_empty() { Some(T::default()) } else { serde_json::from_slice(bytes).ok() };
            readable = value.is_some();
            // Writing into a vector does not fail.
            value.and_then(|mut value| change(&mut value).then(|| serde_json::to_vec(&value).unwrap_or_default()))
        })?;
        if readable { Ok(()) } else { Err(SetError::Unreadable) }
    }
}

/// Why shared data was not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The value had changed since it was read.
    #[error("another worker changed the value first")]
    Raced,
    /// The proxy did not take it.
    #[error("the proxy refused the value")]
    Refused,
    /// Another version of the filter wrote the value that is there.
    #[error("another version of the filter wrote the data of this vm_id: use one .wasm, or another vm_id")]
    Unreadable,
}

/// Whether a virtual machine has watched time pass for long enough to know whose lease has run out.
///
/// After a pause of the whole process (a suspended machine, a stopped process, a clock that was set), every lease but the
/// watching policy's own looks expired, as the others have not had their turn yet.
///
/// It also knows when the list of wants, which may be long, has to be read again.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    since: u64,
    last: u64,
    /// The generation of the list when it was last read, and the second from which a lease in it is due.
    generation: u64,
    due: u64,
}

impl Watch {
    /// Begins at `now`.
    pub fn new(now: SystemTime) -> Self {
        Self { since: seconds(now), last: seconds(now), generation: UNSEEN, due: 0 }
    }

    /// Takes note that it is `now`, and returns whether leases that have run out are to be believed.
    fn tick(&mut self, now: SystemTime) -> bool {
        let now = seconds(now);
        if now < self.last || now - self.last > LONGEST_TICK {
            self.since = now;
            // A lease may now end later than any that is given.
            self.due = 0;
        }
        self.last = now;
        now - self.since >= LEASE.as_secs()
    }
}

/// The ids of all identities that are wanted, as of one generation.
#[derive(Debug, Clone)]
pub struct WantedIds {
    generation: u64,
    sorted: Vec<String>,
}

impl Default for WantedIds {
    fn default() -> Self {
        Self { generation: UNSEEN, sorted: Vec::new() }
    }
}

/// Not a generation of any store.
const UNSEEN: u64 = u64::MAX;

/// The store over one proxy's shared data.
#[derive(Debug, Clone, Copy)]
pub struct CredentialStore<D>(pub D);

/// The identities that one policy wants.
#[derive(Serialize, Deserialize)]
struct Want {
    policy: String,
    until: u64,
    identities: Vec<Identity>,
}

impl<D: SharedData> CredentialStore<D> {
    /// Renews the lease of a policy, if there is one, and [sweeps](Self::sweep) once the watch has lasted long enough.
    /// Reads the list of wants only if it may have changed or a lease in it is due.
    ///
    /// # Errors
    /// If the proxy does not take the value.
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

    /// Says, until the lease ends, that `policy` wants `identities`; with `sweep`, [sweeps](Self::sweep) too.
    ///
    /// # Errors
    /// If the proxy does not take the value.
    pub fn want(&self, policy: &str, identities: &[Identity], now: SystemTime, sweep: bool) -> Result<(), SetError> {
        self.renew(Some((policy, identities)), now, sweep).map(drop)
    }

    /// Ends the leases that have run out, and wipes the credentials that no policy wants any more. Only for who has seen
    /// the time pass in which they were not renewed: see [`Watch`].
    ///
    /// # Errors
    /// If the proxy does not take the value.
    pub fn sweep(&self, now: SystemTime) -> Result<(), SetError> {
        self.renew(None, now, true).map(drop)
    }

    /// Returns the second from which the next lease is due.
    fn renew(&self, own: Option<(&str, &[Identity])>, now: SystemTime, sweep: bool) -> Result<u64, SetError> {
        let mut renewal = Renewal::default();
        self.0.update(WANTED, |wants: &mut Vec<Want>| {
            renewal = Renewal::of(wants, own, now, sweep);
            renewal.writes
        })?;
        if renewal.changed {
            // Before anything is wiped, so that no intake takes it for wanted and holds it again.
            self.bump(now, None)?;
        }
        if !renewal.dropped.is_empty() {
            renewal.dropped.iter().try_for_each(|identity| self.erase(identity.id()))?;
            self.bump(now, None)?;
        }
        Ok(renewal.due)
    }

    /// All identities that are wanted, each once, in a steady order.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub fn wanted(&self) -> Result<Vec<Identity>, SetError> {
        let wants: Vec<Want> = match self.0.get(WANTED) {
            Some((bytes, _)) => serde_json::from_slice(&bytes).map_err(|_| SetError::Unreadable)?,
            None => Vec::new(),
        };
        Ok(distinct(&wants).into_iter().cloned().collect())
    }

    /// Returns whether a policy wants the identity of this id. `ids` are read again only if the wants may have changed.
    ///
    /// # Errors
    /// If another version of the filter wrote what this one can't read.
    pub fn is_wanted(&self, ids: &mut WantedIds, id: &str) -> Result<bool, SetError> {
        // Before what is wanted, so that a change on the way is seen with the next look.
        let generation = self.generation();
        if self.changes(ids.generation, generation).is_none() {
            ids.sorted = self.wanted()?.iter().map(|identity| identity.id().to_owned()).collect();
        }
        ids.generation = generation;
        Ok(ids.sorted.binary_search_by(|wanted| wanted.as_str().cmp(id)).is_ok())
    }

    /// Holds credentials for an identity, in place of any before; a reader sees the old or the new, never a mixture.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn put(&self, id: &str, credentials: &Credentials) -> Result<(), SetError> {
        self.0.set(&credentials_key(id), &credentials.to_document(), 0)?;
        self.bump(SystemTime::UNIX_EPOCH, Some(id))
    }

    /// Takes away what is held for an identity, and remembers its access key for as long as the identity is wanted: it
    /// is not read again, whoever puts it back, until it is [reinstated](Self::reinstate).
    ///
    /// # Errors
    /// Where the proxy does not take a value. What is held is wiped even if its access key can't be remembered.
    pub fn revoke(&self, id: &str) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (document, cas) = self.0.get(&credentials_key(id)).unwrap_or_default();
            // Before it is wiped, so that a push of the same key that is under way changes nothing.
            let noted = match access_key_of(document) {
                Some(key) => self.note_revoked(id, key),
                None => Ok(()),
            };
            // Another key that was pushed meanwhile is revoked too: the caller means what is held.
            match self.0.set(&credentials_key(id), b"", cas) {
                Err(SetError::Raced) => {}
                wiped => return wiped.and_then(|()| self.bump(SystemTime::UNIX_EPOCH, Some(id))).and(noted),
            }
        }
        Err(SetError::Raced)
    }

    fn note_revoked(&self, id: &str, access_key_id: String) -> Result<(), SetError> {
        self.0.update(&revoked_key(id), |revoked: &mut Vec<String>| {
            revoked.retain(|key| *key != access_key_id);
            revoked.push(access_key_id.clone());
            revoked.drain(..revoked.len().saturating_sub(REVOKED_MAX));
            true
        })
    }

    /// Wipes what is held for an identity if it is this access key, as after a push that lost a race with a revocation.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn discard(&self, id: &str, access_key_id: &str) -> Result<(), SetError> {
        for _ in 0..ATTEMPTS {
            let (document, cas) = self.0.get(&credentials_key(id)).unwrap_or_default();
            if access_key_of(document).is_none_or(|held| held != access_key_id) {
                return Ok(());
            }
            match self.0.set(&credentials_key(id), b"", cas) {
                Err(SetError::Raced) => {}
                wiped => return wiped.and_then(|()| self.bump(SystemTime::UNIX_EPOCH, Some(id))),
            }
        }
        Err(SetError::Raced)
    }

    /// Lets an access key be used again that was revoked.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn reinstate(&self, id: &str, access_key_id: &str) -> Result<(), SetError> {
        self.0.update(&revoked_key(id), |revoked: &mut Vec<String>| {
            let before = revoked.len();
            revoked.retain(|key| key != access_key_id);
            revoked.len() < before
        })
    }

    /// Returns the ids of the access keys that were taken away from an identity, latest last.
    ///
    /// # Errors
    /// If they can't be read, as another version of the filter wrote them or they are damaged: then any key may be one.
    pub fn revoked(&self, id: &str) -> Result<Vec<String>, SetError> {
        match self.0.get(&revoked_key(id)) {
            Some((list, _)) if !list.is_empty() => serde_json::from_slice(&list).map_err(|_| SetError::Unreadable),
            _ => Ok(Vec::new()),
        }
    }

    /// Returns what is held for an identity, expired or not, but never what was revoked or may have been.
    pub fn get(&self, id: &str) -> Option<Credentials> {
        let (document, _) = self.0.get(&credentials_key(id))?;
        let credentials = Credentials::from_document(&Zeroizing::new(document)).ok()?;
        match self.revoked(id) {
            Ok(revoked) => (!revoked.iter().any(|key| key == credentials.access_key_id())).then_some(credentials),
            Err(error) => {
                log::error!("no credentials are used for {id:?}, as its revocations can't be read: {error}");
                None
            }
        }
    }

    /// Returns whether anything is stored for an identity, even if it can't be used.
    pub fn is_stored(&self, id: &str) -> bool {
        self.0.get(&credentials_key(id)).is_some_and(|(document, _)| !document.is_empty())
    }

    /// Wipes all that is known of an identity that no policy wants any more.
    ///
    /// # Errors
    /// If the proxy does not take the value.
    pub fn forget(&self, id: &str) -> Result<(), SetError> {
        self.erase(id)?;
        self.bump(SystemTime::UNIX_EPOCH, Some(id))
    }

    fn erase(&self, id: &str) -> Result<(), SetError> {
        if self.0.get(&revoked_key(id)).is_some_and(|(list, _)| !list.is_empty()) {
            self.0.set(&revoked_key(id), b"", 0)?;
        }
        self.0.set(&credentials_key(id), b"", 0)
    }

    /// A number that changes with every change of the credentials and of what is wanted. It starts with the milliseconds
    /// of the clock, so that it is another one after a restart of the proxy.
    pub fn generation(&self) -> u64 {
        self.0.read(GENERATION)
    }

    /// Takes a watcher's place until the lease ends; the number is the lowest that is free.
    ///
    /// # Errors
    /// Where the proxy does not take the value.
    pub fn claim_watcher(&self, now: SystemTime) -> Result<usize, SetError> {
        let mut place = 0;
        self.0.update(WATCHERS, |watchers: &mut Vec<u64>| {
            let until = seconds(now + LEASE);
            // Those of a paused process get a while to renew them.
            match watchers.iter().position(|held| *held + LEASE.as_secs() <= seconds(now)) {
                Some(free) => {
                    place = free;
                    watchers[free] = until;
                }
                None => {
                    place = watchers.len();
                    watchers.push(until);
                }
            }
            true
        })?;
        Ok(place)
    }

    /// Keeps a watcher's place for another lease, even if the lease has run out meanwhile, as in a pause of the process.
    /// Returns `false` if there is no such place.
    ///
    /// # Errors
    /// If the proxy does not take the value.
    pub fn renew_watcher(&self, place: usize, now: SystemTime) -> Result<bool, SetError> {
        let mut held = true;
        self.0.update(WATCHERS, |watchers: &mut Vec<u64>| {
            let (due, latest) = (seconds(now + RENEWAL), seconds(now + LEASE));
            match watchers.get_mut(place) {
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

    /// The places of all live watchers.
    pub fn watchers(&self, now: SystemTime) -> Vec<usize> {
        let watchers: Vec<u64> = self.0.read(WATCHERS);
        (0..).zip(watchers).filter(|(_, until)| *until > seconds(now)).map(|(place, _)| place).collect()
    }

    /// The ids of the identities whose credentials changed after generation `seen` and up to `generation`. `None` if
    /// something else changed too, if that is too long ago, or if another version of the filter changed it: then everything
    /// is to be read again.
    pub fn changes(&self, seen: u64, generation: u64) -> Option<Vec<String>> {
        let missed = usize::try_from(generation.checked_sub(seen)?).ok()?;
        if missed == 0 {
            return Some(Vec::new());
        }
        let (log, _) = self.0.get(CHANGES)?;
        let log = std::str::from_utf8(&log).ok()?;
        let mut ids = Vec::new();
        for (number, id) in log.lines().filter_map(|line| line.split_once(' ')) {
            if (seen + 1..=generation).contains(&number.parse().ok()?) {
                ids.push(id.to_owned());
            }
        }
        // Each generation has one line, or none if it was not the credentials of one identity that changed.
        (ids.len() == missed).then_some(ids)
    }

    /// Begins another generation, in which the credentials of one identity changed, or else what is wanted.
    fn bump(&self, start: SystemTime, id: Option<&str>) -> Result<(), SetError> {
        let start = start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut begun = 0;
        self.0.update(GENERATION, |generation: &mut u64| {
            *generation = start.max(*generation + 1);
            begun = *generation;
            true
        })?;
        let Some(id) = id else { return Ok(()) };
        self.0.update_bytes(CHANGES, &mut |log| {
            let line = format!("{begun} {id}\n");
            // Whole lines are dropped: the rest of one could be taken for another.
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
}

/// What a renewal does to the list of wants.
#[derive(Default)]
struct Renewal {
    /// Whether the list is to be written.
    writes: bool,
    /// Whether other identities are wanted than before.
    changed: bool,
    /// What no policy wants any more.
    dropped: Vec<Identity>,
    /// The second from which the next lease is due.
    due: u64,
}

impl Renewal {
    fn of(wants: &mut Vec<Want>, own: Option<(&str, &[Identity])>, now: SystemTime, sweep: bool) -> Self {
        let (until, now) = (seconds(now + LEASE), seconds(now));
        let mut renewal = Self::default();
        // A lease that ends later was given before the clock was set back.
        for want in wants.iter_mut().filter(|want| want.until > until) {
            want.until = until;
            renewal.writes = true;
        }
        let renewed_from = |until: u64| until.saturating_sub(RENEWAL.as_secs() - 1);
        if let Some((policy, identities)) = own {
            let place = wants.iter().position(|want| want.policy == policy);
            match place {
                Some(place) if same_ids(&wants[place].identities, identities) => {
                    if now >= renewed_from(wants[place].until) {
                        wants[place].until = until;
                        renewal.writes = true;
                    }
                }
                _ => {
                    renewal.dropped.extend(place.map(|place| wants.remove(place).identities).into_iter().flatten());
                    wants.push(Want { policy: policy.to_owned(), until, identities: identities.to_vec() });
                    renewal.changed = true;
                }
            }
        }
        let is_own = |want: &Want| own.is_some_and(|(policy, _)| want.policy == policy);
        wants.retain_mut(|want| {
            let over = sweep && want.until <= now;
            if over {
                renewal.dropped.append(&mut want.identities);
                renewal.changed = true;
            }
            !over
        });
        let due = |want: &Want| if is_own(want) { renewed_from(want.until) } else { want.until };
        renewal.due = wants.iter().map(due).min().unwrap_or(u64::MAX);
        renewal.writes |= renewal.changed;
        if !renewal.dropped.is_empty() {
            let kept = distinct(wants);
            renewal.dropped.retain(|identity| kept.binary_search_by(|kept| kept.id().cmp(identity.id())).is_err());
        }
        renewal
    }
}

/// All identities that are wanted, each once, sorted by their ids.
fn distinct(wants: &[Want]) -> Vec<&Identity> {
    let mut identities: Vec<_> = wants.iter().flat_map(|want| &want.identities).collect();
    identities.sort_unstable_by(|a, b| a.id().cmp(b.id()));
    identities.dedup_by(|a, b| a.id() == b.id());
    identities
}

/// An id is made of all that tells an identity apart.
fn same_ids(some: &[Identity], others: &[Identity]) -> bool {
    some.iter().map(Identity::id).eq(others.iter().map(Identity::id))
}

/// Returns the id of the access key in a stored document.
fn access_key_of(document: Vec<u8>) -> Option<String> {
    let credentials = Credentials::from_document(&Zeroizing::new(document)).ok()?;
    Some(credentials.access_key_id().to_owned())
}

fn credentials_key(id: &str) -> String {
    format!("sigv4.credentials.{id}")
}

fn revoked_key(id: &str) -> String {
    format!("sigv4.revoked.{id}")
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::credentials::Role;
    use crate::test_support::{self, Memory};

    fn at(seconds: u64) -> SystemTime {
        test_support::at(1_000_000 + seconds)
    }

    fn role(name: &str) -> Identity {
        let arn = format!("arn:aws:iam::123456789012:role/{name}");
        Identity::assumed(Role::new(arn, "s"))
    }

    fn credentials(key: &str) -> Credentials {
        test_support::credentials(key, "secret")
    }

    #[test]
    fn what_is_put_is_held_until_it_is_revoked() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert!(store.get("default").is_none());
        store.put("default", &credentials("AKIDONE")).unwrap();
        let first = store.generation();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDONE");
        store.put("default", &credentials("AKIDTWO")).unwrap();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDTWO");
        assert_ne!(store.generation(), first);
        store.revoke("default").unwrap();
        assert!(store.get("default").is_none());
    }

    #[test]
    fn a_revoked_key_is_not_read_again_for_as_long_as_its_identity_is_wanted() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("policy", &[Identity::default_chain()], at(0), true).unwrap();
        store.revoke("default").unwrap();
        assert!(store.revoked("default").unwrap().is_empty());
        for key in ["AKIDONE", "AKIDTWO"] {
            store.put("default", &credentials(key)).unwrap();
            store.revoke("default").unwrap();
        }
        assert_eq!(store.revoked("default").unwrap(), ["AKIDONE", "AKIDTWO"]);
        // As a push does that was under way meanwhile.
        store.put("default", &credentials("AKIDONE")).unwrap();
        assert!(store.get("default").is_none());
        store.reinstate("default", "AKIDONE").unwrap();
        assert_eq!(store.get("default").unwrap().access_key_id(), "AKIDONE");
        assert_eq!(store.revoked("default").unwrap(), ["AKIDTWO"]);

        store.want("other", &[role("reader")], at(31), true).unwrap();
        assert!(store.revoked("default").unwrap().is_empty());
    }

    #[test]
    fn a_revocation_wipes_what_is_held_even_if_it_can_not_be_noted() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.put("default", &credentials("AKIDONE")).unwrap();
        (&memory).set("sigv4.revoked.default", b"{}", 0).unwrap();
        let generation = store.generation();
        assert!(store.get("default").is_none() && store.is_stored("default"));
        assert_eq!(store.revoked("default"), Err(SetError::Unreadable));
        assert_eq!(store.revoke("default"), Err(SetError::Unreadable));
        assert!(!store.is_stored("default") && store.generation() > generation);
        assert_eq!((&memory).get("sigv4.revoked.default").unwrap().0, b"{}");
    }

    /// Shared data in which another worker acts just before a certain access.
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
        for at in 1.. {
            let memory = Memory::default();
            let store = CredentialStore(&memory);
            store.want("policy", &[Identity::default_chain()], at_start(), true).unwrap();
            store.put("default", &credentials("AKIDBEFORE")).unwrap();
            let data = Interrupted { memory: &memory, accesses: Cell::new(0), at, other };
            first(CredentialStore(&data));
            let over = data.accesses.get() < at;
            if over {
                other(store);
            }
            check(store, at);
            if over {
                assert!(at > 3, "{at} accesses");
                return;
            }
        }
    }

    fn at_start() -> SystemTime {
        at(0)
    }

    fn push(store: CredentialStore<impl SharedData>, key: &str, query: &str) -> u16 {
        let document = credentials(key).to_document();
        let path = format!("/v1/identities/default/credentials{query}");
        crate::intake::answer(&store, &mut WantedIds::default(), b"PUT", path.as_bytes(), &document, at(0)).status
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
            // Two changes after those of the start: a worker that saw either looks again.
            let generation = store.generation();
            if seen.get() == 0 {
                seen.set(generation);
            }
            assert_eq!(generation, seen.get(), "interrupted at {at}");
            let ids = store.changes(generation - 2, generation);
            assert!(ids.is_none_or(|ids| ids == ["default", "default"]), "interrupted at {at}");
        });
    }

    #[test]
    fn what_is_remembered_of_revocations_is_bounded() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        for number in 0..100 {
            store.put("default", &credentials(&format!("AKID{number}"))).unwrap();
            store.revoke("default").unwrap();
        }
        let revoked = store.revoked("default").unwrap();
        assert_eq!((revoked.len(), revoked.last().map(String::as_str)), (REVOKED_MAX, Some("AKID99")));
    }

    #[test]
    fn the_wants_of_all_policies_are_listed_once() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("a", &[Identity::default_chain(), role("reader")], at(0), true).unwrap();
        store.want("b", &[Identity::default_chain(), role("writer")], at(0), true).unwrap();
        store.want("b", &[Identity::default_chain(), role("writer")], at(1), true).unwrap();
        let ids: Vec<_> =
            store.wanted().unwrap().iter().map(|i| i.id().split('-').next().unwrap().to_owned()).collect();
        assert_eq!(ids, ["default", "reader", "writer"]);
    }

    #[test]
    fn a_policy_that_is_gone_is_no_longer_wanted_and_its_credentials_are_wiped() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("old", &[role("reader"), Identity::default_chain()], at(0), true).unwrap();
        store.put(role("reader").id(), &credentials("AKIDONE")).unwrap();
        store.put("default", &credentials("AKIDTWO")).unwrap();
        store.want("new", &[Identity::default_chain()], at(29), true).unwrap();
        assert_eq!(store.wanted().unwrap().len(), 2);
        let generation = store.generation();
        store.want("new", &[Identity::default_chain()], at(31), true).unwrap();
        assert_eq!(store.wanted().unwrap(), [Identity::default_chain()]);
        assert!(store.generation() > generation);
        assert!(store.get(role("reader").id()).is_none());
        assert!(store.get("default").is_some());
    }

    #[test]
    fn a_want_that_is_renewed_in_time_does_not_end() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        for second in 0..100 {
            store.want("a", &[Identity::default_chain()], at(second), true).unwrap();
            assert_eq!(store.wanted().unwrap().len(), 1);
        }
    }

    #[test]
    fn places_of_watchers_are_used_again() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert_eq!(store.claim_watcher(at(0)), Ok(0));
        assert_eq!(store.claim_watcher(at(0)), Ok(1));
        assert_eq!(store.renew_watcher(1, at(20)), Ok(true));
        assert_eq!(store.watchers(at(31)), [1]);
        assert_eq!(store.renew_watcher(2, at(31)), Ok(false));
        assert_eq!(store.claim_watcher(at(31)), Ok(2));
        assert_eq!(store.claim_watcher(at(60)), Ok(0));
        assert_eq!(store.watchers(at(60)), [0, 2]);
    }

    #[test]
    fn a_watcher_keeps_its_place_over_a_pause_and_a_clock_that_is_set_back() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        assert_eq!(store.claim_watcher(at(1000)), Ok(0));
        assert_eq!(store.renew_watcher(0, at(1100)), Ok(true));
        assert_eq!(store.watchers(at(1101)), [0]);
        assert_eq!(store.renew_watcher(0, at(0)), Ok(true));
        assert!(store.watchers(at(31)).is_empty());
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
        store.want("mine", &mine, at(0), true).unwrap();
        store.want("other", &other, at(0), true).unwrap();
        store.put(other[0].id(), &credentials("AKIDREVOKED")).unwrap();
        store.revoke(other[0].id()).unwrap();
        store.put(other[0].id(), &credentials("AKIDONE")).unwrap();

        store.want("mine", &mine, at(100), false).unwrap();
        assert_eq!(store.wanted().unwrap().len(), 2);
        assert!(store.get(other[0].id()).is_some());
        assert_eq!(store.revoked(other[0].id()).unwrap(), ["AKIDREVOKED"]);
        store.want("other", &other, at(101), false).unwrap();
        store.sweep(at(102)).unwrap();
        assert_eq!(store.wanted().unwrap().len(), 2);
    }

    /// Shared data that counts how often the list of wants is read.
    #[derive(Default)]
    struct Counted(Memory, Cell<usize>);

    impl SharedData for &Counted {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            self.1.set(self.1.get() + usize::from(key == WANTED));
            (&self.0).get(key)
        }

        fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
            (&self.0).set(key, value, cas)
        }
    }

    #[test]
    fn the_list_of_wants_is_read_only_when_it_changed_or_a_lease_is_due() {
        let (memory, mine) = (Counted::default(), [Identity::default_chain()]);
        let store = CredentialStore(&memory);
        let (mut signer, mut intake) = (Watch::new(at(0)), Watch::new(at(0)));
        let (mut ids, own) = (WantedIds::default(), Some(("mine", &mine[..])));
        let reads = |action: &mut dyn FnMut()| {
            let before = memory.1.get();
            action();
            memory.1.get() - before
        };
        for second in 0..2 {
            store.tend_leases(&mut signer, own, at(second)).unwrap();
            store.tend_leases(&mut intake, None, at(second)).unwrap();
        }
        assert_eq!(store.is_wanted(&mut ids, "default"), Ok(true));
        let pushes = reads(&mut || {
            for second in 2..9 {
                assert_eq!(store.is_wanted(&mut ids, "default"), Ok(true));
                store.put("default", &credentials(&format!("AKID{second}"))).unwrap();
                store.tend_leases(&mut signer, own, at(second)).unwrap();
                store.tend_leases(&mut intake, None, at(second)).unwrap();
            }
        });
        assert_eq!(pushes, 0);
        assert!((1..=3).contains(&reads(&mut || {
            (9..20).for_each(|second| store.tend_leases(&mut signer, own, at(second)).unwrap());
        })));
        CredentialStore(&memory.0).want("other", &[role("other")], at(20), true).unwrap();
        assert_eq!(store.is_wanted(&mut ids, role("other").id()), Ok(true));
        (20..60).for_each(|second| store.tend_leases(&mut intake, None, at(second)).unwrap());
        assert!(store.wanted().unwrap().is_empty());
        assert_eq!(store.is_wanted(&mut ids, "default"), Ok(false));
        store.tend_leases(&mut signer, own, at(60)).unwrap();
        assert_eq!(store.wanted().unwrap(), mine);
    }

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

        // As another version of the filter does, which tells nobody which.
        (&memory).set(GENERATION, (now + 1).to_string().as_bytes(), 0).unwrap();
        assert_eq!(store.changes(now, store.generation()), None);
        // What is wanted.
        let seen = store.generation();
        store.want("policy", &[Identity::default_chain()], at(0), true).unwrap();
        assert_eq!(store.changes(seen, store.generation()), None);
        // More than is remembered, which is bounded.
        let seen = store.generation();
        for _ in 0..1000 {
            store.put("default", &credentials("AKIDONE")).unwrap();
        }
        assert_eq!(store.changes(seen, store.generation()), None);
        assert_eq!(store.changes(store.generation() - 300, store.generation()).map(|ids| ids.len()), Some(300));
        assert!((&memory).get(CHANGES).unwrap().0.len() <= CHANGES_MAX);
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_no_lease_for_long() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("gone", &[role("gone")], at(10_000), true).unwrap();
        store.sweep(at(0)).unwrap();
        assert_eq!(store.wanted().unwrap().len(), 1);
        store.sweep(at(31)).unwrap();
        assert!(store.wanted().unwrap().is_empty());
    }

    #[test]
    fn the_intake_alone_sweeps_what_the_last_policy_left() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("last", &[Identity::default_chain()], at(0), true).unwrap();
        store.put("default", &credentials("AKIDONE")).unwrap();
        let generation = store.generation();
        store.sweep(at(29)).unwrap();
        assert_eq!(store.generation(), generation);
        store.sweep(at(31)).unwrap();
        assert!(store.wanted().unwrap().is_empty() && store.get("default").is_none());
        assert!(store.generation() > generation);
    }

    #[test]
    fn a_policy_that_wants_others_than_before_is_heard_at_once() {
        let memory = Memory::default();
        let store = CredentialStore(&memory);
        store.want("policy", &[role("old")], at(0), true).unwrap();
        let generation = store.generation();
        assert_eq!(generation, (1_000_000) * 1000);
        store.want("policy", &[role("new")], at(0), true).unwrap();
        assert_eq!(store.wanted().unwrap(), [role("new")]);
        assert!(store.generation() > generation);
    }

    /// What earlier versions wrote, and what they can read, word for word.
    #[test]
    fn versions_read_each_other() {
        const WANTED_BEFORE: &str = r#"[{"policy":"a","until":1000030,"identities":[{"id":"default"}]}]"#;
        let memory = Memory::default();
        (&memory).set(WANTED, WANTED_BEFORE.as_bytes(), 0).unwrap();
        (&memory).set(GENERATION, b"7", 0).unwrap();
        let store = CredentialStore(&memory);
        assert_eq!(store.wanted().unwrap(), [Identity::default_chain()]);
        store.want("b", &[], at(0), true).unwrap();
        let written = String::from_utf8((&memory).get(WANTED).unwrap().0).unwrap();
        assert!(written.starts_with(WANTED_BEFORE.trim_end_matches(']')), "{written}");
        assert!(store.generation() > 7);
    }

    #[test]
    fn what_a_later_version_wrote_is_not_overwritten() {
        let memory = Memory::default();
        (&memory).set(WANTED, br#"{"wants": []}"#, 0).unwrap();
        let store = CredentialStore(&memory);
        assert_eq!(store.want("mine", &[role("mine")], at(0), true), Err(SetError::Unreadable));
        assert_eq!(store.wanted(), Err(SetError::Unreadable));
        assert_eq!((&memory).get(WANTED).unwrap().0, br#"{"wants": []}"#);
    }

    /// A writer that loses its first race.
    struct Contended<'a>(&'a Memory, RefCell<bool>);

    impl SharedData for Contended<'_> {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            (&self.0).get(key)
        }

        fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), SetError> {
            if self.1.replace(false) {
                CredentialStore(self.0).want("other", &[role("other")], at(0), true).unwrap();
            }
            (&self.0).set(key, value, cas)
        }
    }

    #[test]
    fn a_lost_race_loses_no_want() {
        let memory = Memory::default();
        CredentialStore(&memory).want("first", &[Identity::default_chain()], at(0), true).unwrap();
        let store = CredentialStore(Contended(&memory, RefCell::new(true)));
        store.want("mine", &[role("mine")], at(0), true).unwrap();
        assert_eq!(store.wanted().unwrap().len(), 3);
    }
}
