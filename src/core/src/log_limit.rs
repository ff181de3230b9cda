//! Warnings and errors of one kind, at most one a second: what requests can cause must not fill a disk.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// What makes messages be of one kind: the place in the source that writes them. What they say may be up to a client.
pub type CallSite = (&'static str, u32);

/// The target of messages that are never left out: those that no request can cause, and that may not be said again.
pub const UNLIMITED: &str = "unlimited";

/// How long after a message none of its kind is written.
const PAUSE: Duration = Duration::from_secs(1);

/// Says which messages are written. There are no more kinds than places in the source, so it does not grow.
#[derive(Debug, Default)]
pub struct LogLimit(HashMap<CallSite, Seen>);

#[derive(Debug)]
struct Seen {
    written: SystemTime,
    left_out: u64,
}

impl LogLimit {
    /// Whether a message of this kind is to be written: how many like it were left out before, or `None` where this one is
    /// left out as well.
    pub fn check(&mut self, kind: CallSite, now: SystemTime) -> Option<u64> {
        let Some(seen) = self.0.get_mut(&kind) else {
            self.0.insert(kind, Seen { written: now, left_out: 0 });
            return Some(0);
        };
        // A clock that was set back says nothing of the time that has passed.
        if now.duration_since(seen.written).is_ok_and(|passed| passed < PAUSE) {
            seen.left_out = seen.left_out.saturating_add(1);
            return None;
        }
        seen.written = now;
        Some(std::mem::take(&mut seen.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: CallSite = ("src/a.rs", 1);
    const B: CallSite = ("src/a.rs", 2);

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    #[test]
    fn one_of_a_kind_is_written_in_a_second_and_the_next_tells_how_many_were_left_out() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.check(A, at(5000)), Some(0));
        for millisecond in 5000..6000 {
            assert_eq!(limit.check(A, at(millisecond)), None);
        }
        assert_eq!(limit.check(A, at(6000)), Some(1000));
        assert_eq!(limit.check(A, at(6999)), None);
        assert_eq!(limit.check(A, at(60_000)), Some(1));
        assert_eq!(limit.check(A, at(61_000)), Some(0));
    }

    #[test]
    fn kinds_do_not_count_for_each_other() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.check(A, at(0)), Some(0));
        assert_eq!(limit.check(B, at(0)), Some(0));
        assert_eq!((limit.check(A, at(1)), limit.check(B, at(1))), (None, None));
        assert_eq!(limit.check(B, at(1000)), Some(1));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_silence_a_kind() {
        let mut limit = LogLimit::default();
        assert_eq!(limit.check(A, at(60_000)), Some(0));
        assert_eq!(limit.check(A, at(1000)), Some(0));
        assert_eq!(limit.check(A, at(1500)), None);
    }
}
