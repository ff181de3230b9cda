//! A cache of SHA-256 states for canonical requests that share a prefix.
//!
//! With temporary credentials most of a canonical request is the session token, followed by little else. Calls of DynamoDB,
//! SQS or KMS all have one path and differ in the hash of the body. So the state of SHA-256 after the token is cached, and
//! reused for all requests of a second that are equal up to there.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// The most prefixes cached. A client that alternates between more paths pays for the whole hash.
const CAPACITY: usize = 4;

/// After this many consecutive misses, only one request in this many consults the cache: with object keys or ids in their
/// paths, few requests share a prefix, and a lookup costs.
const MISS_LIMIT: u32 = 16;

/// SHA-256's block; a state can be cached at its end.
const BLOCK: usize = 64;

/// The prefixes of recently hashed canonical requests.
#[derive(Default)]
pub(super) struct PrefixHashCache {
    /// The first `in_use` are valid; the others keep their buffers.
    entries: Vec<CachedPrefix>,
    in_use: usize,
    /// The index of the entry to evict next when all are in use.
    next: usize,
    /// The number of requests since the last hit.
    misses: u32,
}

struct CachedPrefix {
    /// The text before the part that all requests share.
    text: Vec<u8>,
    /// SHA-256 of the text and of the whole blocks of that part.
    hasher: Sha256,
}

impl PrefixHashCache {
    /// Forgets all entries, because the shared part changes.
    pub(super) fn clear(&mut self) {
        self.in_use = 0;
    }

    /// Returns the SHA-256 of `text`. The part `same` must be equal in all calls between two calls of
    /// [`clear`](Self::clear).
    pub(super) fn hash(&mut self, text: &[u8], same: Range<usize>) -> [u8; 32] {
        self.misses = self.misses.wrapping_add(1);
        let is_compared = self.misses <= MISS_LIMIT || self.misses.is_multiple_of(MISS_LIMIT);
        let (true, Some(before), Some((hashed, rest))) =
            (is_compared, text.get(..same.start), text.split_at_checked(same.end - same.end % BLOCK))
        else {
            return Sha256::digest(text).into();
        };
        let known = self.entries.iter().take(self.in_use).find(|beginning| is_equal(&beginning.text, before));
        let hasher = match known {
            Some(beginning) => {
                self.misses = 0;
                beginning.hasher.clone()
            }
            None => {
                let hasher = Sha256::new_with_prefix(hashed);
                self.keep(before, &hasher);
                hasher
            }
        };
        hasher.chain_update(rest).finalize().into()
    }

    fn keep(&mut self, text: &[u8], hasher: &Sha256) {
        let at = if self.in_use < CAPACITY {
            self.in_use += 1;
            self.in_use - 1
        } else {
            self.next = (self.next + 1) % CAPACITY;
            self.next
        };
        match self.entries.get_mut(at) {
            Some(beginning) => {
                beginning.text.clear();
                beginning.text.extend_from_slice(text);
                beginning.hasher.clone_from(hasher);
            }
            None => self.entries.push(CachedPrefix { text: text.to_owned(), hasher: hasher.clone() }),
        }
    }
}

/// Returns whether two texts are equal. Compares eight bytes at a time: `memcmp` of wasm32's library takes one.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks(), b.as_chunks());
    let is_same = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b);
    a.len() == b.len() && a_words.iter().zip(b_words).all(is_same) && a_rest == b_rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Checks with few, short prefixes and suffixes, so that many recur.
        #[test]
        fn a_hash_is_the_one_of_the_whole_text(
            same in proptest::collection::vec("[a-z]{0,200}", 1..4),
            texts in proptest::collection::vec(("[ab]{0,2}|[a-z]{60,70}", "[ab]{0,1}|[a-z]{100}"), 1..60),
        ) {
            let mut prefix_hashes = PrefixHashCache::default();
            for same in &same {
                prefix_hashes.clear();
                for (before, after) in &texts {
                    let text = [before.as_str(), same, after].concat();
                    let hash = prefix_hashes.hash(text.as_bytes(), before.len()..before.len() + same.len());
                    prop_assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&text)));
                    prop_assert!(prefix_hashes.entries.len() <= CAPACITY);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn texts_are_equal_in_every_byte(a in proptest::collection::vec(0u8..2, 0..20), b in proptest::collection::vec(0u8..2, 0..20)) {
            prop_assert_eq!(is_equal(&a, &b), a == b);
            prop_assert!(is_equal(&a, &a.clone()));
            for at in 0..a.len() {
                let mut other = a.clone();
                other[at] ^= 0x80;
                prop_assert!(!is_equal(&a, &other));
            }
        }
    }

    #[test]
    fn what_begins_alike_is_not_hashed_again() {
        let same = "t".repeat(700);
        let mut prefix_hashes = PrefixHashCache::default();
        for behind in ["a", "b"] {
            prefix_hashes.hash(format!("begins{same}{behind}").as_bytes(), 6..706);
        }
        assert_eq!(prefix_hashes.in_use, 1);
        prefix_hashes.hash(format!("begims{same}a").as_bytes(), 6..706);
        assert_eq!(prefix_hashes.in_use, 2);
    }

    #[test]
    fn a_beginning_among_many_that_differ_is_met_again() {
        let mut prefix_hashes = PrefixHashCache::default();
        let mut hash = |beginning: &str| {
            prefix_hashes.hash(format!("{beginning}same").as_bytes(), beginning.len()..beginning.len() + 4)
        };
        for number in 0..1000 {
            hash(&number.to_string());
        }
        for _ in 0..2 * MISS_LIMIT {
            hash("often");
        }
        assert_eq!(prefix_hashes.misses, 0);
    }

    #[test]
    fn a_range_that_is_not_in_the_text_does_no_harm() {
        let whole: [u8; 32] = Sha256::digest(b"text").into();
        assert_eq!(PrefixHashCache::default().hash(b"text", 5..900), whole);
        assert_eq!(PrefixHashCache::default().hash(b"text", 2..900), whole);
    }
}
