//! The proxy's clock, and the time that has passed by it.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use crate::host::Host;

/// No longer passes between two looks at the clock, which the plugin's tick sees to: what is more is a clock that was set.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// The proxy's clock as it was last read. The proxy gives a wall clock alone, which may be set.
pub(crate) struct Clock {
    now: Cell<SystemTime>,
    elapsed: Cell<Duration>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: Cell::new(SystemTime::UNIX_EPOCH), elapsed: Cell::default() }
    }
}

impl Clock {
    /// Reads the clock.
    pub(crate) fn read(&self, host: &impl Host) -> SystemTime {
        let (before, now) = (self.now.replace(host.now()), self.now.get());
        let step = now.duration_since(before).unwrap_or_default().min(LONGEST_STEP);
        self.elapsed.set(self.elapsed.get() + step);
        now
    }

    /// Returns the time of the last look: on the last tick, or for a request since. No more than a second ago, which is as
    /// fine as the date of a signature.
    pub(crate) fn now(&self) -> SystemTime {
        self.now.get()
    }

    /// Returns the time that has passed up to the last look. A clock that is set makes a step of two seconds at most.
    pub(crate) fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }
}
