//! Canonical requests that begin alike, hashed from where they differ.
//!
//! With temporary credentials most of a canonical request is the session token, and little stands behind it: what differs
//! from one call of DynamoDB, SQS or KMS to the next, which all go to one path, is the hash of the body. So the state of
//! SHA-256 behind the token is kept, and serves all requests of a second that are the same as far as that.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// How many different beginnings are kept. Who calls more paths than these in turn pays for the whole hash.
const CAPACITY: usize = 4;

/// After so many requests in a row that began like none before, one in so many is compared and kept: with object keys or
/// ids in their paths, few ever begin alike, and looking costs.
const MISS_LIMIT: u32 = 16;

/// SHA-256's block, up to whose end a state can be kept.
const BLOCK: usize = 64;

/// The beginnings of the canonical requests that were hashed lately.
#[derive(Default)]
pub(super) struct PrefixHashCache {
    /// Of these, the first `in_use` hold; the others keep their buffers.
    entries: Vec<CachedPrefix>,
    in_use: usize,
    /// Which is given up next when all are in use.
    next: usize,
    /// How many requests have come since one began like an earlier one.
    misses: u32,
}

struct CachedPrefix {
    /// The text before the part that is the same for all.
    text: Vec<u8>,
    /// SHA-256 of the text and, as far as there are whole blocks, of that part.
    hasher: Sha256,
}

impl PrefixHashCache {
    /// Forgets all entries: what was the same for all is so no longer.
    pub(super) fn clear(&mut self) {
        self.in_use = 0;
    }

    /// SHA-256 of `text`, of which the part `same` has been the same, and will be, in all calls from one
    /// [`clear`](Self::clear) to the next.
    pub(super) fn hash(&mut self, text: &[u8], same: Range<usize>) -> [u8; 32] {
        self.misses = self.misses.wrapping_add(1);
        let is_compared = self.misses <= MISS_LIMIT || self.misses.is_multiple_of(MISS_LIMIT);
        let (true, Some(before), Some((hashed, rest))) =
            (is_compared, text.get(..same.start), text.split_at_checked(same.end - same.end % BLOCK))
        else {
            return Sha256::digest(text).into();
        };
        let known = self.entries.iter().take(self.in_use).find(|beginning| beginning.text == before);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few and short beginnings and ends, so that many are met again.
        #[test]
        fn a_hash_is_the_one_of_the_whole_text(
            same in proptest::collection::vec("[a-z]{0,200}", 1..4),
            texts in proptest::collection::vec(("[ab]{0,2}|[a-z]{60,70}", "[ab]{0,1}|[a-z]{100}"), 1..60),
        ) {
            let mut prefix_hashes = PrefixHashCache::default();
            for same in &same {
                prefix_hashes.clear();
                for (before, behind) in &texts {
                    let text = [before.as_str(), same, behind].concat();
                    let hash = prefix_hashes.hash(text.as_bytes(), before.len()..before.len() + same.len());
                    prop_assert_eq!(hash, <[u8; 32]>::from(Sha256::digest(&text)));
                    prop_assert!(prefix_hashes.entries.len() <= CAPACITY);
                }
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
